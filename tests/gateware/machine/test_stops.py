"""Whatever goes wrong while units work, the machine stops with its code, and runs the next program as if nothing had been."""

import numpy as np
import pytest

from fixgrad.gateware.axi import MemoryPorts
from fixgrad.gateware.simulation import RtlDevice
from fixgrad.machine import identity
from fixgrad.machine.device import DeviceError
from fixgrad.machine.generate import RandomProgram, random_program
from fixgrad.machine.generate_file import with_instructions
from fixgrad.machine.generate_memory import Region
from fixgrad.machine.instructions import BY_NAME, INSTRUCTION_BYTES, Unit, kinds_of
from fixgrad.machine.registers import ErrorCode
from fixgrad.simulate.differential import difference, memory_after

SLVERR = 2
SEEDS = (3, 5)


def prepared(device: RtlDevice, program: RandomProgram) -> None:
    device.bench.memory[:] = 0
    device.write_memory(0, program.image)


def next_program_is_well(device: RtlDevice) -> None:
    program = random_program(device.machine, 9)
    found = difference(program, memory_after(program), device)
    assert found is None, found.reason


def placed(program: RandomProgram, name: str) -> int:
    """Place of the last instruction of a kind."""
    return max(index for index, each in enumerate(program.instructions) if each.name == name)


@pytest.fixture(params=["tiny", "hostile_tiny", "hostile_graph"])
def device(request: pytest.FixtureRequest) -> RtlDevice:
    found: RtlDevice = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_an_illegal_instruction_in_the_middle(device: RtlDevice, seed: int) -> None:
    program = random_program(device.machine, seed)
    prepared(device, program)
    middle = len(program.instructions) // 2
    device.bench.memory[program.program_address + middle * INSTRUCTION_BYTES] = 200
    outcome = device.run(program.program_address, len(program.instructions))
    assert outcome.error is ErrorCode.ILLEGAL_OPCODE
    assert outcome.instruction == middle
    next_program_is_well(device)


def test_a_program_without_halt(device: RtlDevice) -> None:
    program = random_program(device.machine, SEEDS[0])
    prepared(device, program)
    outcome = device.run(program.program_address, len(program.instructions) - 1)
    assert outcome.error is ErrorCode.NO_HALT
    assert outcome.instruction == len(program.instructions) - 1
    next_program_is_well(device)


@pytest.mark.parametrize(
    ("name", "field", "code"),
    [
        ("LOAD_INPUT", "source", ErrorCode.MEMORY_READ),
        ("LOAD_KERNELS", "index", ErrorCode.MEMORY_READ),
        ("POST", "target", ErrorCode.MEMORY_WRITE),
        ("UPDATE", "momentum", ErrorCode.MEMORY_READ),
        ("STATISTICS", "target", ErrorCode.MEMORY_WRITE),
        ("ELEMENTWISE", "first", ErrorCode.MEMORY_READ),
        ("ELEMENTWISE", "target", ErrorCode.MEMORY_WRITE),
        ("CHANNEL_SUMS", "second", ErrorCode.MEMORY_READ),
        ("NORMALISE", "gamma", ErrorCode.MEMORY_READ),
    ],
)
def test_an_error_of_the_memory(device: RtlDevice, name: str, field: str, code: ErrorCode) -> None:
    if BY_NAME[name] not in kinds_of(device.machine):
        pytest.skip(f"{device.machine.name} has no {name}")
    program, region = next(found for seed in range(50) if (found := used_region(random_program(device.machine, seed), name, field)))
    prepared(device, program)
    device.bench.fault(region.address, region.address + region.bytes, SLVERR)
    outcome = device.run(program.program_address, len(program.instructions))
    device.bench.clear_faults()
    assert outcome.error is code
    assert program.instructions[outcome.instruction].name == name
    assert outcome.address is not None
    burst = MemoryPorts.of(device.machine).burst_bytes
    assert region.address - burst < outcome.address < region.address + region.bytes
    next_program_is_well(device)


