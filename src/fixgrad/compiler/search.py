"""The search for tilings: branch and bound that ends with the best one under the cost model.

A branch is a way to split pixels over PEs and tiles; under it stand all numbers of channels, chunks and loop orders. A branch
costs at least its own share of PEs kept busy, so branches are visited from the lowest bound up, and the search ends when
the next bound is not below the best cost: what it returns is the optimum of the model, and the gap to the lower bound of the
phase is reported with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.axis_cuts import AxisCut, axis_cuts
from fixgrad.compiler.cost import Cost, Grid, Job, gradient_cost, map_cost
from fixgrad.compiler.geometry import Axis
from fixgrad.compiler.tiling import LayerTiling, Split, Tiling
from fixgrad.machine import Machine

_UNIT = Axis(1, 1)


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


@lru_cache(maxsize=512)
def best_tiling(job: Job, block: int) -> Choice | None:
    """The best tiling of a phase with CSB blocks of `block` rows; None if none fits."""
    best: Choice | None = None
    found, visited = branches(job), 0
    for branch in found:
        if best is not None and branch.bound >= best.cycles:
            break
        visited += 1
        choice = _best_of(job, branch, block, best.cycles if best else np.inf)
        best = choice or best
    return replace(best, branches=len(found), visited=visited) if best else None


def _best_of(job: Job, branch: Branch, block: int, incumbent: float) -> Choice | None:
    """The best tiling of a branch, if it beats `incumbent`."""
    channels, chunks, resident = _channels(job, branch, block), _chunks(job, branch, block), np.array([True, False])
    if not len(channels) or not len(chunks):
        return None
    grid = Grid(channels[:, None, None], chunks[None, :, None], resident[None, None, :])
    evaluate = gradient_cost if job.phase == "wg" else map_cost
    cost: Cost = evaluate(job, branch.split, branch.rows, branch.columns, grid, block)
    place = np.unravel_index(int(np.argmin(cost.cycles)), cost.cycles.shape)
    cycles = float(cost.cycles[place])
    if cycles >= incumbent:
        return None
    tiling = Tiling(
        split=branch.split,
        rows=branch.rows.extent,
        columns=branch.columns.extent,
        channels=int(channels[place[0]]),
        chunk=int(chunks[place[1]]),
        resident=bool(resident[place[2]]),
    )
    return Choice(tiling, cycles, float(cost.bytes[place]), job.lower_bound, 0, 0)


def _channels(job: Job, branch: Branch, block: int) -> NDArray[np.int64]:
    """Channels of a queue: for every number of tiles the least that does, in whole CSB blocks where rows are outputs."""
    machine = job.machine
    pixels = branch.rows.pixels * branch.columns.pixels
    words = machine.lane_words if job.phase == "wg" else machine.half_lane_words
    most = min(words // max(pixels, 1), machine.kernel_words // job.words)
    if job.phase == "wg":
        most = min(most, machine.half_gradient_words // job.stage.taps)
    unit = block if job.phase != "ng" else 1
    each = -(-job.outputs // (machine.groups * branch.split.channels))
    found = {-(-(-(-each // tiles)) // unit) * unit for tiles in range(1, each + 1)}
    return np.array(sorted(item for item in found if item <= most), np.int64)


def _chunks(job: Job, branch: Branch, block: int) -> NDArray[np.int64]:
    """Channels that a COMPUTE reads: in whole CSB blocks where rows are inputs."""
    held = branch.rows.held * branch.columns.held
    most = min(job.inputs, job.machine.input_words // max(held, 1))
    unit = block if job.phase == "ng" else 1
    found = {-(-item // unit) * unit for item in _steps(job.inputs)}
    return np.array(sorted(item for item in found if item <= max(most // unit * unit, min(most, unit))), np.int64)


def _steps(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... and `most`: sizes of which the next is at most half as large again."""
    sizes = {size for power in range(most.bit_length()) for size in (1 << power, 3 << power >> 1)}
    return sorted({size for size in sizes if size < most} | {most})


def block_sizes(rows: int) -> list[int]:
    """Heights of CSB blocks to try."""
    return [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256) if size < 2 * rows]


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """The tilings of a layer, and what the search says about each phase."""

    tiling: LayerTiling
    phases: dict[str, Choice]


def best_layer(jobs: dict[str, Job], rows: int) -> LayerChoice | None:
    """The height of CSB blocks, which all phases of a layer share, with the least sum of cycles; None if none fits."""
    best: tuple[float, int, dict[str, Choice]] | None = None
    for block in block_sizes(rows):
        found = {phase: best_tiling(job, block) for phase, job in jobs.items()}
        choices = {phase: choice for phase, choice in found.items() if choice is not None}
        if len(choices) < len(jobs):
            continue
        cycles = sum(choice.cycles for choice in choices.values())
        if best is None or cycles < best[0]:
            best = cycles, block, choices
    if best is None:
        return None
    _, block, choices = best
    tilings = {phase: choice.tiling for phase, choice in choices.items()}
    return LayerChoice(LayerTiling(block, tilings["ff"], tilings.get("ng"), tilings.get("wg")), choices)
