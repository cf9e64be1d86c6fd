"""The search finds the optimum of its cost model: held against all tilings, without a bound, on small layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from fixgrad.compiler import compile_step
from fixgrad.compiler.axis_cuts import AxisCut, axis_cuts
from fixgrad.compiler.cost import Grid, Job, gradient_cost, least_cycles, map_cost
from fixgrad.compiler.graph_builder import build_graph
from fixgrad.compiler.planning import stage_jobs
from fixgrad.compiler.search import best_layer, block_sizes, branches, splits
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.tiling import Split
from fixgrad.machine import Machine, preset
from fixgrad.network import INPUT, Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe
from fixgrad.numbers.convolution import ConvGeometry

TINY = preset("tiny")
FOUR = TINY.with_changes(pes_per_group=4, input_words=64, lane_words=64, kernel_words=32, gradient_words=128)


@dataclass(frozen=True)
class Case:
    """A layer, what is alive of it, a machine and a batch."""

    conv: Conv2d
    size: int
    density: float
    machine: Machine
    batch: int
    window: int = 1

    def stage(self) -> Stage:
        """The layer as the second one of a network, so that it has an NG."""
        before = Conv2d(name="before", inputs=(INPUT,), in_channels=1, filters=self.conv.in_channels, kernel=(1, 1), relu=True)
        side = self.conv.output_shape((self.conv.in_channels, self.size, self.size))[1] // self.window
        pool = (MaxPool2d(name="pool", inputs=("conv",), window=(self.window,) * 2),) if self.window > 1 else ()
        flat = Flatten(name="flat", inputs=("pool" if pool else "conv",))
        features = self.conv.filters * side * side
        head = Linear(name="head", inputs=("flat",), in_features=features, out_features=2, out_bits=16)
        return build_graph(Network("case", (1, self.size, self.size), 6, (before, self.conv, *pool, flat, head))).stages[1]

    def jobs(self) -> dict[str, Job]:
        stage = self.stage()
        kernels = max(1, int(np.prod(stage.matrix_shape) * self.density))
        return stage_jobs(stage, kernels, self.machine, self.batch, Recipe(), True, False)


def conv(inputs: int, filters: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> Conv2d:
    geometry = ConvGeometry(stride=(stride, stride), padding=(padding, padding))
    return Conv2d(
        name="conv", inputs=("before",), in_channels=inputs, filters=filters, kernel=(kernel, kernel), geometry=geometry, relu=True
    )


CASES = {
    "3x3": Case(conv(4, 6), 8, 0.5, TINY, 4),
    "dense, pooled": Case(conv(3, 8), 8, 1.0, FOUR, 4, window=2),
    "micro-batches": Case(conv(5, 7), 6, 0.3, TINY, 9),
    "strided": Case(conv(4, 5, kernel=2, stride=2, padding=0), 9, 0.7, FOUR, 4),
    "1x1, strided": Case(conv(9, 6, kernel=1, stride=2, padding=0), 7, 1.0, TINY, 3),
    "5x5": Case(conv(2, 4, kernel=5, padding=2), 7, 0.8, FOUR, 2),
}


def cuts(job: Job) -> Iterator[tuple[Split, AxisCut, AxisCut]]:
    pool = job.stage.pool if job.phase == "ff" else (1, 1)
    for split in splits(job.machine):
        axes = ((job.stage.rows, split.rows, pool[0]), (job.stage.columns, split.columns, pool[1]))
        found = [list(axis_cuts(axis, parts, multiple, job.transposed, job.count_padding)) for axis, parts, multiple in axes]
        for rows, columns in product(*found):
            yield split, rows, columns


Tiled = tuple[int, int, bool, int]


def cycles(job: Job, cut: tuple[Split, AxisCut, AxisCut], tilings: Sequence[Tiled]) -> NDArray[np.float64]:
    """Cost of each tiling: channels, chunk, resident, height of blocks."""
    evaluate = gradient_cost if job.phase == "wg" else map_cost
    found: NDArray[np.float64] = evaluate(job, *cut, Grid(*map(np.array, zip(*tilings, strict=True)))).cycles
    return found


def every_tiling(job: Job, split: Split, block: int) -> list[Tiled]:
    """All numbers of channels of a queue up to its whole share (in whole blocks), and all chunks of input channels."""
    share = -(-job.outputs // (job.machine.groups * split.channels))
    most = -(-share // block) * block if job.phase != "ng" else share
    return list(product(range(1, most + 1), range(1, job.inputs + 1), (False, True), (block,)))


def optimum(jobs: dict[str, Job], block: int) -> float:
    """The least sum over the phases, found the slow way."""
    return float(sum(min(cycles(job, cut, every_tiling(job, cut[0], block)).min() for cut in cuts(job)) for job in jobs.values()))


@pytest.mark.parametrize("name", CASES)
def test_the_optimum_is_that_of_all_tilings(name: str) -> None:
    case = CASES[name]
    jobs, rows = case.jobs(), case.stage().matrix_shape[0]
    found = best_layer(jobs, rows)
    assert found is not None
    least = {block: optimum(jobs, block) for block in block_sizes(rows)}
    sum_found = sum(choice.cycles for choice in found.phases.values())
    # The search tries not every number of channels and chunk; on layers as small as these it tries enough of them.
    assert sum_found == pytest.approx(min(least.values()), rel=1e-9)
    assert found.tiling.block_rows == min(least, key=lambda block: least[block]) or len(set(least.values())) < len(least)


@pytest.mark.parametrize("name", CASES)
def test_what_is_reported_is_what_the_tiling_costs(name: str) -> None:
    case = CASES[name]
    jobs, rows = case.jobs(), case.stage().matrix_shape[0]
    found = best_layer(jobs, rows)
    assert found is not None
    for phase, choice in found.phases.items():
        job, tiling = jobs[phase], choice.tiling
        chosen = tiling.split, tiling.rows, tiling.columns
        cut = next(each for each in cuts(job) if (each[0], each[1].extent, each[2].extent) == chosen)
        alone = tiling.channels, tiling.chunk, tiling.resident, found.tiling.block_rows
        assert cycles(job, cut, [alone])[0] == pytest.approx(choice.cycles)
        assert choice.lower_bound == job.lower_bound
        assert choice.cycles >= job.lower_bound
        assert choice.gap == choice.cycles / job.lower_bound - 1
        assert 1 <= choice.visited <= choice.branches == len(branches(job))


@pytest.mark.parametrize("name", CASES)
def test_no_tiling_is_below_the_bound_of_its_branch(name: str) -> None:
    """Otherwise the search would end too early."""
    case = CASES[name]
    blocks = block_sizes(case.stage().matrix_shape[0])
    for job in case.jobs().values():
        for branch in branches(job):
            assert branch.bound >= max(job.lower_bound, least_cycles(job, branch.split, branch.rows, branch.columns)) - 1e-9
            cut = branch.split, branch.rows, branch.columns
            least = min(cycles(job, cut, every_tiling(job, branch.split, block)).min() for block in blocks)
            assert branch.bound <= least + 1e-9


def test_the_schedule_reports_the_gap_of_every_phase() -> None:
    layers = (
        Flatten(name="flat", inputs=(INPUT,)),
        Linear(name="a", inputs=("flat",), in_features=12, out_features=9, relu=True),
        Linear(name="head", inputs=("a",), in_features=9, out_features=4, out_bits=16),
    )
    schedule = compile_step(Network("two", (12, 1, 1), 6, layers), None, TINY, 4).schedule
    assert [(phase.layer, phase.phase) for phase in schedule.phases] == [
        ("a", "ff"), ("head", "ff"), ("head", "ng"), ("a", "wg"), ("head", "wg"),
    ]  # fmt: skip
    for phase in schedule.phases:
        assert phase.gap == phase.cycles / phase.lower_bound - 1 >= 0
    assert schedule.cycles == sum(phase.cycles for phase in schedule.phases) > schedule.lower_bound


def test_sizes_that_are_not_tried_gain_little() -> None:
    """Of chunks only 1, 2, 3, 4, 6, 8, 12, ... are tried: with 23 channels most sizes are not among them."""
    case = Case(conv(23, 19), 10, 0.6, TINY, 4)
    jobs, rows = case.jobs(), case.stage().matrix_shape[0]
    found = best_layer(jobs, rows)
    assert found is not None
    least = min(optimum(jobs, block) for block in block_sizes(rows))
    assert least <= sum(choice.cycles for choice in found.phases.values()) <= 1.02 * least
