"""The unit UPDATE with its memory engines against the functional simulator."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from fixgrad.gateware.simulation import DramTiming, Hostility
from fixgrad.machine.encoding import Instruction
from fixgrad.machine.gradient_port import GRADIENTS_IN_A_ROW

MakeBench = Callable[..., Any]
LIMIT = 200_000
SLOW = DramTiming(read_latency=60, write_latency=40, bytes_per_kilocycle=9000, turnaround=6)
OUTSIDE, READ, WRITE = 0, 1, 2


def an_entry(random: Random) -> dict[str, int]:
    """An entry of the step table."""
    stored, momentum = random.choice([16, 24, 32]), random.randint(16, 32)
    names = {"key_low": 32, "key_high": 32, "momentum": 8, "rate": 8, "decay": 8, "stochastic": 1}
    return {
        **{name: random.getrandbits(bits) for name, bits in names.items()},
        "gradient_left": random.randint(-40, 10),
        "decay_left": random.randint(-40, 10),
        "step_left": stored - momentum - random.randint(1, 6),
        "operand_shift": random.randint(0, 24),
        "stored_bits": stored,
        "momentum_bits": momentum,
    }


class Memory:
    """Hands out places that do not overlap, at any byte."""

    def __init__(self, random: Random) -> None:
        self.random, self.next = random, 1

    def place(self, size: int) -> int:
        """The first of `size` bytes."""
        self.next += self.random.randint(0, 9)
        self.next += size
        return self.next - size


def some_updates(random: Random, machine: Any, count: int, longest: int = 60) -> list[Instruction]:
    """UPDATEs of several layers, one after another: of kernels and of biases, some of nothing."""
    memory, found, param = Memory(random), [], 0
    for _ in range(count):
        param = random.randrange(4) if random.random() < 0.2 else param
        taps, from_memory = random.choice([1, 2, 9, 25]), int(random.random() < 0.2)
        number = random.choice([0, 1, random.randint(1, longest), random.randint(1, longest)])
        most = machine.gradient_words
        number = min(number, most)
        stored, momentum = random.choice([2, 3, 4]), random.choice([2, 3, 4])
        fields = {
            "group": random.randrange(machine.groups),
            "pe": random.choice([7, *range(machine.pes_per_group)]),
            "from_memory": from_memory,
            "gradient_source": memory.place(4 * number * from_memory),
            "gradient_base": random.randint(0, most - number),
            "count": number,
            "stored": memory.place(stored * number),
            "momentum": memory.place(momentum * number),
            "operand": memory.place(number),
            "element": memory.place(4 * -(-number // taps)),
            "taps": taps,
            "stored_bytes": stored,
            "momentum_bytes": momentum,
            "operands": random.getrandbits(1),
            "param": param,
            "statistics": random.randrange(8),
        }
        found.append(Instruction("UPDATE", **fields))
    return found


def finish(ends: Any, instructions: list[Instruction], wanted: Any) -> None:
    """Runs until every UPDATE has completed; then memory and range registers must be those of the functional simulator."""
    for group, sink in enumerate(ends.dones):
        assert sink.wait(sum(i.group == group for i in instructions), LIMIT), f"group {group} does not end"
    assert ends.bench.get("quiet") == 1
    ends.bench.step(50)
    ends.bench.check()
    assert ends.faults.count == 0
    assert [ends.bench.get(f"activity_{cause}") for cause in ("busy", "memory", "blocked")] == [0, 0, 0]
    assert (ends.bench.memory == wanted.image).all()
    assert (ends.registers() == wanted.registers).all()


@pytest.mark.parametrize("name", ["tiny", "wide", "narrow"])
@pytest.mark.parametrize("seed", range(4))
def test_random_updates(update_bench: MakeBench, name: str, seed: int) -> None:
    random = Random(seed)
    hostility = [Hostility(), Hostility(seed, 300, 5, True), Hostility(seed, 100, 40, True)][seed % 3]
    ends = update_bench(name, SLOW if seed % 2 else DramTiming(), hostility)
    for number in range(4):
        ends.set_entry(number, an_entry(random))
    instructions = some_updates(random, ends.chip.machine, 60)
    wanted = ends.expected(instructions)
    for index, instruction in enumerate(instructions):
        ends.push(index, instruction)
    finish(ends, instructions, wanted)
    ends.bench.close()


def kernels(machine: Any, group: int, count: int, parameters: int, step: int) -> list[Instruction]:
    """UPDATEs of 24-bit weights in kernels of 9, with operands, in memory as the compiler lays them out."""
    found = []
    for number in range(count):
        first = group * step + number * parameters
        fields = {"stored": 3 * first, "momentum": 0x4000 + 3 * first, "operand": 0x8000 + first, "element": 0xC000 + first // 9 * 4}
        shape = {"count": parameters, "taps": 9, "stored_bytes": 3, "momentum_bytes": 3, "operands": 1}
        found.append(Instruction("UPDATE", group=group, pe=7, **fields, **shape))
    return found


@pytest.mark.parametrize(("count", "parameters"), [(1, 252), (8, 63), (24, 18)])
def test_a_parameter_a_cycle_from_one_update_to_the_next(update_bench: MakeBench, count: int, parameters: int) -> None:
    """On a memory with a latency, beside what passes before the first one goes and after the last."""
    ends = update_bench("wide", DramTiming(read_latency=30, write_latency=20))
    ends.set_entry(0, an_entry(Random(3)) | {"stochastic": 1, "stored_bits": 24, "momentum_bits": 24, "step_left": -4})
    instructions = kernels(ends.chip.machine, 0, count, parameters, 0)
    wanted = ends.expected(instructions)
    for index, instruction in enumerate(instructions):
        ends.push(index, instruction)
    assert ends.bench.run_until("activity_busy", 1, 130)
    start = ends.bench.cycle
    assert ends.dones[0].wait(count, LIMIT)
    assert ends.bench.cycle - start <= 1.02 * count * parameters + 90
    finish(ends, [], wanted)
    ends.bench.close()


@pytest.mark.parametrize("wanted", [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_gradients_are_left_to_a_group_that_wants_them(update_bench: MakeBench, wanted: tuple[int, int]) -> None:
    """One lane serves both groups: of the one whose PEs wait it takes a few gradients in a row and rests for a cycle."""
    ends = update_bench("tiny", DramTiming(read_latency=30, write_latency=20))
    ends.set_entry(0, an_entry(Random(3)) | {"stochastic": 0, "stored_bits": 24, "momentum_bits": 24, "step_left": -4})
    for group, bit in enumerate(wanted):
        ends.bench.set(f"gradient_wanted_{group}", bit)
    instructions = [each for group in range(2) for each in kernels(ends.chip.machine, group, 1, 252, 252)]
    expected = ends.expected(instructions)
    for index, instruction in enumerate(instructions):
        ends.push(index, instruction)
    taken: list[int] = []
    while sum(bits != 0 for bits in taken) < 2 * 252:
        ends.bench.step(1)
        taken.append(ends.bench.get("updates"))
        assert len(taken) < LIMIT
    for group, bit in enumerate(wanted):
        mine = "".join("#" if bits >> group & 1 else "." for bits in taken).strip(".")
        assert mine.count("#") == 252
        # It waits for memory now and then; beyond that it rests as often as it must, and not without being asked.
        assert len(mine) <= 1.1 * 252 * (1 + bit / GRADIENTS_IN_A_ROW)
        if bit:
            assert max(len(run) for run in mine.split(".")) <= GRADIENTS_IN_A_ROW
    finish(ends, instructions, expected)
    ends.bench.close()


@pytest.mark.parametrize("field", ["stored", "momentum", "operand", "element", "gradient_source"])
def test_nothing_outside_of_the_memory_is_touched(update_bench: MakeBench, field: str) -> None:
    ends = update_bench("tiny")
    ends.set_entry(0, an_entry(Random(4)) | {"stochastic": 1})
    base, limit = 0x1000, 0x2000
    ends.bench.set("base", base)
    ends.bench.set("limit", limit)
    ends.bench.allow_writes(base, limit)
    fields = {name: base + 256 * number for number, name in enumerate(("stored", "momentum", "operand", "element", "gradient_source"))}
    fields[field] = limit - 5
    flags = {"from_memory": 1, "operands": 1, "count": 8, "taps": 1, "stored_bytes": 3, "momentum_bytes": 3}
    ends.push(77, Instruction("UPDATE", **fields, **flags))
    assert ends.faults.wait(1, LIMIT)
    record = ends.faults.pop()[0][0]
    assert int(record["index"]) == 77
    fault = int.from_bytes(record["fault"].tobytes(), "little") & (1 << 42) - 1
    assert fault & 3 == OUTSIDE
    ends.bench.set("stop", 1)
    ends.bench.step(300)
    ends.bench.check()
    assert ends.bench.get("quiet") == 1
    assert ends.dones[0].count == 0
    ends.bench.close()


@pytest.mark.parametrize(("field", "kind"), [("momentum", READ), ("operand", WRITE)])
def test_a_failing_burst_names_its_instruction(update_bench: MakeBench, field: str, kind: int) -> None:
    ends = update_bench("tiny", DramTiming(), Hostility(3, 200, 5, True))
    ends.set_entry(0, an_entry(Random(5)))
    instructions = kernels(ends.chip.machine, 1, 6, 36, 0)
    bad = getattr(instructions[4], field)
    ends.bench.fault(bad, bad + 1, 2)
    for index, instruction in enumerate(instructions):
        ends.push(index, instruction)
    assert ends.faults.wait(1, LIMIT)
    record = ends.faults.pop()[0][0]
    fault = int.from_bytes(record["fault"].tobytes(), "little")
    assert int(record["index"]) == 4
    assert fault & 3 == kind
    assert bad - 64 < fault >> 2 & (1 << 40) - 1 <= bad
    ends.bench.step(2000)
    ends.bench.check()
    assert ends.bench.get("quiet") == 1
    ends.bench.close()


def test_an_entry_is_read_anew_once_nothing_uses_it(update_bench: MakeBench) -> None:
    """The host changes the table between steps."""
    ends = update_bench("tiny")
    for step in range(2):
        ends.set_entry(0, an_entry(Random(step)))
        instructions = kernels(ends.chip.machine, 0, 3, 18, 0)
        wanted = ends.expected(instructions)
        for index, instruction in enumerate(instructions):
            ends.push(index, instruction)
        finish(ends, instructions, wanted)
        for sink in ends.dones:
            sink.pop()
    ends.bench.close()
