"""Programs on units that only take time: nothing begins before its waits are met, and every unit keeps its order."""

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from fixgrad.gateware.simulation import DramTiming, Hostility
from fixgrad.machine import preset
from fixgrad.machine.encoding import Instruction
from fixgrad.machine.generate import random_program
from fixgrad.machine.instructions import KINDS, Unit
from fixgrad.machine.registers import CAUSES, ErrorCode, counter_name

MakeHost = Callable[..., Any]
TINY = preset("tiny")
GROUPS = range(TINY.groups)
UNITS = (Unit.LOAD, Unit.COMPUTE, Unit.POST, Unit.UPDATE)


def queues_of(instruction: Instruction) -> list[tuple[Unit, int]]:
    """The queues that an instruction joins."""
    if instruction.unit is Unit.COMPUTE:
        return [(Unit.COMPUTE, group) for group in GROUPS]
    return [(instruction.unit, instruction.group if instruction.unit is Unit.UPDATE else 0)]


def random_waits(random: Random, count: int) -> list[Instruction]:
    """A program of all kinds with random waits, each for as much as stands before it or less."""
    given = {unit: [0] * (TINY.groups if unit is Unit.UPDATE else 1) for unit in UNITS}
    program = []
    for _ in range(count):
        kind = random.choice([kind for kind in KINDS if kind.unit is not Unit.CONTROL])
        waits = {}
        for unit in UNITS:
            most = min(given[unit])
            waits[f"wait_{unit}"] = random.choice((0, 0, most, max(0, most - random.randrange(4)), random.randint(0, most)))
        group = {"group": random.randrange(TINY.groups)} if kind.name in ("LOAD_KERNELS", "UPDATE") else {}
        program.append(Instruction(kind.name, **waits, **group))
        given[kind.unit][group["group"] if kind.unit is Unit.UPDATE else 0] += 1
    return [*program, Instruction("HALT", wait_load=given[Unit.LOAD][0])]


def assert_order(host: Any, program: list[Instruction]) -> None:
    """Compares every beginning with the ends that the instruction waits for."""
    joins: dict[tuple[Unit, int], list[int]] = {(unit, group): [] for unit in UNITS for group in GROUPS}
    for index, instruction in enumerate(program[:-1]):
        for queue in queues_of(instruction):
            joins[queue].append(index)
    began, ended = {}, {}
    for queue in [key for key, indices in joins.items() if indices]:
        began[queue], ended[queue] = host.times("began", *queue), host.times("ended", *queue)
        assert list(began[queue]) == list(ended[queue]) == joins[queue]
    for index, instruction in enumerate(program[:-1]):
        for queue in queues_of(instruction):
            for unit in UNITS:
                wait = getattr(instruction, f"wait_{unit}")
                waited = GROUPS if unit in (Unit.COMPUTE, Unit.UPDATE) else (0,)
                for group in waited if wait else ():
                    last = joins[unit, group][wait - 1]
                    assert began[queue][index] > ended[unit, group][last], (index, str(instruction), unit, group)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_begins_before_its_waits_are_met(host: MakeHost, seed: int) -> None:
    random = Random(seed)
    hostility = Hostility(seed, 100, 8, True) if seed % 2 else Hostility()
    mine = host(DramTiming(random.choice((0, 40))), hostility)
    mine.bench.set("speed", random.choice((0, 3, 31, 255)))
    program = random_waits(random, 200)
    assert mine.run(program) is ErrorCode.NONE
    assert_order(mine, program)


@pytest.mark.parametrize("seed", range(6))
def test_programs_of_the_generator(host: MakeHost, seed: int) -> None:
    program = list(random_program(TINY, seed, tiles=8).instructions)
    mine = host(DramTiming(20), Hostility(seed, 50, 4, True))
    mine.bench.set("speed", 63)
    assert mine.run(program) is ErrorCode.NONE
    assert_order(mine, program)


def test_halt_waits_for_everything(host: MakeHost) -> None:
    """Even for instructions that its header does not name."""
    mine = host()
    program = [
        Instruction("LOAD_PARAMS"),
        Instruction("COMPUTE"),
        Instruction("POST"),
        Instruction("UPDATE", group=1),
        Instruction("HALT"),
    ]
    assert mine.run(program) is ErrorCode.NONE
    end = mine.bench.cycle
    for queue in ((Unit.LOAD, 0), (Unit.COMPUTE, 0), (Unit.COMPUTE, 1), (Unit.POST, 0), (Unit.UPDATE, 1)):
        times = list(mine.times("ended", *queue).values())
        assert len(times) == 1
        assert times[0] < end


