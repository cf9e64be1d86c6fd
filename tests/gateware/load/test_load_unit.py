"""LOAD on a memory that is slow, hostile or broken, against the functional simulator."""

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fixgrad.gateware.control.step_table import used_bytes
from fixgrad.gateware.load.sizes import LoadSizes
from fixgrad.gateware.simulation import DramTiming, Hostility
from fixgrad.machine import Machine
from fixgrad.machine.encoding import Instruction
from fixgrad.machine.instructions import STEP_ENTRY_BYTES
from fixgrad.machine.parameters import TAPS_PER_WORD, Memory
from fixgrad.machine.presets import TINY

MakeBench = Callable[..., Any]
LIMIT = 200_000
OUTSIDE, READ = 0, 1
TIMINGS = [DramTiming(), DramTiming(100, 12, 9000, 5), DramTiming(7, 0, 3000, 0, 200, 50)]
HOSTILITIES = [Hostility(), Hostility(5, 300, 5, True), Hostility(6, 700, 40, True)]
SLOW = pytest.mark.slow


def words_of(records: Any, lanes: int) -> Any:
    """The lanes of written words, [words, lanes] int8."""
    return np.array([np.frombuffer(record["data"].tobytes()[:lanes], np.int8) for record in records]).reshape(-1, lanes)


def replay(records: Any, memory: Any) -> None:
    """Writes into a memory [words, lanes]."""
    for record, word in zip(records, words_of(records, memory.shape[1]), strict=True):
        memory[int(record["address"])] = word


