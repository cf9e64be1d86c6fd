"""What an instruction is made of: units, fields, kinds, and the parameters of tables in memory."""

from dataclasses import dataclass
from enum import StrEnum

WAIT_BITS = 24
ADDRESS_BITS = 40


class Unit(StrEnum):
    """Who executes an instruction."""

    CONTROL = "control"
    LOAD = "load"
    COMPUTE = "compute"
    POST = "post"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Field:
    """One unsigned field (or signed, in two's complement) of an instruction."""

    name: str
    bits: int
    text: str
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of instruction.

    Attributes:
        name, opcode, unit: what it is and who executes it.
        fields: after the header, in order.
        action: one sentence.
        loop_nest: what it does, as the loops that the unit runs.
    """

    name: str
    opcode: int
    unit: Unit
    fields: tuple[Field, ...]
    action: str
    loop_nest: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field of a step-table entry: a signed or unsigned integer at a byte offset."""

    name: str
    offset: int
    bytes: int
    signed: bool
    text: str


def address(name: str, text: str) -> Field:
    """A field that holds a byte address."""
    return Field(name, ADDRESS_BITS, f"byte address: {text}")
