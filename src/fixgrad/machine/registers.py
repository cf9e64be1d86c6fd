"""The register map of the control port (AXI4-Lite, 32-bit registers), written once.

Gateware, host driver, C header and documentation read this table. The host writes the identity that the program was made for,
the memory that the machine may touch, the program's address and length, sets CONTROL.start, and waits for the interrupt or for
STATUS. A machine that stopped on TIMEOUT because its memory does not answer needs a reset. Counters of 64 bits are two
registers; reading a low one keeps its high half for the high one, until the next low one is read, so that both belong to one
moment. CONTROL.start clears them.
"""

import json
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from fixgrad.errors import UsageError
from fixgrad.machine.encoding import identity
from fixgrad.machine.instructions import ADDRESS_BITS, INSTRUCTION_BYTES, INSTRUCTION_SET_VERSION, Unit
from fixgrad.machine.parameters import Machine

REGISTER_BYTES = 4
#: "FXGR": what a host finds at offset 0 of a machine of ours.
MAGIC = int.from_bytes(b"FXGR", "big")


class Access(StrEnum):
    """What the host may do with a register."""

    READ = "RO"  #: written by the machine
    READ_WRITE = "RW"  #: written by the host while the machine is idle
    WRITE_ONE_TO_CLEAR = "W1C"  #: set by the machine; a 1 written clears that bit
    PULSE = "WO"  #: a 1 written starts something; reads 0


class ErrorCode(IntEnum):
    """Why the machine stopped before HALT; the value of the register ERROR."""

    NONE = 0
    ILLEGAL_OPCODE = 1
    NONZERO_PADDING = 2
    OUT_OF_RANGE = 3
    NO_HALT = 4
    MEMORY_READ = 5
    MEMORY_WRITE = 6
    ABORTED = 7
    UNREACHABLE_WAIT = 8
    WRONG_IDENTITY = 9
    OUTSIDE_MEMORY = 10
    TIMEOUT = 11

    @property
    def text(self) -> str:
        """What it means."""
        return _ERROR_TEXTS[self]


_ERROR_TEXTS = {
    ErrorCode.NONE: "no error",
    ErrorCode.ILLEGAL_OPCODE: "the opcode is of no kind of instruction",
    ErrorCode.NONZERO_PADDING: "a bit after the instruction's last field is set",
    ErrorCode.OUT_OF_RANGE: "a group, PE or memory entry that this machine does not have",
    ErrorCode.NO_HALT: "the program's length is reached without HALT",
    ErrorCode.MEMORY_READ: "the memory answered a read with an error",
    ErrorCode.MEMORY_WRITE: "the memory answered a write with an error",
    ErrorCode.ABORTED: "the host set CONTROL.abort",
    ErrorCode.UNREACHABLE_WAIT: "an instruction waits for more instructions of a unit than stand before it",
    ErrorCode.WRONG_IDENTITY: "EXPECTED_IDENTITY is not the machine's",
    ErrorCode.OUTSIDE_MEMORY: "an access outside of MEMORY_BASE to MEMORY_LIMIT",
    ErrorCode.TIMEOUT: "nothing moved for TIMEOUT cycles",
}


class Cause(StrEnum):
    """Where a unit's cycles go. In every cycle of a program each unit counts exactly one of its causes."""

    BUSY = "busy"
    DEPENDENCY = "dependency"
    MEMORY = "memory"
    STARVED = "starved"
    BLOCKED = "blocked"
    IDLE = "idle"


#: Causes of each unit, with what they mean there. Of COMPUTE every PE counts, so its counters add up to cycles times PEs.
CAUSES: dict[Unit, dict[Cause, str]] = {
    Unit.LOAD: {
        Cause.BUSY: "data arrive and are put away",
        Cause.DEPENDENCY: "the next instruction's counts are not reached",
        Cause.MEMORY: "waiting for the memory to answer",
        Cause.BLOCKED: "a kernel queue has no room",
        Cause.IDLE: "no LOAD instruction is left",
    },
    Unit.COMPUTE: {
        Cause.BUSY: "PE cycles with a MAC",
        Cause.DEPENDENCY: "the next instruction's counts are not reached",
        Cause.STARVED: "the kernel queue is empty, or a group waits for its slowest PE",
        Cause.BLOCKED: "POST has the lane memory's read port, or the same accumulator is still in the pipeline",
        Cause.IDLE: "no COMPUTE instruction is left",
    },
    Unit.POST: {
        Cause.BUSY: "a word of accumulators is taken",
        Cause.DEPENDENCY: "the next instruction's counts are not reached",
        Cause.MEMORY: "waiting for mask, places of maxima or tables",
        Cause.BLOCKED: "the memory does not take the written data",
        Cause.IDLE: "no POST, LOSS or STATISTICS instruction is left",
    },
    Unit.UPDATE: {
        Cause.BUSY: "a parameter is updated",
        Cause.DEPENDENCY: "the next instruction's counts are not reached",
        Cause.MEMORY: "waiting for stored weights, momenta or tables",
        Cause.BLOCKED: "the memory does not take the written data",
        Cause.IDLE: "no UPDATE instruction is left",
    },
}

