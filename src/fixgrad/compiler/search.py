"""The search for tilings: branch and bound that ends with the best one under the cost model.

A *branch* is a way to split pixels over PEs and tiles; under it stand all numbers of channels, chunks, heights of CSB blocks, and
whether inputs stay. A branch costs at least its own share of PEs kept busy and its own reads, so branches are visited from the
lowest bound up. The phases of a layer share the height of its CSB blocks: the search goes on, in whichever phase leaves it
open, until no other height can have a lower sum than the best one found. What it returns is the optimum of the model, and the
gap to each phase's lower bound is reported with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.axis_cuts import AxisCut, axis_cuts
from fixgrad.compiler.cost import Grid, Job, gradient_cost, least_cycles, map_cost
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
    """All branches that may fit, the lowest bound first."""
    found = []
    stage, machine = job.stage, job.machine
    axes = (stage.rows, stage.columns)
    pool = stage.pool if job.phase == "ff" else (1, 1)
    words = machine.lane_words if job.phase == "wg" else machine.half_lane_words
    least = job.lower_bound
    for split in splits(machine):
        parts = (split.rows, split.columns)
        cuts = [list(axis_cuts(axes[a], parts[a], pool[a], job.transposed, job.count_padding)) for a in (0, 1)]
        for rows, columns in product(*cuts):
            if rows.pixels * columns.pixels > words or rows.held * columns.held > machine.input_words:
                continue
            found.append(Branch(max(least, least_cycles(job, split, rows, columns)), split, rows, columns))
    return sorted(found, key=lambda branch: (branch.bound, branch.rows.tiles * branch.columns.tiles))


class PhaseSearch:
    """The search of one phase, which can be stopped and taken up again.

    Args:
        blocks: heights of CSB blocks to try.

    Attributes:
        best: the best tiling so far for each height for which one fits.
        visited: branches looked into.
    """

    def __init__(self, job: Job, blocks: tuple[int, ...]) -> None:
        self.best: dict[int, Choice] = {}
        self.visited = 0
        self._job, self._blocks = job, blocks
        self._branches = branches(job)

    @property
    def floor(self) -> float:
        """Cycles below which nothing is left to be found."""
        return self._branches[self.visited].bound if self.visited < len(self._branches) else np.inf

    def upper(self, block: int) -> float:
        """Cycles of the best tiling found for a height."""
        return self.best[block].cycles if block in self.best else np.inf

    def lower(self, block: int) -> float:
        """Cycles that no tiling with this height is below."""
        return min(self.upper(block), self.floor)

    def advance(self, until: float) -> None:
        """Look into branches until the floor reaches `until`, or one branch at least."""
        while self.visited < len(self._branches):
            branch = self._branches[self.visited]
            self.visited += 1
            for block, choice in _best_of(self._job, branch, self._blocks).items():
                if choice.cycles < self.upper(block):
                    self.best[block] = choice
            if self.floor >= until:
                break

    def choice(self, block: int) -> Choice:
        """The best tiling for a height, with what the search took."""
        return replace(self.best[block], branches=len(self._branches), visited=self.visited)


def _best_of(job: Job, branch: Branch, blocks: tuple[int, ...]) -> dict[int, Choice]:
    """The best tiling of a branch for each height of CSB blocks."""
    channels, chunks = _channels(job, branch, blocks), _chunks(job, branch, blocks)
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


def _chunks(job: Job, branch: Branch, blocks: tuple[int, ...]) -> NDArray[np.int64]:
    """Channels that a COMPUTE reads."""
    held = branch.rows.held * branch.columns.held
    most = min(job.inputs, job.machine.input_words // max(held, 1))
    sizes = {*_steps(job.inputs), *(blocks if job.phase == "ng" else ())}
    return np.array(sorted(item for item in sizes if item <= min(most, MAX_CHUNK)), np.int64)


def _steps(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... and `most`: sizes of which the next is at most half as large again."""
    sizes = {size for power in range(most.bit_length()) for size in (1 << power, 3 << power >> 1)}
    return sorted({size for size in sizes if size < most} | {most})


def block_sizes(rows: int) -> tuple[int, ...]:
    """Heights of CSB blocks to try: powers of two, and 15, of which 17 columns leave room for an end mark in 256 words."""
    return tuple(size for size in (1, 2, 4, 8, 15, 16, 32, 64, 128, 256) if size < 2 * rows)


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """The tilings of a layer, and what the search says about each phase."""

    tiling: LayerTiling
    phases: dict[str, Choice]


def best_layer(jobs: dict[str, Job], rows: int) -> LayerChoice | None:
    """The height of CSB blocks, which all phases of a layer share, with the least sum of cycles; None if none fits."""
    blocks = block_sizes(rows)
    searches = {phase: PhaseSearch(job, blocks) for phase, job in jobs.items()}
    for search in searches.values():
        while search.floor < min(map(search.upper, blocks)):
            search.advance(search.floor)
    while True:
        totals = {block: sum(search.upper(block) for search in searches.values()) for block in blocks}
        block = min(blocks, key=lambda size: totals[size])
        rival = min(blocks, key=lambda size: sum(search.lower(size) for search in searches.values()))
        if sum(search.lower(rival) for search in searches.values()) >= totals[block]:
            break
        open_ones = [search for search in searches.values() if search.lower(rival) < search.upper(rival)]
        for search in open_ones:
            search.advance(search.floor)
    if not np.isfinite(totals[block]):
        return None
    phases = {phase: search.choice(block) for phase, search in searches.items()}
    tilings = {phase: choice.tiling for phase, choice in phases.items()}
    return LayerChoice(LayerTiling(block, tilings["ff"], tilings.get("ng"), tilings.get("wg")), phases)