def used_region(program: RandomProgram, name: str, field: str) -> tuple[RandomProgram, Region] | None:
    """A region that instructions of this kind are the first to touch, with this field."""
    used = {"LOAD_INPUT": ("channels", "in0_bottom", "in0_right"), "POST": ("channels", "out0_bottom", "out0_right")}
    used |= {"ELEMENTWISE": ("channels", "operands"), "CHANNEL_SUMS": ("channels", "products"), "NORMALISE": ("channels",)}
    for place, each in enumerate(program.instructions):
        if each.name != name or not all(getattr(each, part) for part in used.get(name, ("count",))):
            continue
        address = getattr(each, field)
        region = next(r for r in program.regions if r.address <= address < r.address + r.bytes)
        written = ("target", "argmax", "bias_gradient", "stored", "operand")
        before = (getattr(other, part, -1) for other in program.instructions[:place] for part in written)
        if not any(region.address <= other < region.address + region.bytes for other in before):
            return program, region
    return None


def test_an_access_outside_of_the_memory(device: RtlDevice) -> None:
    program = random_program(device.machine, SEEDS[0])
    place = placed(program, "STATISTICS")
    wrong = list(program.instructions)
    wrong[place] = wrong[place].replace(target=device.memory_bytes)
    changed = with_instructions(program, tuple(wrong))
    prepared(device, changed)
    outcome = device.run(changed.program_address, len(wrong))
    assert outcome.error is ErrorCode.OUTSIDE_MEMORY
    assert (outcome.instruction, outcome.address) == (place, device.memory_bytes)
    next_program_is_well(device)


def test_a_program_for_another_machine(device: RtlDevice) -> None:
    program = random_program(device.machine, SEEDS[0])
    prepared(device, program)
    device.write_wide("EXPECTED_IDENTITY", int(identity(device.machine), 16) ^ 1)
    device.write_wide("PROGRAM", program.program_address)
    device.write_register("PROGRAM_LENGTH", len(program.instructions))
    device.write_register("CONTROL", 1)
    assert device.wait()
    assert device.read_register("ERROR") == ErrorCode.WRONG_IDENTITY
    assert np.array_equal(device.read_memory(0, len(program.image)), program.image)
    next_program_is_well(device)


@pytest.mark.parametrize("cycles", [50, 400, 900])
def test_abort(device: RtlDevice, cycles: int) -> None:
    """At whatever moment: no burst is left behind, and no memory is touched that the program may not touch."""
    program = random_program(device.machine, SEEDS[1])
    prepared(device, program)
    device.write_register("PROGRAM_LENGTH", len(program.instructions))
    device.write_wide("PROGRAM", program.program_address)
    device.write_wide("EXPECTED_IDENTITY", int(identity(device.machine), 16))
    device.write_wide("MEMORY_BASE", 0)
    device.write_wide("MEMORY_LIMIT", device.memory_bytes)
    device.write_register("INTERRUPT_STATUS", 3)
    device.write_register("INTERRUPT_ENABLE", 3)
    device.write_register("CONTROL", 1)
    device.bench.step(cycles)
    device.write_register("CONTROL", 2)
    assert device.wait()
    assert device.read_register("ERROR") == ErrorCode.ABORTED
    assert device.bench.is_quiet
    owned = np.zeros(device.memory_bytes, np.bool_)
    for region in program.regions:
        owned[region.address : region.address + region.bytes] = True
    owned[len(program.image) :] = False
    before = np.zeros(device.memory_bytes, np.uint8)
    before[: len(program.image)] = program.image
    assert not (device.bench.memory != before)[~owned].any()
    next_program_is_well(device)


def test_kernels_that_never_come(device: RtlDevice) -> None:
    """A COMPUTE whose end mark is missing waits; the machine stops when nothing has moved for so long."""
    program = random_program(device.machine, SEEDS[0])
    wrong = tuple(
        each.replace(last=0) if each.name == "LOAD_KERNELS" else each for each in program.instructions
    )
    changed = with_instructions(program, wrong)
    prepared(device, changed)
    outcome = device.run(changed.program_address, len(wrong))
    assert outcome.error is ErrorCode.TIMEOUT
    assert program.instructions[outcome.instruction].unit in (Unit.COMPUTE, Unit.LOAD)
    next_program_is_well(device)


def test_another_machine_is_refused_before_it_starts(tiny: RtlDevice) -> None:
    other = tiny.machine
    try:
        tiny.machine = other.with_changes(groups=4)
        with pytest.raises(DeviceError, match="groups is 2 there, 4 here"):
            tiny.run(0, 1)
    finally:
        tiny.machine = other