#: Parameters of the machine that the host can read, to say which one differs where the identity does.
READABLE_PARAMETERS = (
    "groups",
    "pes_per_group",
    "lanes",
    "input_words",
    "lane_words",
    "kernel_words",
    "gradient_words",
    "param_words",
    "post_processors",
    "load_words",
)


@dataclass(frozen=True, slots=True)
class Bits:
    """A field of a register: `width` bits from bit `low` on."""

    name: str
    low: int
    width: int
    text: str


@dataclass(frozen=True, slots=True)
class Register:
    """One register of 32 bits.

    Attributes:
        name, offset: in bytes from the start of the control port.
        access: what the host may do.
        text: what it holds.
        reset: value after reset; None where it is the machine's own (identity, sizes), see `reset_value`.
        bits: its fields, where it has several.
    """

    name: str
    offset: int
    access: Access
    text: str
    reset: int | None = 0
    bits: tuple[Bits, ...] = ()


def _interrupts(what: str) -> tuple[Bits, ...]:
    return (Bits("done", 0, 1, f"{what} when HALT was reached"), Bits("error", 1, 1, f"{what} when the machine stopped early"))


def _counter(name: str, text: str) -> list[tuple[str, Access, str]]:
    return [
        (f"{name}_LOW", Access.READ, f"{text}: low half"),
        (f"{name}_HIGH", Access.READ, f"{text}: high half of what was read last by a low half"),
    ]


def counter_name(unit: Unit, cause: Cause) -> str:
    """Name of the counter of a unit's cause, without _LOW and _HIGH."""
    return f"{unit.name}_{cause.name}"


#: The counters, in the order of their registers.
COUNTERS: tuple[str, ...] = (
    "CYCLES",
    "READ_BYTES",
    "WRITTEN_BYTES",
    *(counter_name(unit, cause) for unit, causes in CAUSES.items() for cause in causes),
)


def _head() -> list[Register]:
    """What every machine has at fixed offsets, whatever is added later."""
    high = ADDRESS_BITS - 32
    return [
        Register("MAGIC", 0x00, Access.READ, "the letters FXGR", MAGIC),
        Register("VERSION", 0x04, Access.READ, "version of the instruction set", INSTRUCTION_SET_VERSION),
        Register("IDENTITY_LOW", 0x08, Access.READ, "hash of machine and instruction set: low half", None),
        Register("IDENTITY_HIGH", 0x0C, Access.READ, "hash of machine and instruction set: high half", None),
        Register(
            "CONTROL",
            0x10,
            Access.PULSE,
            "commands",
            bits=(
                Bits("start", 0, 1, "run the program from its first instruction; ignored while busy"),
                Bits("abort", 1, 1, "stop fetching, let memory transfers end, and stop with the error ABORTED"),
            ),
        ),
        Register(
            "STATUS",
            0x14,
            Access.READ,
            "state",
            bits=(
                Bits("busy", 0, 1, "a program runs"),
                Bits("done", 1, 1, "the last program reached HALT; cleared by start"),
                Bits("error", 2, 1, "the last program stopped early, see ERROR; cleared by start"),
            ),
        ),
        Register(
            "PROGRAM_LOW", 0x18, Access.READ_WRITE, f"byte address of the program, a multiple of {INSTRUCTION_BYTES}: low half"
        ),
        Register("PROGRAM_HIGH", 0x1C, Access.READ_WRITE, f"likewise: high half, {high} bits"),
        Register("PROGRAM_LENGTH", 0x20, Access.READ_WRITE, "instructions of the program, HALT included"),
        Register("ERROR", 0x24, Access.READ, "why the program stopped early, see the table of errors; cleared by start"),
        Register("ERROR_INSTRUCTION", 0x28, Access.READ, "index of the instruction at fault, from 0"),
        Register("INTERRUPT_ENABLE", 0x2C, Access.READ_WRITE, "what raises the interrupt line", bits=_interrupts("interrupt")),
        Register("INTERRUPT_STATUS", 0x30, Access.WRITE_ONE_TO_CLEAR, "what has happened", bits=_interrupts("set")),
        Register(
            "EXPECTED_IDENTITY_LOW",
            0x34,
            Access.READ_WRITE,
            "identity of the machine for which the program was made: low half",
        ),
        Register("EXPECTED_IDENTITY_HIGH", 0x38, Access.READ_WRITE, "likewise: high half"),
        Register("MEMORY_BASE_LOW", 0x3C, Access.READ_WRITE, "first byte of memory that the machine may touch: low half"),
        Register("MEMORY_BASE_HIGH", 0x40, Access.READ_WRITE, f"likewise: high half, {high} bits"),
        Register("MEMORY_LIMIT_LOW", 0x44, Access.READ_WRITE, "first byte behind that memory: low half"),
        Register("MEMORY_LIMIT_HIGH", 0x48, Access.READ_WRITE, f"likewise: high half, {high + 1} bits"),
        Register(
            "TIMEOUT", 0x4C, Access.READ_WRITE, "cycles without progress after which the machine stops; 0: never", 1 << 26
        ),
        Register("ERROR_ADDRESS_LOW", 0x50, Access.READ, "first byte of the access that failed, if one did: low half"),
        Register("ERROR_ADDRESS_HIGH", 0x54, Access.READ, "likewise: high half"),
    ]


