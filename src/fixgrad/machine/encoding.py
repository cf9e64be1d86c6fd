"""Instructions as objects, as bytes and as text, all by the table of `fixgrad.machine.instructions`.

An instruction is 128 bytes, little endian: field by field from bit 0, the header first, then the fields of its kind. Bits
after the last field are zero, and decoding insists on it: so every instruction has exactly one encoding.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Self

from fixgrad.errors import DataError, FixgradError
from fixgrad.machine.instructions import (
    BY_NAME,
    BY_OPCODE,
    HEADER,
    INSTRUCTION_BYTES,
    INSTRUCTION_SET_VERSION,
    STEP_ENTRY_BYTES,
    Field,
    Kind,
    Unit,
    kinds_of,
    step_parameters_of,
)
from fixgrad.machine.parameters import Machine

#: Hexadecimal digits of every digest of this module: 64 bits, two registers of the host interface.
DIGEST_DIGITS = 16
#: Parameters of a machine that no program depends on: names for people, and what the chip could hold besides.
LABELS = frozenset({"name", "board", "device"})
_OPCODE_MASK = (1 << HEADER[0].bits) - 1


class InstructionError(FixgradError):
    """A kind that does not exist, a field that its kind does not have, or a value that its field cannot hold."""


class ProgramError(DataError):
    """Bytes that are no instruction.

    Attributes:
        position: byte at which the offending instruction begins, counted from the start of the data.
    """

    def __init__(self, position: int, message: str) -> None:
        super().__init__(f"instruction {position // INSTRUCTION_BYTES} (byte {position}): {message}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field lies: its index among the values of an instruction, its first bit, and the values that it holds."""

    field: Field
    index: int
    bit: int

    @property
    def low(self) -> int:
        """Least value."""
        return -(1 << (self.field.bits - 1)) if self.field.signed else 0

    @property
    def high(self) -> int:
        """Greatest value."""
        return (1 << (self.field.bits - self.field.signed)) - 1

    @property
    def mask(self) -> int:
        """As many ones as the field has bits."""
        return (1 << self.field.bits) - 1


@cache
def layout(name: str) -> Mapping[str, Place]:
    """The fields of a kind of instruction, header included, in the order of their bits.

    Raises:
        InstructionError: no kind has that name.
    """
    if name not in BY_NAME:
        raise InstructionError(f"instruction {name!r} is unknown: choose {', '.join(BY_NAME)}")
    places: dict[str, Place] = {}
    bit = 0
    for index, field in enumerate((*HEADER, *BY_NAME[name].fields)):
        places[field.name] = Place(field, index, bit)
        bit += field.bits
    return MappingProxyType(places)


def used_bits(name: str) -> int:
    """Bits of a kind of instruction that fields take; the rest are zero."""
    return sum(place.field.bits for place in layout(name).values())


@cache
def _defaults(name: str) -> tuple[int, ...]:
    return (BY_NAME[name].opcode, *([0] * (len(layout(name)) - 1)))


@cache
def _limits(name: str) -> Mapping[str, tuple[int, int, int]]:
    """Field name -> (index, least, greatest value): what the constructor looks at, once for each field given."""
    return {field: (place.index, place.low, place.high) for field, place in layout(name).items()}


@cache
def _cuts(name: str) -> tuple[tuple[int, int, int], ...]:
    """(first bit, mask, sign bit or 0) of each field, in order."""
    places = layout(name).values()
    return tuple((p.bit, p.mask, 1 << (p.field.bits - 1) if p.field.signed else 0) for p in places)


