"""Random instructions and random programs, the same from the same seed.

`random_instruction` fills every field with any value that it can hold: for encoders and decoders. `random_program` makes a
program that a machine can run, with a memory image for it: tiles of FF, NG and WG of random geometry, with as much overlap
between the units as its waits allow. Nothing in it means anything to a network; simulators and gateware must agree on it.
"""

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine.encoding import Instruction, encode_program, layout
from fixgrad.machine.generate_memory import MemoryBuilder, Region
from fixgrad.machine.generate_steps import ProgramBuilder
from fixgrad.machine.instructions import INSTRUCTION_BYTES, KINDS
from fixgrad.machine.parameters import Machine


def random_instruction(random: Random, name: str | None = None) -> Instruction:
    """An instruction (of the kind `name`, or of any) whose fields are random: small, large, limits, and anything between."""
    kind = name or random.choice(KINDS).name
    places = list(layout(kind).values())[1:]

    def value(low: int, high: int) -> int:
        picked = random.choice((0, low, high, random.randint(low, high), random.randint(low, high), min(1, high)))
        return max(low, picked)

    return Instruction(kind, **{place.field.name: value(place.low, place.high) for place in places})


@dataclass(frozen=True)
class RandomProgram:
    """A program and the memory that it runs on.

    Attributes:
        machine: for which it is.
        seed: from which it was made.
        instructions: the program, HALT included.
        image: memory before it runs, uint8; the program itself is in it.
        program_address: where.
        regions: what lies where.
    """

    machine: Machine
    seed: int
    instructions: tuple[Instruction, ...]
    image: NDArray[np.uint8]
    program_address: int
    regions: tuple[Region, ...]


def random_program(machine: Machine, seed: int, tiles: int = 6) -> RandomProgram:
    """A program of `tiles` random tiles (FF, NG or WG with its update, LOSS, updates of biases) that fits `machine`.

    Every wait names instructions that stand before; what an instruction reads has been written when its waits are met, and
    nothing is overwritten before it has been used. So the memory afterwards is the same however the units overlap.
    """
    random = Random(f"{machine.digest()}/{seed}")
    memory = MemoryBuilder(random)
    builder = ProgramBuilder(machine, random, memory)
    builder.begin()
    for _ in range(tiles):
        builder.add_tile()
    builder.end()
    address = memory.allocate("program", len(builder.instructions) * INSTRUCTION_BYTES, INSTRUCTION_BYTES)
    memory.put(address, np.frombuffer(encode_program(builder.instructions), np.uint8))
    return RandomProgram(machine, seed, tuple(builder.instructions), memory.image(), address, tuple(memory.regions.values()))
