"""The memory behind the AXI ports: its timing, its freedom, and what it refuses."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fixgrad.gateware.simulation import Bench, BenchError, DramTiming, Hostility, Netlist

INCR, SIZE = 1, 3
KB = 1024


class Master:
    """Drives the port by hand."""

    def __init__(self, design: Netlist, timing: DramTiming | None = None, hostility: Hostility | None = None) -> None:
        self.bench = Bench(design, quick=True)
        self.bench.allocate(64 * KB)[:] = np.arange(64 * KB) % 251
        self.bench.attach_memory("m_axi", timing=timing or DramTiming(), hostility=hostility or Hostility())
        self.ends: dict[str, Any] = {name: self.bench.source(f"{name}_in") for name in ("aw", "w", "ar")}
        self.ends |= {name: self.bench.sink(f"{name}_out") for name in ("b", "r")}
        self.bench.reset()

    def address(self, channel: str, address: int, beats: int, ident: int = 0, size: int = SIZE, burst: int = INCR) -> None:
        values = {"id": ident, "addr": address, "len": beats - 1, "size": size, "burst": burst}
        record = np.zeros(1, self.ends[channel].dtype)
        for name, value in values.items():
            record[name] = value
        self.ends[channel].push(record)

    def data(self, beats: int, strobe: int = 0xFF, last: int | None = None) -> None:
        for beat in range(beats):
            self.ends["w"].push([(beat + 1, strobe, beat == (beats - 1 if last is None else last))])

    def times(self, channel: str, count: int) -> list[int]:
        assert self.ends[channel].wait(count, 20_000)
        return [int(cycle) for cycle in self.ends[channel].pop()[1]]


def test_an_ideal_memory_answers_in_the_next_cycle(wires: Netlist) -> None:
    master = Master(wires)
    master.address("ar", 64, 4)
    assert master.times("r", 4) == [1, 2, 3, 4]
    assert master.bench.counts(0).read_beats == 4


@pytest.mark.parametrize("latency", [1, 10, 73])
def test_latency_counts_from_acceptance(wires: Netlist, latency: int) -> None:
    master = Master(wires, DramTiming(read_latency=latency, write_latency=2 * latency))
    master.address("ar", 64, 2)
    assert master.times("r", 2)[0] == latency
    now = master.bench.cycle
    master.address("aw", 0, 3)
    master.data(3)
    # The address and the first beat go in cycle `now`, the last beat two later; it is stored in the cycle after.
    assert master.times("b", 1) == [now + 3 + 2 * latency]


@pytest.mark.parametrize(("bytes_per_kilocycle", "cycles_a_beat"), [(8000, 1), (4000, 2), (2000, 4), (6000, 4 / 3)])
def test_bandwidth_holds_for_reads_and_writes_together(wires: Netlist, bytes_per_kilocycle: int, cycles_a_beat: float) -> None:
    master = Master(wires, DramTiming(bytes_per_kilocycle=bytes_per_kilocycle))
    for burst in range(8):
        master.address("ar", 128 * burst, 16)
    read = master.times("r", 128)
    assert abs((read[-1] - read[0]) - 127 * cycles_a_beat) <= 2
    began = master.bench.cycle
    for burst in range(8):
        master.address("ar", 128 * burst, 16)
        master.address("aw", 32 * KB + 128 * burst, 16)
        master.data(16)
    last = max(master.times("r", 128)[-1], master.times("b", 8)[-1])
    assert 256 * cycles_a_beat - 4 <= last - began <= 256 * cycles_a_beat * 1.05 + 10  # it may save up two beats


def test_turning_the_bus_and_refreshing_take_time(wires: Netlist) -> None:
    def cycles(timing: DramTiming) -> int:
        master = Master(wires, timing)
        for burst in range(8):
            master.address("ar", 128 * burst, 16)
            master.address("aw", 32 * KB + 128 * burst, 16)
            master.data(16)
        return max(master.times("r", 128)[-1], master.times("b", 8)[-1])

    plain = cycles(DramTiming(bytes_per_kilocycle=8000))
    assert cycles(DramTiming(bytes_per_kilocycle=8000, turnaround=10)) >= plain + 10
    refreshed = cycles(DramTiming(bytes_per_kilocycle=8000, refresh_interval=50, refresh_cycles=10))
    assert 1.15 * plain <= refreshed <= 1.35 * plain + 20


def test_the_same_seed_gives_the_same_rests_and_another_one_others(wires: Netlist) -> None:
    def run(seed: int) -> list[int]:
        master = Master(wires, hostility=Hostility(seed, 300, 10, True))
        for burst in range(12):
            master.address("ar", 128 * burst, 16, ident=burst % 4)
        return master.times("r", 192)

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_bursts_of_one_identifier_stay_in_order_and_others_mix(wires: Netlist) -> None:
    master = Master(wires, hostility=Hostility(1, 0, 0, True))
    for burst in range(16):
        master.address("ar", 1024 * (burst % 4) + 128 * (burst // 4), 4, ident=burst % 4)
    assert master.ends["r"].wait(64, 20_000)
    records, _ = master.ends["r"].pop()
    idents = [int(i) for i in records["id"]]
    assert sum(a != b for a, b in pairwise(idents)) > 20  # beats of different bursts interleave
    for ident in range(4):
        data = [int(x) for x in records["data"][records["id"] == ident]]
        image = master.bench.memory.view("<u8")
        assert data == [int(image[(1024 * ident + 128 * burst + 8 * beat) // 8]) for burst in range(4) for beat in range(4)]


def test_strobes_choose_bytes(wires: Netlist) -> None:
    master = Master(wires)
    before = master.bench.memory.copy()
    master.address("aw", 0x100, 1)
    master.data(1, strobe=0b1001_0001)
    master.times("b", 1)
    before[[0x100, 0x104, 0x107]] = [1, 0, 0]
    assert (master.bench.memory == before).all()


def test_faults_answer_with_their_response(wires: Netlist) -> None:
    master = Master(wires)
    master.bench.fault(0x210, 0x211, 2)
    master.address("ar", 0x200, 4)
    master.address("ar", 64 * KB - 8, 2)
    assert master.ends["r"].wait(6, 1000)
    assert [int(r) for r in master.ends["r"].pop()[0]["resp"]] == [0, 0, 2, 0, 0, 3]
    before = master.bench.memory.copy()
    master.address("aw", 0x208, 3)
    master.data(3)
    assert master.ends["b"].wait(1, 1000)
    assert int(master.ends["b"].pop()[0]["resp"][0]) == 2
    assert (master.bench.memory[0x210:0x218] == before[0x210:0x218]).all()
    assert master.bench.memory[0x208] == 1


def test_a_frozen_memory_answers_nothing(wires: Netlist) -> None:
    master = Master(wires)
    master.bench.freeze(0)
    master.address("ar", 0, 1)
    assert not master.ends["r"].wait(1, 500)
    assert not master.bench.is_quiet or master.ends["ar"].waiting == 1
    master.bench.freeze(0, False)
    assert master.ends["r"].wait(1, 10)


@pytest.mark.parametrize(
    ("address", "beats", "changes", "message"),
    [
        (0xFF8, 2, {}, "ar crosses 4 KB"),
        (0xF80, 17, {}, "ar crosses 4 KB"),
        (0, 1, {"size": 2}, "arsize is not the port's width"),
        (0, 1, {"burst": 2}, "arburst is not INCR"),
    ],
)
def test_illegal_bursts_are_noticed(wires: Netlist, address: int, beats: int, changes: dict[str, int], message: str) -> None:
    master = Master(wires)
    master.address("ar", 0xF80, 16)
    master.times("r", 16)
    master.bench.check()
    master.address("ar", address, beats, **changes)
    master.bench.step(5)
    with pytest.raises(BenchError, match=message):
        master.bench.check()


@pytest.mark.parametrize("last", [0, 1, 3])
def test_a_last_beat_in_the_wrong_place_is_noticed(wires: Netlist, last: int) -> None:
    master = Master(wires)
    master.address("aw", 0, 3)
    master.data(3, last=last)
    master.times("b", 1)
    with pytest.raises(BenchError, match="wlast is not at the burst's last beat"):
        master.bench.check()


def test_a_strobe_below_the_first_byte_is_noticed(wires: Netlist) -> None:
    master = Master(wires)
    master.address("aw", 0x103, 1)
    master.data(1, strobe=0xFC)
    master.times("b", 1)
    with pytest.raises(BenchError, match="strobe below the burst's first byte"):
        master.bench.check()


@pytest.mark.parametrize(("second", "message"), [((0, 0x20), "arvalid withdrawn"), ((1, 0x28), "ar changed")])
def test_what_waits_may_not_change(wires: Netlist, second: tuple[int, int], message: str) -> None:
    bench = Bench(wires, quick=True)
    bench.allocate(KB)
    index = bench.attach_memory("m_axi")
    bench.reset()
    bench.freeze(index)
    for valid, address in ((1, 0x20), second):
        for port, value in (("ar_in_valid", valid), ("ar_in_addr", address), ("ar_in_size", SIZE), ("ar_in_burst", INCR)):
            bench.set(port, value)
        bench.step()
    with pytest.raises(BenchError, match=message):
        bench.check()