class Instruction:
    """One instruction: an immutable value.

    ``Instruction("COMPUTE", mode=2, wait_load=7)`` has every field of its kind as an integer attribute; those not given
    are 0, and the opcode follows from the name.

    Raises:
        InstructionError: an unknown kind or field, or a value out of range; names instruction, field, value and limit.
    """

    __slots__ = ("_values", "kind")

    #: The kind of instruction, from the table.
    kind: Kind
    _values: tuple[int, ...]

    def __init__(self, name: str, /, **fields: int) -> None:
        limits = _limits(name)
        values = list(_defaults(name))
        for field, value in fields.items():
            try:
                index, low, high = limits[field]
            except KeyError:
                raise InstructionError(f"{name} has no field {field!r}: it has {', '.join(limits)}") from None
            if type(value) is not int:
                value = _as_int(name, field, value)
            if not low <= value <= high:
                raise InstructionError(f"{name}: {field} is {value}: it must be {low} to {high}")
            values[index] = value
        if values[0] != BY_NAME[name].opcode:
            raise InstructionError(f"{name}: opcode is {values[0]}: it must be {BY_NAME[name].opcode}; leave it out")
        object.__setattr__(self, "kind", BY_NAME[name])
        object.__setattr__(self, "_values", tuple(values))

    @classmethod
    def _from_values(cls, kind: Kind, values: tuple[int, ...]) -> Self:
        self = object.__new__(cls)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "_values", values)
        return self

    @property
    def name(self) -> str:
        """Name of its kind, as in the table."""
        return self.kind.name

    @property
    def unit(self) -> Unit:
        """The unit that executes it."""
        return self.kind.unit

    @property
    def values(self) -> tuple[int, ...]:
        """All fields, header first, in the order of the table."""
        return self._values

    def to_dict(self) -> dict[str, int]:
        """Every field by name, in the order of the table."""
        return dict(zip(layout(self.name), self._values, strict=True))

    def replace(self, **fields: int) -> Self:
        """A copy with some fields changed, validated again."""
        return type(self)(self.name, **{**self.to_dict(), **fields})

    def encode(self) -> bytes:
        """Its 128 bytes."""
        word = 0
        for value, (bit, mask, _) in zip(self._values, _cuts(self.kind.name), strict=True):
            word |= (value & mask) << bit
        return word.to_bytes(INSTRUCTION_BYTES, "little")

    def __getattr__(self, field: str) -> int:
        # Reached only for what is no attribute: `kind` itself is asked for here while a copy is being made.
        if field in type(self).__slots__:
            raise AttributeError(field)
        limit = _limits(self.kind.name).get(field)
        if limit is None:
            raise AttributeError(f"{self.kind.name} has no field {field!r}: it has {', '.join(layout(self.kind.name))}")
        return self._values[limit[0]]

    def __setattr__(self, field: str, value: object) -> None:
        raise AttributeError(f"an instruction is immutable: use replace({field}=...)")

    def __delattr__(self, field: str) -> None:
        raise AttributeError("an instruction is immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        return decode, (self.encode(),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instruction) and self._values == other._values

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        given = list(self.to_dict().items())[1:]
        return f"Instruction({', '.join([repr(self.name), *(f'{field}={value}' for field, value in given if value)])})"

    def __str__(self) -> str:
        return disassemble(self)


def _as_int(name: str, field: str, value: object) -> int:
    """An integer of another type (NumPy's, a bool, an enumeration's); anything else is refused."""
    try:
        return int(value.__index__())  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        raise InstructionError(f"{name}: {field} is {value!r}: it must be an integer") from None


def disassemble(instruction: Instruction) -> str:
    """One line: the name and every field that is not zero, as ``LOAD_PARAMS wait_post=3 source=0x1000 count=12``."""
    shown = []
    for place, value in zip(layout(instruction.name).values(), instruction.values, strict=True):
        if value and place.index:
            is_address = place.field.text.startswith("byte address")
            shown.append(f"{place.field.name}={value:#x}" if is_address else f"{place.field.name}={value}")
    return " ".join([instruction.name, *shown])


def decode(data: bytes | bytearray | memoryview, position: int = 0) -> Instruction:
    """The instruction that 128 bytes hold; `position` is where they stand in a program, for messages.

    Raises:
        ProgramError: another number of bytes, an opcode of no kind, or a bit set after the last field.
    """
    if len(data) != INSTRUCTION_BYTES:
        raise ProgramError(position, f"{len(data)} bytes: an instruction has {INSTRUCTION_BYTES}")
    word = int.from_bytes(data, "little")
    kind = BY_OPCODE.get(word & _OPCODE_MASK)
    if kind is None:
        known = ", ".join(map(str, sorted(BY_OPCODE)))
        raise ProgramError(position, f"opcode {word & _OPCODE_MASK} is illegal: it must be one of {known}")
    values = []
    for bit, mask, sign in _cuts(kind.name):
        value = word >> bit & mask
        values.append(value - (mask + 1) if sign and value & sign else value)
    padding = word >> used_bits(kind.name)
    if padding:
        bit = used_bits(kind.name) + (padding & -padding).bit_length() - 1
        raise ProgramError(position, f"{kind.name} has bit {bit} set: bits from {used_bits(kind.name)} on must be zero")
    return Instruction._from_values(kind, tuple(values))


def encode_program(instructions: Iterable[Instruction]) -> bytes:
    """The bytes of a program: its instructions one after another."""
    return b"".join(map(Instruction.encode, instructions))


def decode_program(data: bytes | bytearray | memoryview) -> list[Instruction]:
    """The instructions of a program.

    Raises:
        ProgramError: an instruction that is none, or a part of one at the end.
    """
    return list(_decode_each(memoryview(data)))


def _decode_each(data: memoryview) -> Iterator[Instruction]:
    for position in range(0, len(data), INSTRUCTION_BYTES):
        yield decode(data[position : position + INSTRUCTION_BYTES], position)


def disassemble_program(instructions: Iterable[Instruction]) -> str:
    """A listing: index and text of each instruction, a line each."""
    return "\n".join(f"{index:6}  {disassemble(instruction)}" for index, instruction in enumerate(instructions))


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]


