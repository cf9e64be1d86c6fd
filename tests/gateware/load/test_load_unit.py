"""LOAD on a memory that is slow, hostile or broken, against the functional simulator."""

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fixgrad.gateware.control.step_table import USED_BYTES
from fixgrad.gateware.simulation import DramTiming, Hostility
from fixgrad.machine import Machine
from fixgrad.machine.encoding import Instruction
from fixgrad.machine.instructions import STEP_ENTRY_BYTES

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
    used = slice(USED_BYTES)
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
@pytest.mark.parametrize("name", ["tiny", "wide", pytest.param("narrow", marks=SLOW), pytest.param("formal", marks=SLOW)])
def test_random_programs_leave_what_the_functional_simulator_says(
    load: MakeBench, oracle: ModuleType, name: str, seed: int
) -> None:
    rng = random.Random(seed)
    ends = load(name, TIMINGS[seed % 3], HOSTILITIES[seed // 2])
    compare(oracle, ends, oracle.program(ends.machine, rng, 60, len(ends.bench.memory)))
