"""The search for tilings: branch and bound that ends with the best one under the cost model.

A branch is a way to split pixels over PEs and tiles; under it stand all numbers of channels, chunks and loop orders. A branch
costs at least its own share of PEs kept busy, so branches are visited from the lowest bound up, and the search ends when
the next bound is not below the best cost: what it returns is the optimum of the model, and the gap to the lower bound of the
phase is reported with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.axis_cuts import AxisCut, axis_cuts
from fixgrad.compiler.cost import Grid, Job, gradient_cost, map_cost
from fixgrad.compiler.kernels import END_WORDS
from fixgrad.compiler.tiling import LayerTiling, Split, Tiling
from fixgrad.machine import Machine
from fixgrad.machine.encoding import layout

#: Channels that the field of LOAD_INPUT holds.
MAX_CHUNK = layout("LOAD_INPUT")["channels"].high
_NEVER = np.array([False])


@dataclass(frozen=True, slots=True)
class Choice:
    """What the search found for a phase.

    Attributes:
        tiling: the best one.
        cycles, bytes: its cost.
        lower_bound: cycles that no tiling beats.
        branches, visited: of the search: all, and those that had to be looked into.
    """

    tiling: Tiling
    cycles: float
    bytes: float
    lower_bound: float
    branches: int
    visited: int

    @property
    def gap(self) -> float:
        """Share by which the cost exceeds the lower bound."""
        return self.cycles / self.lower_bound - 1 if self.lower_bound else 0.0


class Branch(NamedTuple):
    """A split of pixels, and the cycles below which nothing under it can be."""

    bound: float
    split: Split
    rows: AxisCut
    columns: AxisCut


def splits(machine: Machine) -> Iterator[Split]:
    """The ways in which the PEs of a group can share the work."""
    pes = machine.pes_per_group
    for rows in (1, 2, 4):
        if pes % rows == 0:
            yield Split(rows=rows, columns=pes // rows)
    if pes > 1:
        yield Split(channels=pes)


def branches(job: Job) -> list[Branch]:
    """All branches, the lowest bound first."""
    found = []
    stage = job.stage
    axes = (stage.rows, stage.columns)
    pool = stage.pool if job.phase == "ff" else (1, 1)
    for split in splits(job.machine):
        parts = (split.rows, split.columns)
        cuts = [list(axis_cuts(axes[a], parts[a], pool[a], job.transposed, job.count_padding)) for a in (0, 1)]
        for rows, columns in product(*cuts):
            busy = rows.taps * columns.taps * job.micro_batches * job.kernels / (job.machine.groups * split.channels)
            found.append(Branch(max(busy, job.lower_bound), split, rows, columns))
    return sorted(found, key=lambda branch: (branch.bound, branch.rows.tiles * branch.columns.tiles))


def best_tilings(job: Job, blocks: tuple[int, ...]) -> dict[int, Choice]:
    """The best tiling of a phase for each height of CSB blocks for which one fits."""
    best: dict[int, Choice] = {}
    found, visited = branches(job), 0
    for branch in found:
        if len(best) == len(blocks) and branch.bound >= max(choice.cycles for choice in best.values()):
            break
        visited += 1
        for block, choice in _best_of(job, branch, blocks).items():
            if block not in best or choice.cycles < best[block].cycles:
                best[block] = choice
    return {block: replace(choice, branches=len(found), visited=visited) for block, choice in best.items()}


def _best_of(job: Job, branch: Branch, blocks: tuple[int, ...]) -> dict[int, Choice]:
    """The best tiling of a branch for each height of CSB blocks."""
    channels, chunks = _channels(job, branch, blocks), _chunks(job, branch)
    if not len(channels) or not len(chunks):
        return {}
    held = branch.rows.held * branch.columns.held
    can_stay = job.inputs * held <= job.machine.input_words and job.inputs <= MAX_CHUNK
    stays = np.array([True, False]) if can_stay else _NEVER
    axes = np.meshgrid(channels, chunks, stays, blocks, indexing="ij", sparse=True)
    evaluate = gradient_cost if job.phase == "wg" else map_cost
    cost = evaluate(job, branch.split, branch.rows, branch.columns, Grid(*axes))
    flat = cost.cycles.reshape(-1, len(blocks))
    places = flat.argmin(axis=0)
    choices = {}
    for number, (block, place) in enumerate(zip(blocks, places.tolist(), strict=True)):
        if np.isfinite(flat[place, number]):
            n, chunk, stay = np.unravel_index(place, cost.cycles.shape[:3])
            moved = float(cost.bytes[n, chunk, stay, number])
            tiling = Tiling(
                branch.split, branch.rows.extent, branch.columns.extent, int(channels[n]), int(chunks[chunk]), bool(stays[stay])
            )
            choices[block] = Choice(tiling, float(flat[place, number]), moved, job.lower_bound, 0, 0)
    return choices


def _channels(job: Job, branch: Branch, blocks: tuple[int, ...]) -> NDArray[np.int64]:
    """Channels of a queue: for every number of tiles the least that does, in whole CSB blocks where rows are outputs."""
    machine = job.machine
    pixels = branch.rows.pixels * branch.columns.pixels
    words = machine.lane_words if job.phase == "wg" else machine.half_lane_words
    most = min(words // max(pixels, 1), (machine.kernel_words - END_WORDS) // job.words)
    if job.phase == "wg":
        most = min(most, machine.half_gradient_words // job.stage.taps)
    each = -(-job.outputs // (machine.groups * branch.split.channels))
    least = {-(-each // tiles) for tiles in range(1, each + 1)}
    units = (1,) if job.phase == "ng" else blocks
    found = {-(-item // unit) * unit for item in least for unit in units}
    return np.array(sorted(item for item in found if item <= most), np.int64)


def _chunks(job: Job, branch: Branch) -> NDArray[np.int64]:
    """Channels that a COMPUTE reads."""
    held = branch.rows.held * branch.columns.held
    most = min(job.inputs, job.machine.input_words // max(held, 1))
    return np.array([item for item in _steps(job.inputs) if item <= min(most, MAX_CHUNK)], np.int64)


def _steps(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... and `most`: sizes of which the next is at most half as large again."""
    sizes = {size for power in range(most.bit_length()) for size in (1 << power, 3 << power >> 1)}
    return sorted({size for size in sizes if size < most} | {most})


def block_sizes(rows: int) -> tuple[int, ...]:
    """Heights of CSB blocks to try."""
    return tuple(size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256) if size < 2 * rows)


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """The tilings of a layer, and what the search says about each phase."""

    tiling: LayerTiling
    phases: dict[str, Choice]


def best_layer(jobs: dict[str, Job], rows: int) -> LayerChoice | None:
    """The height of CSB blocks, which all phases of a layer share, with the least sum of cycles; None if none fits."""
    blocks = block_sizes(rows)
    found = {phase: best_tilings(job, blocks) for phase, job in jobs.items()}
    fitting = [block for block in blocks if all(block in choices for choices in found.values())]
    if not fitting:
        return None
    block = min(fitting, key=lambda size: sum(choices[size].cycles for choices in found.values()))
    phases = {phase: choices[block] for phase, choices in found.items()}
    tilings = {phase: choice.tiling for phase, choice in phases.items()}
    return LayerChoice(LayerTiling(block, tilings["ff"], tilings.get("ng"), tilings.get("wg")), phases)
