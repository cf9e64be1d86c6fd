"""Decodes an instruction: whose it is, what it waits for, and whether it is legal on this machine."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.control.checks import checks
from fixgrad.gateware.control.fetch import FETCHED
from fixgrad.gateware.control.layouts import (
    HEADER_BITS,
    INDEX_BITS,
    INSTRUCTION_BITS,
    OPCODE_BITS,
    WAIT_UNITS,
    body_bits,
    instruction_layout,
    waits_layout,
)
from fixgrad.machine import Machine
from fixgrad.machine.encoding import used_bits
from fixgrad.machine.instructions import kinds_of
from fixgrad.machine.registers import ErrorCode

ERROR_BITS = max(ErrorCode).bit_length()


def decoded_layout(machine: Machine) -> data.StructLayout:
    """A decoded instruction: `error` is an `ErrorCode`; `halt` and one of the units' bits tell whose it is."""
    return data.StructLayout(
        {
            "index": INDEX_BITS,
            "error": ERROR_BITS,
            "halt": 1,
            "units": data.StructLayout({str(unit): 1 for unit in WAIT_UNITS}),
            "group": instruction_layout("UPDATE")["group"].width,
            "waits": waits_layout(),
            "opcode": OPCODE_BITS,
            "body": max(body_bits(unit, machine) for unit in WAIT_UNITS),
        }
    )


class Decode(wiring.Component):
    """One pipeline stage: an instruction a cycle, one cycle of latency.

    Members:
        i: instructions as they were fetched.
        o: decoded ones; an illegal one has `error`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__({"i": In(stream.Signature(FETCHED)), "o": Out(stream.Signature(decoded_layout(machine)))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word = self.i.payload.word
        header = data.View(instruction_layout("HALT"), word[: instruction_layout("HALT").size])
        kinds = {kind.name: Signal(name=f"is_{kind.name}") for kind in kinds_of(self.machine)}
        m.d.comb += [kinds[kind.name].eq(header.opcode == kind.opcode) for kind in kinds_of(self.machine)]
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid)
        out = self.o.payload
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += [
                out.index.eq(self.i.payload.index),
                out.error.eq(self._error(m, word, kinds)),
                out.halt.eq(kinds["HALT"]),
                out.group.eq(data.View(instruction_layout("UPDATE"), word[: instruction_layout("UPDATE").size]).group),
                out.opcode.eq(header.opcode),
                out.body.eq(word[HEADER_BITS:]),
            ]
            m.d.sync += [out.waits[str(unit)].eq(header[f"wait_{unit}"]) for unit in WAIT_UNITS]
            for unit in WAIT_UNITS:
                of_unit = [kinds[kind.name] for kind in kinds_of(self.machine) if kind.unit is unit]
                m.d.sync += out.units[str(unit)].eq(Cat(*of_unit).any())
        return m

    def _error(self, m: Module, word: Value, kinds: dict[str, Signal]) -> Value:
        known, clean, in_range = Signal(), Signal(), Signal()
        m.d.comb += known.eq(Cat(*kinds.values()).any())
        # Bits behind the last field of each kind: cut at every kind's end, so that the OR of each piece is made once.
        ends = sorted({used_bits(kind.name) for kind in kinds_of(self.machine)})
        pieces = {low: word[low:high].any() for low, high in zip(ends, [*ends[1:], INSTRUCTION_BITS], strict=True)}
        dirty = {name: Cat(*(piece for low, piece in pieces.items() if low >= used_bits(name))).any() for name in kinds}
        m.d.comb += clean.eq(~Cat(*(kinds[name] & dirty[name] for name in kinds)).any())
        broken = []
        for name, of_kind in checks(self.machine).items():
            fields = data.View(instruction_layout(name), word[: instruction_layout(name).size])
            broken += [kinds[name] & ~check.gates(fields) for check in of_kind]
        m.d.comb += in_range.eq(~Cat(*broken).any())
        error = Signal(ERROR_BITS)
        with m.If(~known):
            m.d.comb += error.eq(ErrorCode.ILLEGAL_OPCODE)
        with m.Elif(~clean):
            m.d.comb += error.eq(ErrorCode.NONZERO_PADDING)
        with m.Elif(~in_range):
            m.d.comb += error.eq(ErrorCode.OUT_OF_RANGE)
        return error
