"""The unit UPDATE with its memory engines against the functional simulator."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from fixgrad.gateware.simulation import DramTiming, Hostility
from fixgrad.machine.encoding import Instruction

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
    assert ends.bench.get("activity") == 0 if "activity" in ends.bench.ports else True
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
