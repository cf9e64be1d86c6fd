"""The elementwise unit, in the POST unit, against the functional simulator: byte for byte, whatever the memory does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fixgrad.gateware.simulation import DramTiming, Hostility
from fixgrad.machine import Instruction, Machine, preset
from fixgrad.machine.parameters import Memory

from .jobs import Jobs, execute

SLOW = DramTiming(30, 12, 9000, 5)
LIMIT = 200_000
MACHINE = preset("tiny-graph")


def variant(name: str, lanes: int, at_once: int, channels: int, port_bytes: int, **changes: int) -> Machine:
    memory = Memory("ddr4_2400", channels=channels, interleave=256, port_bytes=port_bytes, bytes_total=64 << 20)
    return MACHINE.with_changes(name=name, lanes=lanes, elementwise_lanes=at_once, memory=memory, **changes)


#: All lanes at once and words that are beats on two channels, two post-processors; words of several beats in four slices; a lane.
MACHINES = {
    machine.name: machine
    for machine in (
        MACHINE,
        variant("whole", 8, 8, 2, 16),
        variant("pair", 4, 4, 2, 8, groups=4, post_processors=2),
        variant("sliced", 16, 4, 1, 8),
    )
}
NAMES = [MACHINE.name, *(pytest.param(name, marks=pytest.mark.slow) for name in MACHINES if name != MACHINE.name)]


def prepared(ends: Any, seed: int) -> Jobs:
    """A step table of random values, and what makes instructions for it."""
    jobs = Jobs(ends.machine, ends.bench.memory, seed)
    ends.load(np.zeros(ends.oracle.lanes.shape, np.int32), jobs.table)
    return jobs


def check(ends: Any, instructions: list[Instruction]) -> None:
    ends.share_memory()
    execute(ends.oracle, instructions)
    ends.give(*instructions)
    done = ends.dones.wait(len(instructions), LIMIT)
    different = np.flatnonzero(ends.bench.memory != ends.oracle.image)
    assert done, f"{ends.dones.count} of {len(instructions)} completed; next {instructions[ends.dones.count]}"
    ends.bench.check()
    assert not len(different), (hex(different[0]), len(different))
    ends.bench.step(50)
    assert ends.bench.get("quiet") == 1
    assert ends.bench.is_quiet
    assert ends.dones.count == len(instructions)
    assert ends.faults.count == 0
    ends.bench.close()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_random_instructions(post_bench: Callable[..., Any], name: str, seed: int) -> None:
    hostility = Hostility(seed, 200, 9, True) if seed else Hostility()
    ends = post_bench(MACHINES[name], SLOW if seed == 1 else DramTiming(), hostility)
    jobs = prepared(ends, seed)
    kinds = [jobs.elementwise] * 3 + [jobs.channel_sums, jobs.normalise]
    check(ends, [*(jobs.random.choice(kinds)() for _ in range(30)), jobs.statistics()])


def streamed(jobs: Jobs, operands: int, **fixed: int) -> Instruction:
    """An ELEMENTWISE of one pixel after another: 16 channels of 8 x 8."""
    channels, rows, columns = 16, 8, 8
    words = channels * rows * columns
    fields = {
        "operands": operands,
        "factor": 1,
        "channels": channels,
        "rows": rows,
        "columns": columns,
        "out_bits": 8,
        "images": jobs.machine.lanes,
        "measured": 1,
        **dict.fromkeys(("kernel_rows", "kernel_columns", "stride_rows", "stride_columns"), 1),
        **{"first_rows": rows, "first_columns": columns},
    }
    fields |= fixed
    for name in ("first_", "second_", "mask_", ""):
        fields |= {f"{name}row_words": columns, f"{name}channel_words": rows * columns}
    lanes = jobs.machine.lanes
    for name in ("first", "second", "mask", "target"):
        fields[name] = jobs.allocate(2 * words * lanes, 256)
    return Instruction("ELEMENTWISE", **fields, record=jobs.records(channels), element=jobs.allocate(4 * channels, 4))


@pytest.mark.parametrize(
    ("name", "what", "words_a_cycle"),
    [
        ("tiny-graph", {"operands": 1}, 0.5),
        ("tiny-graph", {"operands": 2, "rectify": 1}, 0.5),
        ("tiny-graph", {"operands": 2, "per_channel": 1, "second_wide": 1, "masked": 1}, 0.5),
        ("whole", {"operands": 2}, 1.0),
        ("whole", {"operands": 1, "per_channel": 1, "first_wide": 1}, 1.0),
        ("whole", {"operands": 1, "out_bits": 16}, 0.5),
    ],
)
def test_the_rate(post_bench: Callable[..., Any], name: str, what: dict[str, int], words_a_cycle: float) -> None:
    """Words a cycle from one ELEMENTWISE to the next, on a memory with its latencies."""
    ends = post_bench(MACHINES[name], DramTiming(read_latency=30, write_latency=20))
    jobs, words = prepared(ends, 2), 16 * 64
    ends.give(*(streamed(jobs, **what) for _ in range(3)))
    assert ends.dones.wait(3, LIMIT)
    ends.bench.check()
    cycles = ends.dones.pop()[1].astype(int)
    between = int(cycles[-1] - cycles[0]) / 2
    ideal = words / words_a_cycle
    assert ideal <= between <= 1.02 * ideal + 150
