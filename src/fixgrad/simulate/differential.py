"""Programs run on two devices: the memory afterwards is the same, or the difference is shrunk to a few instructions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import FixgradError
from fixgrad.machine import Machine
from fixgrad.machine.device import Device
from fixgrad.machine.encoding import Instruction, disassemble
from fixgrad.machine.generate import RandomProgram
from fixgrad.machine.generate_file import with_instructions
from fixgrad.machine.instructions import INSTRUCTION_BYTES, Unit
from fixgrad.machine.registers import ErrorCode
from fixgrad.simulate.functional.order import Order
from fixgrad.simulate.functional.run import execute

Image = NDArray[np.uint8]
_WAITS = (Unit.LOAD, Unit.COMPUTE, Unit.POST, Unit.UPDATE)
#: Orders in which a shrunk program must do the same: it may not have lost a wait that it needs.
_ORDERS = (Order(_WAITS, "first"), Order(_WAITS[::-1], "last"), Order(seed=1))


@dataclass(frozen=True, slots=True)
class Difference:
    """How two devices differ after a program.

    Attributes:
        reason: one line: byte, region and values, or how the second device stopped.
        address: the first byte that differs; None where the device stopped early.
    """

    reason: str
    address: int | None = None


def difference(program: RandomProgram, expected: Image, device: Device) -> Difference | None:
    """Run a program on a device and hold its memory against what is expected.

    Args:
        program: is written to address 0, memory and all.
        expected: memory after it.

    Returns:
        None where every byte is equal.
    """
    behind = min(device.memory_bytes - len(expected), 1 << 16)
    device.write_memory(0, np.concatenate([program.image, np.zeros(behind, np.uint8)]))
    try:
        outcome = device.run(program.program_address, len(program.instructions))
    except FixgradError as problem:
        return Difference(str(problem))
    if outcome.error is not ErrorCode.NONE:
        encoded = program.image[program.program_address :][: len(program.instructions) * INSTRUCTION_BYTES]
        return Difference(outcome.explain(encoded))
    got = device.read_memory(0, len(expected) + behind)
    wrong = np.flatnonzero(got != np.concatenate([expected, np.zeros(behind, np.uint8)]))
    if not len(wrong):
        return None
    address = int(wrong[0])
    wanted = int(expected[address]) if address < len(expected) else 0
    return Difference(
        f"byte {address:#x} ({_place(program, address)}) is {int(got[address])}, expected {wanted}; {len(wrong)} bytes differ"
        f"{_writer(program, address)}",
        address,
    )


def memory_after(program: RandomProgram, order: Order | None = None) -> Image:
    """The memory after a program by the functional simulator; raises IllegalInstruction."""
    image = program.image.copy()
    execute(program.machine, image, program.instructions, None, order)
    return image


def _place(program: RandomProgram, address: int) -> str:
    for region in program.regions:
        if region.address <= address < region.address + region.bytes:
            return f"{region.name} + {address - region.address}"
    return "no region: nothing may write there"


def _writer(program: RandomProgram, address: int) -> str:
    """The instruction that changes a byte last."""
    if address >= len(program.image):
        return ""
    image = program.image.copy()
    writer, value = None, int(image[address])

    def note(index: int) -> None:
        nonlocal writer, value
        if image[address] != value:
            writer, value = index, int(image[address])

    execute(program.machine, image, program.instructions, after=note)
    if writer is None:
        writer = _likely_writer(program, address)
    return "" if writer is None else f"; written by instruction {writer}: {disassemble(program.instructions[writer])}"


def _likely_writer(program: RandomProgram, address: int) -> int | None:
    """Of a byte that never changes: the last instruction that writes to its region, from before it on."""
    region = next((r for r in program.regions if r.address <= address < r.address + r.bytes), None)
    writers = [
        index
        for index, instruction in enumerate(program.instructions)
        if region and any(region.address <= getattr(instruction, name, -1) <= address for name in _WRITTEN)
    ]
    return max(writers, default=None)


#: Fields that name what an instruction writes.
_WRITTEN = (
    "target", "argmax", "bias_gradient", "stored", "momentum", "operand", "record", "gamma_gradient", "beta_gradient",
)  # fmt: skip


def shrunk(program: RandomProgram, fails: Callable[[RandomProgram], bool]) -> RandomProgram:
    """A program that still fails, from which neither one instruction nor two can be left out.

    What an instruction waited for that is left out is waited for by those that waited for it, so that the program stays one
    whose memory does not depend on how its units overlap; a program that is not is not tried.
    """
    size = len(program.instructions) // 2
    while size > 1:
        for start in range(len(program.instructions) - 1 - size, -1, -size):
            program = _tried(program, range(start, start + size), fails)
        size //= 2
    while True:
        count = len(program.instructions) - 1  # HALT stays
        pairs = chain(((i,) for i in range(count)), combinations(range(count), 2))
        smaller = next((p for p in (_tried(program, pair, fails) for pair in pairs) if p is not program), program)
        if smaller is program:
            return program
        program = smaller


def _tried(program: RandomProgram, places: Sequence[int], fails: Callable[[RandomProgram], bool]) -> RandomProgram:
    """Without the instructions at these places where that still fails."""
    if places and places[-1] >= len(program.instructions) - 1:
        return program
    smaller = _without(program, places)
    return smaller if _is_sound(smaller) and fails(smaller) else program


def _is_sound(program: RandomProgram) -> bool:
    try:
        expected = memory_after(program)
        return all(np.array_equal(memory_after(program, order), expected) for order in _ORDERS)
    except (ValueError, ArithmeticError, IndexError):  # it uses what nothing has loaded
        return False


def _without(program: RandomProgram, places: Sequence[int]) -> RandomProgram:
    """Without the instructions at these places, and the rest of the rounds of updates that they belong to."""
    instructions = list(program.instructions)
    for place in reversed(_whole_rounds(program.machine, instructions, places)):
        _leave_out(instructions, place)
    return with_instructions(program, tuple(instructions))


def _whole_rounds(machine: Machine, instructions: Sequence[Instruction], places: Sequence[int]) -> list[int]:
    """The places, and with each UPDATE those of the other groups of its round: counts go by the slowest group."""
    chosen = set(places)
    counts = [0] * machine.groups
    rounds: dict[int, list[int]] = {}
    for place, instruction in enumerate(instructions):
        if instruction.unit is Unit.UPDATE:
            rounds.setdefault(counts[instruction.group], []).append(place)
            counts[instruction.group] += 1
    for members in rounds.values():
        if chosen & set(members):
            chosen |= set(members)
    return sorted(chosen)


def _leave_out(instructions: list[Instruction], place: int) -> None:
    """Take one instruction out; those that waited for it, and the next one of its unit, wait for what it waited for."""
    gone = instructions.pop(place)
    if gone.unit not in _WAITS:
        return
    number = 1 + sum(_same_queue(instructions[i], gone) for i in range(place))
    inherited, of_unit = _waits(gone), f"wait_{gone.unit}"
    next_of_unit = next((i for i in range(place, len(instructions)) if _same_queue(instructions[i], gone)), None)
    # An UPDATE counts once every group has had its own: of a round the first one, which is left out last, takes the count.
    counts = gone.unit is not Unit.UPDATE or gone.group == 0
    for index in range(place, len(instructions)):
        waits = _waits(instructions[index])
        waited = waits[of_unit] >= number
        if waited or index == next_of_unit:
            merged = {name: max(value, inherited[name]) for name, value in waits.items()}
            merged[of_unit] = max(waits[of_unit] - (waited and counts), inherited[of_unit])
            instructions[index] = instructions[index].replace(**merged)


def _waits(instruction: Instruction) -> dict[str, int]:
    return {f"wait_{unit}": getattr(instruction, f"wait_{unit}") for unit in _WAITS}


def _same_queue(a: Instruction, b: Instruction) -> bool:
    return a.unit is b.unit and (a.unit is not Unit.UPDATE or a.group == b.group)
