"""Layouts of instructions and step-table entries in hardware, from the tables of `fixgrad.machine.instructions`."""

from collections.abc import Iterable
from functools import cache

from amaranth.hdl import Shape, Value, signed, unsigned
from amaranth.lib import data

from fixgrad.machine import Machine
from fixgrad.machine.elementwise_instructions import ELEMENTWISE_STEP_PARAMETERS
from fixgrad.machine.encoding import layout
from fixgrad.machine.instructions import (
    BY_NAME,
    HEADER,
    INSTRUCTION_BYTES,
    KINDS,
    STEP_ENTRY_BYTES,
    STEP_PARAMETERS,
    WAIT_BITS,
    Field,
    Parameter,
    Unit,
    kinds_of,
)

INSTRUCTION_BITS = 8 * INSTRUCTION_BYTES
HEADER_BITS = sum(field.bits for field in HEADER)
OPCODE_BITS = HEADER[0].bits
#: Instructions are numbered from 0; a program has fewer than 2**INDEX_BITS, so its counts never wrap.
INDEX_BITS = WAIT_BITS
#: What an instruction waits for, in the order of the header.
WAIT_UNITS: tuple[Unit, ...] = (Unit.LOAD, Unit.COMPUTE, Unit.POST, Unit.UPDATE)


def _shape(field: Field) -> Shape:
    return signed(field.bits) if field.signed else unsigned(field.bits)


@cache
def instruction_layout(name: str) -> data.StructLayout:
    """The fields of a kind of instruction, header first, as they lie in its 128 bytes."""
    return data.StructLayout({place.field.name: _shape(place.field) for place in layout(name).values()})


@cache
def body_layout(name: str) -> data.StructLayout:
    """The fields behind the header."""
    return data.StructLayout({field.name: _shape(field) for field in BY_NAME[name].fields})


@cache
def body_bits(unit: Unit, machine: Machine | None = None) -> int:
    """Bits of the longest body of a unit's instructions. Those of POST depend on the machine; without one, it has no elementwise
    unit."""
    kinds = KINDS if machine is None else kinds_of(machine)
    return max(body_layout(kind.name).size for kind in kinds if kind.unit is unit)


@cache
def waits_layout() -> data.StructLayout:
    """The counts that an instruction waits for."""
    return data.StructLayout({str(unit): WAIT_BITS for unit in WAIT_UNITS})


@cache
def issued_layout(unit: Unit, machine: Machine | None = None) -> data.StructLayout:
    """What a unit is given: the instruction's place in the program, its opcode, and its body (see `body`, and `body_bits` for when
    it takes a machine)."""
    return data.StructLayout({"index": INDEX_BITS, "opcode": OPCODE_BITS, "body": body_bits(unit, machine)})


def body(issued: Value, name: str) -> data.View:
    """The fields of an instruction that was issued to a unit, if it is of the kind `name`."""
    layout_ = body_layout(name)
    return data.View(layout_, issued.body[: layout_.size])


@cache
def step_entry_layout() -> data.FlexibleLayout:
    """An entry of the step table, without what the elementwise unit alone reads."""
    return _entry_layout(STEP_PARAMETERS)


@cache
def elementwise_entry_layout() -> data.FlexibleLayout:
    """An entry of the step table as the elementwise unit reads it."""
    return _entry_layout((*STEP_PARAMETERS, *ELEMENTWISE_STEP_PARAMETERS))


def _entry_layout(parameters: Iterable[Parameter]) -> data.FlexibleLayout:
    fields = {p.name: data.Field(signed(8 * p.bytes) if p.signed else unsigned(8 * p.bytes), 8 * p.offset) for p in parameters}
    return data.FlexibleLayout(8 * STEP_ENTRY_BYTES, fields)