def run(ends: Any, program: list[Instruction]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs a program to its end; returns records and cycles of each sink."""
    ends.push(program)
    assert ends.sinks["done"].wait(len(program), LIMIT)
    ends.bench.step(50)
    ends.bench.check()
    assert ends.bench.get("quiet") == 1
    assert ends.sinks["fault"].count == 0
    popped = {name: sink.pop() for name, sink in ends.sinks.items()}
    return {name: records for name, (records, _) in popped.items()}, {name: cycles for name, (_, cycles) in popped.items()}


def check_memories(machine: Machine, records: dict[str, Any], wanted: Any) -> None:
    inputs, lanes = np.zeros_like(wanted.chip.inputs), np.zeros(wanted.chip.lanes.shape, np.int8)
    params = np.zeros_like(wanted.chip.params)
    for pe in range(machine.pes_per_group):
        replay(records[f"input_{pe}"], inputs[pe])
        for group in range(machine.groups):
            replay(records[f"error_{group}_{pe}"], lanes[group, pe])
    for record in records["table"]:
        params[int(record["index"])] = record["entry"][:STEP_ENTRY_BYTES]
    assert (inputs == wanted.chip.inputs).all()
    assert (lanes == wanted.chip.lanes).all()
    used = slice(used_bytes(machine))
    assert (params[:, used] == wanted.chip.params[:, used]).all()


def check_queues(machine: Machine, records: dict[str, Any], wanted: Any) -> None:
    for group in range(machine.groups):
        for pe in range(machine.pes_per_group):
            mine = [record for record in records[f"kernel_{group}"] if int(record["pes"]) >> pe & 1]
            assert len(mine) == len(wanted.kernels[group][pe])
            for record, (out, channel, weights, last, end) in zip(mine, wanted.kernels[group][pe], strict=True):
                assert (bool(record["last"]), bool(record["end"])) == (last, end)
                if out is not None:
                    assert (int(record["out"]), int(record["in_"])) == (out, channel)
                if weights is not None:
                    assert record["weights"].tobytes()[:9] == weights


def check_completions(cycles: dict[str, Any], wanted: Any) -> None:
    """When an instruction completes, all that it writes has been written, and nothing of the next one."""
    for done, counts in zip(cycles["done"], wanted.counts, strict=True):
        for name, count in counts.items():
            assert int((cycles[name] <= done).sum()) == count


def compare(oracle: ModuleType, ends: Any, program: list[Instruction]) -> None:
    wanted = oracle.expected(ends.machine, ends.bench.memory.copy(), program)
    records, cycles = run(ends, program)
    check_memories(ends.machine, records, wanted)
    check_queues(ends.machine, records, wanted)
    check_completions(cycles, wanted)
    ends.bench.close()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["tiny", "wide", *(pytest.param(name, marks=SLOW) for name in ("narrow", "formal", "odd"))])
def test_random_programs_leave_what_the_functional_simulator_says(
    load: MakeBench, oracle: ModuleType, name: str, seed: int
) -> None:
    rng = random.Random(seed)
    ends = load(name, TIMINGS[seed % 3], HOSTILITIES[seed // 2])
    compare(oracle, ends, oracle.program(ends.machine, rng, 60, len(ends.bench.memory)))


@pytest.mark.parametrize("port_bytes", [1, 4, 8, 16, 64, 128])
def test_every_machine_has_sizes_that_fit_together(port_bytes: int) -> None:
    for lanes in range(1, 65):
        memory = Memory("ddr4_2400", 1, 4096, port_bytes, 1 << 20)
        sizes = LoadSizes.of(TINY.with_changes(lanes=lanes, memory=memory))
        assert lanes % sizes.piece == sizes.piece % sizes.granule == sizes.chunk % sizes.granule == 0
        assert port_bytes % sizes.chunk == STEP_ENTRY_BYTES % sizes.chunk == sizes.beat % sizes.chunk == 0
        assert sizes.piece == lanes or lanes > sizes.chunk
        assert sizes.beat >= TAPS_PER_WORD


def rectangles(prefix: str, side: int) -> dict[str, int]:
    """A square map cut into one quadrant for each of four PEs."""
    half = side // 2
    boxes = [(top, top + half, left, left + half) for top in (0, half) for left in (0, half)]
    return {
        f"{prefix}{pe}_{edge}": value
        for pe, box in enumerate(boxes)
        for edge, value in zip(("top", "bottom", "left", "right"), box, strict=True)
    }


def inputs(side: int, channels: int, gap: int = 0) -> dict[str, Any]:
    """A LOAD_INPUT of whole maps; `gap` words between channels."""
    fields = {"channels": channels, "channel_words": side * side + gap, "row_words": side, "slot_words": side * side // 4}
    return {"name": "LOAD_INPUT", **fields, **rectangles("in", side)}


def kernels(count: int, taps: int, place: int) -> dict[str, Any]:
    """A LOAD_KERNELS with an end mark, its entries at a place of their own."""
    fields = {"pe": 7, "count": count, "taps": taps, "with_data": 1, "last": 1}
    return {"name": "LOAD_KERNELS", **fields, "index": 2 * count * place, "data": (1 << 15) + count * taps * place}


#: Sink, cycles more than words that are allowed, and instructions that follow one another.
SUSTAINED = {
    "words of whole maps": ("input", 0, [inputs(8, 8)] * 6),
    "words of small maps": ("input", 0, [inputs(2, 16)] * 12),
    "words of channels that lie apart": ("input", 0, [inputs(4, 8, gap=16)] * 6),
    "errors": (
        "error",
        0,
        [
            {
                "name": "LOAD_ERROR",
                **{"channels": 4, "total_channels": 8, "channel_words": 64, "row_words": 8, "slot_words": 16},
                **rectangles("out", 8),
            }
        ]
        * 4,
    ),
    "kernels of 3x3": ("kernel", 0, [kernels(30, 9, place) for place in range(10)]),
    "few kernels each": ("kernel", 3, [kernels(8, 9, place) for place in range(30)]),
    "kernels of 5x5": ("kernel", 0, [kernels(30, 25, place) for place in range(10)]),
}
#: Cycles from the first instruction until its first word, besides what the memory takes.
FIRST_WORD = 26


@pytest.mark.parametrize("what", SUSTAINED)
@pytest.mark.parametrize("latency", [0, 100])
def test_a_word_a_cycle_whatever_the_latency(load: MakeBench, what: str, latency: int) -> None:
    """From the first instruction's first word to the last one's last: data are asked for ahead."""
    prefix, slack, program = SUSTAINED[what]
    ends = load("wide", DramTiming(read_latency=latency))
    _, cycles = run(ends, [Instruction(fields["name"], **{k: v for k, v in fields.items() if k != "name"}) for fields in program])
    moments = np.unique(np.concatenate([times for name, times in cycles.items() if name.startswith(prefix)]))
    assert int(moments[-1] - moments[0]) + 1 <= len(moments) + slack
    assert int(moments[0]) <= latency + FIRST_WORD
    assert int(cycles["done"][-1]) == int(moments[-1])
    ends.bench.close()


def test_a_failing_read_is_reported_with_its_instruction(load: MakeBench) -> None:
    ends = load("wide", DramTiming(read_latency=20))
    ends.bench.fault(0x2000, 0x2001, 2)
    ends.push([Instruction("LOAD_KERNELS", count=20, pe=7), Instruction("LOAD_PARAMS", source=0x1F80, count=5)])
    assert ends.sinks["fault"].wait(1, LIMIT)
    record = ends.sinks["fault"].pop()[0][0]
    assert (int(record["kind"]), int(record["address"]), int(record["index"])) == (READ, 0x2000, 1)
    ends.bench.close()


@pytest.mark.parametrize(
    ("bad", "address"),
    [
        (Instruction("LOAD_PARAMS", source=0x0FC0, count=2), 0x0FC0),
        (Instruction("LOAD_KERNELS", index=0x3FFE, count=2, pe=7), 0x3FFE),
        (Instruction("LOAD_KERNELS", index=0x2000, data=0x3FF0, count=2, taps=9, with_data=1, pe=7), 0x3FF0),
        (Instruction("LOAD_INPUT", source=1 << 39, channels=1, in0_bottom=1, in0_right=1), 1 << 39),
        (Instruction("LOAD_ERROR", source=0x4000, channels=1, total_channels=1, out0_bottom=1, out0_right=1), 0x4000),
    ],
)
def test_nothing_outside_of_the_window_is_read(load: MakeBench, bad: Instruction, address: int) -> None:
    ends = load("wide")
    ends.bench.set("base", 0x1000)
    ends.bench.set("limit", 0x4000)
    ends.push([Instruction("LOAD_PARAMS", source=0x1000, count=1), bad])
    assert ends.sinks["fault"].wait(1, LIMIT)
    record = ends.sinks["fault"].pop()[0][0]
    assert (int(record["kind"]), int(record["address"]), int(record["index"])) == (OUTSIDE, address, 1)
    ends.bench.set("stop", 1)
    assert ends.bench.run_until("quiet", 1, LIMIT)
    ends.bench.step(200)
    assert ends.sinks["done"].count == 1, "the refused instruction never completes"
    ends.bench.check()
    ends.bench.close()


def test_words_beyond_a_memory_wrap_around_in_it(load: MakeBench) -> None:
    """A hostile size writes no more words than it says, all of them into its memory."""
    ends = load("wide")
    machine = ends.machine
    fields = {"channels": 3, "channel_words": 1, "slot_words": 5, "buffer": machine.input_words - 6, "row_words": 1}
    records, _ = run(ends, [Instruction("LOAD_INPUT", **fields, in0_bottom=1, in0_right=1)])
    assert [int(record["address"]) for record in records["input_0"]] == [machine.input_words - 6, machine.input_words - 1, 4]
    ends.bench.close()


@pytest.mark.parametrize(("count", "cause"), [(60, "blocked"), (16383, "memory")])
def test_a_queue_that_takes_nothing_holds_everything_up(load: MakeBench, count: int, cause: str) -> None:
    """The memory falls silent, so that the machine's timeout can end it; also where the coordinates alone fill their queue."""
    ends = load("wide", rests=Hostility(1, 1000, 1 << 30))
    ends.push([Instruction("LOAD_KERNELS", pe=7, count=count, taps=1, with_data=1)] * 2)
    ends.bench.step(1 << 14)
    assert not ends.sinks["kernel_0"].count
    assert not ends.sinks["fault"].count
    assert ends.bench.get(f"activity_{cause}") == 1
    assert ends.bench.get("quiet") == 1
    before = ends.bench.counts(0)
    ends.bench.step(1000)
    assert ends.bench.counts(0) == before
    ends.bench.close()
