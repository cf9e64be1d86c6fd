"""The DMA engines on a memory that is slow, hostile or broken."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixgrad.errors import UsageError
from fixgrad.gateware.axi import MemoryPorts
from fixgrad.gateware.simulation import BenchError, DramTiming, Hostility

MakeBench = Callable[..., Any]

#: Writers write to the upper half of the memory, each engine in a part of its own; readers read the lower half.
HALF, PART = 1 << 16, 1 << 14
LIMIT = 200_000
OUTSIDE, READ, WRITE = 0, 1, 2
SLVERR, DECERR = 2, 3

hostilities = st.builds(
    Hostility,
    seed=st.integers(0, 1 << 30),
    per_mille=st.sampled_from([0, 50, 300, 700]),
    longest=st.sampled_from([1, 5, 40]),
    reorder=st.booleans(),
)
timings = st.sampled_from([DramTiming(), DramTiming(30, 12, 9000, 5), DramTiming(7, 0, 3000, 0, 200, 50)])
#: (start, bytes, element size before it is held to the engine's), with starts close to 4 KB boundaries.
transfers = st.lists(
    st.tuples(
        st.one_of(st.integers(0, PART - 5000), st.builds(lambda page, off: 4096 * page - off, st.integers(1, 2), st.integers(0, 70))),
        st.one_of(st.integers(1, 70), st.integers(1, 4800)),
        st.integers(1, 16),
    ),
    min_size=1,
    max_size=5,
)
hostile = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def push_all(ends: Any, work: list[list[tuple[int, int, int]]], kind: str) -> tuple[list[bytes], list[int], Any]:
    """Gives each engine its transfers. Returns bytes and elements that each reader must give, and the memory wanted."""
    memory = ends.bench.memory.copy()
    rng = np.random.default_rng(len(work[0]))
    streams, counts = [], []
    for engine, (jobs, most) in enumerate(zip(work, ends.chip.element_bytes, strict=True)):
        stream, count = b"", 0
        for start, length, wish in jobs:
            size = min(wish, most)
            if kind == "read":
                ends.reads[engine].push([(start, length, size)])
                stream += memory[start : start + length].tobytes()
                count += -(-length // size)
            else:
                address = HALF + engine * PART + start
                data = rng.integers(0, 256, length, np.uint8)
                ends.writes[engine].push([(address, length, size)])
                ends.push_elements(engine, data, size, filler=0xA5)
                memory[address : address + length] = data
        streams.append(stream)
        counts.append(count)
    return streams, counts, memory


@pytest.mark.parametrize("chip", ["one", "two"])
@hostile
@given(reads=st.tuples(transfers, transfers), writes=st.tuples(transfers, transfers), hostility=hostilities, timing=timings)
def test_every_byte_arrives_whatever_the_memory_does(
    dma: MakeBench, chip: str, reads: Any, writes: Any, hostility: Hostility, timing: DramTiming
) -> None:
    ends = dma(chip, timing, hostility)
    bench = ends.bench
    for engine, jobs in enumerate(writes):
        for start, length, _ in jobs:
            bench.allow_writes(HALF + engine * PART + start, HALF + engine * PART + start + length)
    streams, counts, _ = push_all(ends, list(reads), "read")
    _, _, wanted = push_all(ends, list(writes), "write")
    for engine in range(2):
        assert ends.outs[engine].wait(counts[engine], LIMIT)
        assert ends.dones[engine].wait(len(writes[engine]), LIMIT)
        elements, last = ends.pop_elements(engine)
        assert b"".join(elements) == streams[engine]
        assert sum(last) == len(reads[engine])
        assert last[-1]
    bench.step(100)
    bench.check()
    assert (bench.memory == wanted).all()
    assert bench.get("quiet") == 1
    assert bench.is_quiet
    assert not any(sink.count for sink in (*ends.outs, *ends.read_faults, *ends.write_faults))
    assert [sink.count for sink in ends.dones] == [len(jobs) for jobs in writes]
    bench.close()


def test_elements_have_their_size_but_the_last(dma: MakeBench) -> None:
    ends = dma("one")
    ends.reads[1].push([(5, 8, 3), (4094, 4, 2)])
    assert ends.outs[1].wait(5, LIMIT)
    elements, last = ends.pop_elements(1)
    memory = ends.bench.memory.tobytes()
    assert elements == [memory[5:8], memory[8:11], memory[11:13], memory[4094:4096], memory[4096:4098]]
    assert last == [False, False, True, False, True]


def test_several_bursts_are_outstanding(dma: MakeBench) -> None:
    ends = dma("one", DramTiming(read_latency=200, write_latency=200))
    ends.reads[0].push([(0, 4096, 8)])
    ends.writes[0].push([(HALF, 4096, 8)])
    ends.push_elements(0, np.zeros(4096, np.uint8), 8)
    assert ends.dones[0].wait(1, LIMIT)
    counts = ends.bench.counts(0)
    assert counts.most_reads == 4
    assert counts.most_writes == 8


def test_a_long_transfer_takes_a_cycle_a_beat(dma: MakeBench) -> None:
    """On an ideal memory, apart from the first latency. A writer pauses where its data move on to another channel."""
    for chip, engine, size, slack in (("one", 0, 8, 1.06), ("two", 1, 16, 1.12)):
        ends = dma(chip)
        count = 1024
        ends.reads[engine].push([(64, count * size, size)])
        ends.writes[engine].push([(HALF, count * size, size)])
        ends.push_elements(engine, np.zeros(count * size, np.uint8), size)
        start = ends.bench.cycle
        assert ends.outs[engine].wait(count, LIMIT)
        _, cycles = ends.outs[engine].pop()
        assert int(cycles[-1] - cycles[0]) + 1 <= 1.02 * count
        assert ends.dones[engine].wait(1, LIMIT)
        assert ends.bench.cycle - start <= slack * count + 60


def test_short_transfers_follow_without_a_gap(dma: MakeBench) -> None:
    """Rows of 5 elements of a whole beat from 40 places."""
    ends = dma("two")
    ends.reads[1].push([(1024 * row, 5 * 16, 16) for row in range(40)])
    assert ends.outs[1].wait(200, LIMIT)
    _, cycles = ends.outs[1].pop()
    assert int(cycles[-1] - cycles[0]) + 1 <= 1.1 * 200


@pytest.mark.parametrize("response", [SLVERR, DECERR])
@pytest.mark.parametrize("chip", ["one", "two"])
def test_a_failing_burst_is_reported_with_its_address(dma: MakeBench, chip: str, response: int) -> None:
    ends = dma(chip, hostility=Hostility(3, 200, 5, True))
    bench = ends.bench
    bench.fault(5000, 5001, response)
    bench.fault(HALF + 3000, HALF + 3001, response)
    before = bench.memory.copy()
    ends.reads[0].push([(4500, 2000, 2)])
    ends.writes[0].push([(HALF + 2500, 2000, 2)])
    ends.push_elements(0, np.zeros(2000, np.uint8), 2)
    assert ends.read_faults[0].wait(1, LIMIT)
    assert ends.write_faults[0].wait(1, LIMIT)
    block = ends.chip.memory.burst_bytes
    for sink, kind, bad, first in (
        (ends.read_faults[0], READ, 5000, 4500),
        (ends.write_faults[0], WRITE, HALF + 3000, HALF + 2500),
    ):
        record = sink.pop()[0][0]
        assert int(record["kind"]) == kind
        assert int(record["address"]) == max(bad // block * block, first)
    # The engines go on: what follows is complete, and both end.
    assert ends.outs[0].wait(1000, LIMIT)
    assert ends.dones[0].wait(1, LIMIT)
    assert bench.memory[HALF + 3000] == before[HALF + 3000]
    bench.check()


@pytest.mark.parametrize(
    ("address", "length"),
    [(0x0FFF, 1), (0x1FFF, 2), (0x2000, 1), (0x3000, 16), (0, 64), ((1 << 40) - 1, 1), ((1 << 40) - 64, 0xFFFFFF)],
)
def test_nothing_outside_of_the_window_is_touched(dma: MakeBench, address: int, length: int) -> None:
    ends = dma("one")
    bench = ends.bench
    bench.set("base", 0x1000)
    bench.set("limit", 0x2000)
    bench.allow_writes(0x1000, 0x2000)
    ends.reads[0].push([(address, length, 1)])
    ends.writes[0].push([(address, length, 1)])
    ends.push_elements(0, np.zeros(32, np.uint8), 1)
    for sink in (ends.read_faults[0], ends.write_faults[0]):
        assert sink.wait(1, LIMIT)
        record = sink.pop()[0][0]
        assert (int(record["kind"]), int(record["address"])) == (OUTSIDE, address)
    bench.step(200)
    assert bench.counts(0).read_bursts == bench.counts(0).write_bursts == 0
    bench.check()


def test_the_whole_window_may_be_used(dma: MakeBench) -> None:
    ends = dma("one")
    bench = ends.bench
    bench.set("base", 0x1003)
    bench.set("limit", 0x1FFD)
    bench.allow_writes(0x1003, 0x1FFD)
    before = bench.memory.copy()
    length = 0x1FFD - 0x1003
    ends.writes[1].push([(0x1003, length, 3)])
    ends.push_elements(1, np.full(length, 0x11, np.uint8), 3, filler=0xEE)
    assert ends.dones[1].wait(1, LIMIT)
    before[0x1003:0x1FFD] = 0x11
    assert (bench.memory == before).all()
    bench.check()


def test_a_transfer_of_no_bytes_is_dropped(dma: MakeBench) -> None:
    ends = dma("one")
    ends.reads[0].push([(100, 0, 8), (1 << 39, 0, 8), (200, 8, 8)])
    ends.writes[0].push([(HALF, 0, 8), (HALF, 8, 8)])
    ends.push_elements(0, np.arange(8, dtype=np.uint8), 8)
    assert ends.outs[0].wait(1, LIMIT)
    assert ends.dones[0].wait(1, LIMIT)
    assert ends.pop_elements(0)[0] == [ends.bench.memory[200:208].tobytes()]
    ends.bench.step(300)
    assert ends.dones[0].count == 1
    assert not ends.read_faults[0].count


@pytest.mark.parametrize("seed", range(4))
def test_stop_ends_after_the_bursts_that_are_out(dma: MakeBench, seed: int) -> None:
    """Nobody takes the data any more, and yet every burst ends: so the machine can stop at any moment."""
    ends = dma("two", DramTiming(read_latency=20, write_latency=20), Hostility(seed, 200, 10, True))
    bench = ends.bench
    for engine in range(2):
        ends.reads[engine].push([(0, 8000, 3)])
        ends.writes[engine].push([(HALF + engine * PART, 8000, 3)])
        ends.push_elements(engine, np.zeros(1500 * (seed + 1), np.uint8), 3)
    bench.step(400 + 100 * seed)
    bench.set("stop", 1)
    assert bench.run_until("quiet", 1, LIMIT)
    bench.step(2000)
    before = bench.counts(0)
    assert bench.is_quiet
    bench.step(2000)
    assert bench.counts(0) == before
    assert bench.get("quiet") == 1
    bench.check()


def test_a_memory_that_never_answers_is_not_quiet(dma: MakeBench) -> None:
    ends = dma("one")
    ends.bench.freeze(0)
    ends.reads[0].push([(0, 100, 8)])
    ends.bench.step(50)
    ends.bench.set("stop", 1)
    assert not ends.bench.run_until("quiet", 1, 1000)
    ends.bench.freeze(0, False)
    assert ends.bench.run_until("quiet", 1, 1000)


def test_the_bench_notices_a_write_where_none_is_allowed(dma: MakeBench) -> None:
    """The checker itself: a write outside of the ranges that the bench allows is reported."""
    ends = dma("one")
    ends.bench.allow_writes(HALF, HALF + 16)
    ends.writes[0].push([(HALF, 17, 8)])
    ends.push_elements(0, np.zeros(17, np.uint8), 8)
    assert ends.dones[0].wait(1, LIMIT)
    with pytest.raises(BenchError, match=f"m_axi_0: writes byte {HALF + 16} outside of its memory"):
        ends.bench.check()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"port_bytes": 12}, "port_bytes is 12: choose a power of two"),
        ({"port_bytes": 8, "channels": 3}, "channels is 3: choose a power of two"),
        ({"port_bytes": 8, "burst_beats": 512}, "burst_beats is 512: AXI4 allows 256"),
        ({"port_bytes": 64, "interleave": 32}, "interleave is 32: choose at least port_bytes, 64"),
    ],
)
def test_impossible_ports_are_named(parameters: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MemoryPorts(**parameters)
