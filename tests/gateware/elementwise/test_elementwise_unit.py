"""The elementwise unit, in the POST unit, against the functional simulator: byte for byte, whatever the memory does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fixgrad.gateware.axi.burst import FAULT
from fixgrad.gateware.simulation import DramTiming, Hostility
from fixgrad.machine import Instruction, Machine, preset
from fixgrad.machine.elementwise_instructions import NORMALISE_NG
from fixgrad.machine.parameters import Memory

from .jobs import Jobs, execute

SLOW = DramTiming(30, 12, 9000, 5)
LIMIT = 1_000_000
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


@pytest.mark.parametrize("transposed", [0, 1])
def test_more_taps_than_wait_for_a_run_of_words(post_bench: Callable[..., Any], transposed: int) -> None:
    """16 words of mask and second operand belong to more taps than there is room for between walk and lanes."""
    ends = post_bench(MACHINE, SLOW, Hostility(9, 300, 20, True))
    jobs = prepared(ends, 8)
    window = {"kernel_rows": 7, "kernel_columns": 9, "stride_rows": 1, "stride_columns": 1, "pad_rows": 3, "pad_columns": 4}
    sizes = {"rows": 8, "columns": 20, "first_rows": 8, "first_columns": 20, "channels": 2, "transposed": transposed}
    check(ends, [jobs.elementwise(operands=2, masked=1, combine=combine, **window, **sizes) for combine in (0, 1)])


def streamed(jobs: Jobs, operands: int = 1, **fixed: int) -> Instruction:
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
    for name in ("first_", "second_", "mask_", ""):
        fields |= {f"{name}row_words": columns, f"{name}channel_words": rows * columns}
    lanes = jobs.machine.lanes
    fields |= fixed
    for name in ("first", "second", "mask", "target"):
        fields[name] = jobs.allocate(2 * words * lanes, 256)
    return Instruction("ELEMENTWISE", **fields, record=jobs.records(channels), element=jobs.allocate(4 * channels, 4))


@pytest.mark.parametrize(
    ("name", "what", "words_a_cycle"),
    [
        ("tiny-graph", {"operands": 1}, 0.5),
        ("tiny-graph", {"operands": 2, "rectify": 1}, 0.5),
        ("tiny-graph", {"operands": 2, "per_channel": 1, "second_wide": 1, "masked": 1}, 0.5),
        pytest.param("whole", {"operands": 2}, 1.0, marks=pytest.mark.slow),
        pytest.param("whole", {"operands": 1, "per_channel": 1, "first_wide": 1}, 1.0, marks=pytest.mark.slow),
        pytest.param("whole", {"operands": 1, "out_bits": 16}, 0.5, marks=pytest.mark.slow),
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


def test_taps_that_lie_nowhere_take_no_cycle(post_bench: Callable[..., Any]) -> None:
    """A pool over a whole map of 8 x 8, backward: each pixel has one tap of 64, whose word is read for each."""
    ends = post_bench(MACHINE, DramTiming(read_latency=30, write_latency=20))
    window = dict.fromkeys(("kernel_rows", "kernel_columns", "stride_rows", "stride_columns"), 8)
    pool = streamed(prepared(ends, 2), transposed=1, first_rows=1, first_columns=1, **window)
    ends.give(pool, pool)
    assert ends.dones.wait(2, LIMIT)
    cycles = ends.dones.pop()[1].astype(int)
    assert cycles[1] - cycles[0] < 5 * 16 * 64


def test_the_rate_of_sums(post_bench: Callable[..., Any]) -> None:
    """A slice a cycle, of channels as short as a word, too; squares do not read their map twice."""
    ends = post_bench(MACHINE, DramTiming(read_latency=30, write_latency=20))
    jobs, channels, pixels = prepared(ends, 4), 16, 64
    fields = {"products": 1, "channels": channels, "channel_words": pixels, "pixels": pixels, "micro_batches": 1, "first_wide": 1}
    first, target = jobs.codes(channels * pixels, 1), jobs.records(channels)
    one = Instruction("CHANNEL_SUMS", first=first, second=first, second_wide=1, target=target, **fields)
    ends.give(one, one)
    assert ends.dones.wait(2, LIMIT)
    cycles = ends.dones.pop()[1].astype(int)
    words = channels * pixels
    assert 2 * words <= cycles[1] - cycles[0] <= 2 * words + 150


OUTSIDE, READ, WRITE = 0, 1, 2


@pytest.mark.parametrize(
    ("what", "field", "kind", "address"),
    [
        ({}, "target", OUTSIDE, 1 << 30),
        ({}, "target", OUTSIDE, 4098),
        ({}, "target", WRITE, None),
        ({}, "first", OUTSIDE, 1 << 30),
        ({}, "first", OUTSIDE, 4099),
        ({}, "first", READ, None),
        ({"operands": 2}, "second", READ, None),
        ({"masked": 1}, "mask", READ, None),
        ({"combine": 2, "argmax": 8192}, "argmax", READ, None),
        ({"per_channel": 1}, "record", OUTSIDE, 1 << 30),
        ({"sums": 1}, "first", READ, None),
        ({"sums": 1}, "target", WRITE, None),
        ({"normalise": 1}, "gamma", OUTSIDE, 1 << 30),
        ({"normalise": 1, "mode": NORMALISE_NG}, "gamma_gradient", WRITE, None),
    ],
)
def test_a_failing_access_is_reported_with_its_instruction(
    post_bench: Callable[..., Any], what: dict[str, int], field: str, kind: int, address: int | None
) -> None:
    """Of two instructions the second one fails; then the unit comes to rest."""
    ends = post_bench(MACHINE, SLOW)
    jobs = prepared(ends, 3)
    if "normalise" in what:
        bad = jobs.normalise(mode=what.get("mode", 0))
    else:
        bad = jobs.channel_sums() if "sums" in what else streamed(jobs, **what)
    if address is not None:
        bad = bad.replace(**{field: address})
    else:
        ends.bench.fault(getattr(bad, field), getattr(bad, field) + 1, 2)
    ends.give(streamed(jobs), bad)
    assert ends.faults.wait(1, LIMIT)
    record = ends.faults.pop()[0][0]
    address_place = FAULT["address"].offset
    found = int(record["fault"])
    assert (found & ((1 << address_place) - 1), int(record["index"])) == (kind, 1)
    # Of a record the fields that are read begin behind the first two.
    assert found >> address_place in (getattr(bad, field), getattr(bad, field) + 16)
    ends.bench.set("stop", 1)
    assert ends.bench.run_until("quiet", 1, LIMIT)
    ends.bench.step(200)
    assert ends.bench.is_quiet
    ends.bench.close()


def test_the_unit_follows_and_precedes_other_instructions_of_post(post_bench: Callable[..., Any]) -> None:
    """Between STATISTICS, in and out of turn: each begins when those before it are in memory, and finds what they wrote."""
    ends = post_bench(MACHINE, SLOW, Hostility(5, 200, 9, True))
    jobs = prepared(ends, 6)
    made, chain = streamed(jobs, rectify=1, statistics=2), []
    for number in range(4):
        chain.append(made)
        if number % 2:
            chain.append(jobs.statistics())
        made = made.replace(first=made.target, target=jobs.allocate(16 * 64 * ends.machine.lanes, 64))
    check(ends, [*chain, jobs.statistics()])