def _build() -> tuple[Register, ...]:
    registers = _head()
    more: list[tuple[str, Access, str]] = [("FETCHED", Access.READ, "instructions fetched since start")]
    more += [
        (f"COMPLETED_{unit.name}", Access.READ, f"{unit.name} instructions completed since start{by}")
        for unit, by in zip(CAUSES, ("", " by the slowest group", "", " by the slowest group"), strict=True)
    ]
    more += _counter("CYCLES", "cycles from start to the end of the program")
    more += _counter("READ_BYTES", "bytes read from memory")
    more += _counter("WRITTEN_BYTES", "bytes written to memory")
    for unit, causes in CAUSES.items():
        for cause, text in causes.items():
            more += _counter(counter_name(unit, cause), f"{unit.name} {cause}: {text}")
    offset = registers[-1].offset + REGISTER_BYTES
    for name, access, text in more:
        registers.append(Register(name, offset, access, text))
        offset += REGISTER_BYTES
    for name in READABLE_PARAMETERS:
        registers.append(Register(name.upper(), offset, Access.READ, f"the machine's {name}", None))
        offset += REGISTER_BYTES
    return tuple(registers)


#: The register map, by offset.
REGISTERS: tuple[Register, ...] = _build()
REGISTER_BY_NAME: dict[str, Register] = {register.name: register for register in REGISTERS}
#: Bytes of the control port's address space: a power of two.
ADDRESS_SPACE = 1 << (len(REGISTERS) * REGISTER_BYTES - 1).bit_length()


def register(name: str) -> Register:
    """The register of that name; raises UsageError where there is none."""
    if name not in REGISTER_BY_NAME:
        raise UsageError(f"register {name!r} is unknown: choose {', '.join(REGISTER_BY_NAME)}")
    return REGISTER_BY_NAME[name]


def reset_value(of: Register, machine: Machine) -> int:
    """Value of a register after reset on `machine`."""
    if of.reset is not None:
        return of.reset
    if of.name.lower() in READABLE_PARAMETERS:
        return int(getattr(machine, of.name.lower()))
    digest = int(identity(machine), 16)
    return digest & 0xFFFF_FFFF if of.name == "IDENTITY_LOW" else digest >> 32


def as_dict(machine: Machine) -> dict[str, Any]:
    """The map of `machine` as JSON values."""
    return {
        "machine": machine.name,
        "identity": identity(machine),
        "address_space": ADDRESS_SPACE,
        "registers": [
            {
                "name": each.name,
                "offset": each.offset,
                "access": str(each.access),
                "reset": reset_value(each, machine),
                "text": each.text,
                "bits": [{"name": b.name, "low": b.low, "width": b.width, "text": b.text} for b in each.bits],
            }
            for each in REGISTERS
        ],
        "errors": {code.name: int(code) for code in ErrorCode},
    }


def as_json(machine: Machine) -> str:
    """The map of `machine` as JSON text."""
    return json.dumps(as_dict(machine), indent=2) + "\n"


def c_header(machine: Machine) -> str:
    """The map of `machine` as a C header: offsets, masks, shifts, error codes, and the identity to expect."""
    lines = [
        "/* Register map of a fixgrad machine; generated from fixgrad.machine.registers. */",
        "#ifndef FIXGRAD_REGISTERS_H",
        "#define FIXGRAD_REGISTERS_H",
        "",
        f"/* machine {machine.name} */",
        f"#define FIXGRAD_IDENTITY 0x{identity(machine)}ull",
        f"#define FIXGRAD_MAGIC_VALUE {MAGIC:#010x}u",
        f"#define FIXGRAD_ADDRESS_SPACE {ADDRESS_SPACE:#x}u",
        "",
    ]
    for each in REGISTERS:
        lines.append(f"#define FIXGRAD_{each.name} {each.offset:#05x}u /* {each.access}: {each.text} */")
        for bits in each.bits:
            mask = (1 << bits.width) - 1 << bits.low
            lines.append(f"#define FIXGRAD_{each.name}_{bits.name.upper()} {mask:#010x}u /* {bits.text} */")
    lines.append("")
    lines += [f"#define FIXGRAD_ERROR_{code.name} {int(code)}u /* {code.text} */" for code in ErrorCode]
    return "\n".join([*lines, "", "#endif", ""])