def test_programs_run_one_after_another(host: MakeHost) -> None:
    """Counts, queues and errors of one program leave nothing to the next."""
    mine = host(DramTiming(30))
    for seed in range(3):
        program = random_waits(Random(seed), 40)
        assert mine.run(program) is ErrorCode.NONE
        assert mine.read("COMPLETED_LOAD") == sum(i.unit is Unit.LOAD for i in program)
        for what, group in [(what, group) for what in ("began", "ended") for group in GROUPS]:
            for unit in UNITS:
                if group == 0 or unit in (Unit.COMPUTE, Unit.UPDATE):
                    mine.times(what, unit, group)
        assert (
            mine.run([Instruction("LOAD_PARAMS"), Instruction("POST", wait_load=2), Instruction("HALT")]) is not ErrorCode.NONE
        )
        mine.bench.step(300)
        for unit, group in ((Unit.LOAD, 0), (Unit.POST, 0)):
            mine.times("began", unit, group), mine.times("ended", unit, group)


def test_units_run_at_the_same_time(host: MakeHost) -> None:
    """50 instructions for each of the four units take the time of one unit, not of four."""
    mine = host()
    mine.bench.set("speed", 0x40)
    kinds = ("LOAD_PARAMS", "COMPUTE", "POST", "UPDATE")
    program = [Instruction(kind) for _ in range(40) for kind in kinds] + [Instruction("HALT")]
    assert mine.run(program) is ErrorCode.NONE
    longest = max(max(mine.times("ended", unit, 0).values()) - min(mine.times("began", unit, 0).values()) for unit in UNITS)
    assert mine.read_wide("CYCLES") < 1.3 * longest


def test_an_instruction_begins_within_the_latency_of_the_machine(host: MakeHost) -> None:
    """`latencies.dispatch`: from the arrival of an instruction's last beat. The bus has one register of its own."""
    mine = host()
    assert mine.run([Instruction("LOAD_PARAMS"), Instruction("HALT")]) is ErrorCode.NONE
    assert mine.read_wide("CYCLES") < 60
    mine = host()
    mine.bench.set("speed", 0)
    program = [Instruction("POST") for _ in range(20)] + [Instruction("HALT")]
    assert mine.run(program) is ErrorCode.NONE
    began = list(mine.times("began", Unit.POST, 0).values())
    # An instruction of 128 bytes takes 8 beats of 16 bytes: dispatch keeps up with the bus.
    assert [later - earlier for earlier, later in pairwise(began[2:])] == [8] * 17


@pytest.mark.parametrize("seed", range(3))
def test_every_cycle_has_one_cause(host: MakeHost, seed: int) -> None:
    mine = host(DramTiming(40))
    mine.bench.set("speed", 63)
    program = random_waits(Random(seed + 100), 120)
    assert mine.run(program) is ErrorCode.NONE
    cycles = mine.read_wide("CYCLES")
    for unit in UNITS:
        found = {cause: mine.read_wide(counter_name(unit, cause)) for cause in CAUSES[unit]}
        assert sum(found.values()) == cycles * (TINY.pes if unit is Unit.COMPUTE else 1)
        if unit is not Unit.UPDATE:
            groups = GROUPS if unit is Unit.COMPUTE else (0,)
            spans = [(mine.times("began", unit, group), mine.times("ended", unit, group)) for group in groups]
            busy = sum(end[index] - begin[index] for begin, end in spans for index in begin)
            assert found["busy"] == busy * (TINY.pes_per_group if unit is Unit.COMPUTE else 1)
    assert mine.read("FETCHED") >= len(program)
    assert mine.read_wide("READ_BYTES") >= 128 * len(program)
    assert mine.read_wide("WRITTEN_BYTES") == 0
    assert mine.read("COMPLETED_UPDATE") == min(
        sum(i.unit is Unit.UPDATE and i.group == group for i in program) for group in GROUPS
    )