def instruction_set_record(machine: Machine) -> dict[str, Any]:
    """What of a machine's instruction set a program depends on: layouts and version; explanations are left out."""

    def fields(of: Iterable[Field]) -> list[list[Any]]:
        return [[field.name, field.bits, field.signed] for field in of]

    return {
        "version": INSTRUCTION_SET_VERSION,
        "bytes": INSTRUCTION_BYTES,
        "header": fields(HEADER),
        "kinds": {kind.name: [kind.opcode, str(kind.unit), fields(kind.fields)] for kind in kinds_of(machine)},
        "step_entry_bytes": STEP_ENTRY_BYTES,
        "step_parameters": {p.name: [p.offset, p.bytes, p.signed] for p in step_parameters_of(machine)},
    }


def instruction_set_digest(machine: Machine) -> str:
    """Hash of `instruction_set_record`, 16 hexadecimal digits."""
    return _digest(instruction_set_record(machine))


def identity_record(machine: Machine) -> dict[str, Any]:
    """What a program carries to say for which machine it is: JSON values, one for each thing that it depends on."""
    sizes = {name: value for name, value in machine.to_dict().items() if name not in LABELS}
    return {"instruction_set": instruction_set_digest(machine), "machine": sizes}


def identity(machine: Machine) -> str:
    """Hash of machine and instruction set, 16 hexadecimal digits: what the identity register reads.

    Names, board and device are not part of it.
    """
    return _digest(identity_record(machine))


def explain_mismatch(a: Machine | Mapping[str, Any], b: Machine | Mapping[str, Any]) -> str:
    """How two identities differ, ``groups: 8 here, 4 there``, by name of each field; empty where they do not.

    Each is a machine or the `identity_record` that a program carries.
    """
    mine, theirs = (_flat(identity_record(x) if isinstance(x, Machine) else x) for x in (a, b))
    names = sorted({*mine, *theirs})
    different = [name for name in names if mine.get(name, "none") != theirs.get(name, "none")]
    return "; ".join(f"{name}: {mine.get(name, 'none')} here, {theirs.get(name, 'none')} there" for name in different)


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name; the outermost ``machine.`` is left out."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, prefix if name == "machine" else f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
