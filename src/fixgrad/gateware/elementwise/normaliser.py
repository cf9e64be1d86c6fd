"""Executes NORMALISE: records, gammas and betas from memory through the scalar unit and back, a channel at a time.

The next channel is read, and the one before is written, while one is computed.
"""

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.window import element_layout
from fixgrad.gateware.control.layouts import body_layout, elementwise_entry_layout
from fixgrad.gateware.control.step_table import TableRead
from fixgrad.gateware.elementwise.scalar_program import INPUTS, REGISTERS
from fixgrad.gateware.elementwise.scalar_unit import BITS, SCALARS, ScalarUnit
from fixgrad.gateware.post.narrow_engines import ELEMENT_BYTES, TRANSFER
from fixgrad.machine.elementwise_instructions import NORMALISE_EVALUATION, NORMALISE_FF, NORMALISE_NG, RECORD, RECORD_BYTES
from fixgrad.machine.instructions import ADDRESS_BITS

_MODES = (NORMALISE_FF, NORMALISE_NG, NORMALISE_EVALUATION)
_PLACES = {item.name: item.offset // 8 for item in RECORD}
#: Bits of a number of 4-byte elements of a transfer.
_ELEMENT_COUNT_BITS = 6


@dataclass(frozen=True, slots=True)
class _Span:
    """Fields of a record that follow one another: the first, and one behind the last."""

    first: int
    end: int

    @property
    def elements(self) -> int:
        return 2 * (self.end - self.first)


#: What is read, and written, of a record in each mode.
_READ = {
    NORMALISE_FF: _Span(0, len(RECORD)),
    NORMALISE_NG: _Span(0, _PLACES["spread"] + 1),
    NORMALISE_EVALUATION: _Span(_PLACES["running_mean"], len(RECORD)),
}
_WRITTEN = {
    NORMALISE_FF: _Span(_PLACES["a"], len(RECORD)),
    NORMALISE_NG: _Span(_PLACES["a"], _PLACES["c"] + 1),
    NORMALISE_EVALUATION: _Span(_PLACES["a"], _PLACES["spread"] + 1),
}


def _by_mode(mode: Value, values: dict[int, int]) -> Value:
    return Array([values.get(number, values[NORMALISE_FF]) for number in range(4)])[mode]


class Normaliser(wiring.Component):
    """One instruction at a time.

    Members:
        instruction: in, its body, steady while busy. begin: in, a pulse. busy: out; all has been handed on when it ends.
        table: the step table. reads, values, writes, elements: see `NarrowEngines`.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "instruction": In(body_layout("NORMALISE")),
                "begin": In(1),
                "busy": Out(1),
                "table": Out(TableRead()),
                "reads": Out(stream.Signature(TRANSFER)),
                "values": In(stream.Signature(element_layout(ELEMENT_BYTES))),
                "writes": Out(stream.Signature(TRANSFER)),
                "elements": Out(stream.Signature(8 * ELEMENT_BYTES)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = unit = ScalarUnit()
        of, entry = self.instruction, data.View(elementwise_entry_layout(), Value.cast(self.table.entry.payload))
        asked, answered = Signal(), Signal()
        kept = Signal(SCALARS)
        m.d.comb += [
            self.table.index.valid.eq(self.busy & ~asked),
            self.table.index.payload.eq(of.param),
            unit.mode.eq(of.mode),
            unit.scalars.eq(kept),
            kept.count.eq(of.count),
            kept.average.eq(of.average),
        ]
        names = ("epsilon", "factor_left", "offset_left", "mean_left", "variance_left")
        scalars = {name: Signal.like(kept[name], name=name) for name in names}
        m.d.comb += [kept[name].eq(register) for name, register in scalars.items()]
        with m.If(self.table.index.valid & self.table.index.ready):
            m.d.sync += asked.eq(1)
        with m.If(self.table.entry.valid):
            m.d.sync += [answered.eq(1), *(register.eq(entry[name]) for name, register in scalars.items())]
        with m.If(self.begin):
            m.d.sync += [self.busy.eq(of.channels != 0), asked.eq(0), answered.eq(0)]
        # Banks of inputs that hold a channel, and of results that are not written yet.
        filled, full = Signal(2), Signal(2)
        fills = self._fetch(m, unit, filled)
        ended, bank = self._compute(m, unit, answered, filled, full)
        written, last = self._store(m, unit, full)
        for number in range(2):
            with m.If(fills == 1 << number):
                m.d.sync += filled[number].eq(1)
            with m.Elif(ended & (bank == number)):
                m.d.sync += filled[number].eq(0)
            with m.If(ended & (bank == number)):
                m.d.sync += full[number].eq(1)
            with m.Elif(written == 1 << number):
                m.d.sync += full[number].eq(0)
        with m.If(last):
            m.d.sync += self.busy.eq(0)
        return m

    def _fetch(self, m: Module, unit: ScalarUnit, filled: Value) -> Signal:
        """Asks for what each channel needs, and puts it away. Returns a bit for the bank that becomes full."""
        of, ng = self.instruction, self.instruction.mode == NORMALISE_NG
        left, number = Signal.like(of.channels, name="unasked"), Signal(2)
        addresses = [Signal(ADDRESS_BITS, name=f"read_{name}") for name in ("record", "gamma", "beta")]
        steps = (RECORD_BYTES, ELEMENT_BYTES, ELEMENT_BYTES)
        first = _by_mode(of.mode, {mode: span.first for mode, span in _READ.items()})
        elements = _by_mode(of.mode, {mode: span.elements for mode, span in _READ.items()})
        is_last = number == Mux(ng, 1, 2)
        m.d.comb += [
            self.reads.valid.eq(left != 0),
            self.reads.payload.address.eq(Array(addresses)[number]),
            self.reads.payload.length.eq(Mux(number == 0, elements * ELEMENT_BYTES, ELEMENT_BYTES)),
        ]
        with m.If(self.reads.valid & self.reads.ready):
            m.d.sync += number.eq(Mux(is_last, 0, number + 1))
            m.d.sync += [Array(addresses)[number].eq(Array(addresses)[number] + Array(steps)[number])]
            with m.If(is_last):
                m.d.sync += left.eq(left - 1)
        with m.If(self.begin):
            m.d.sync += [left.eq(of.channels), number.eq(0)]
            m.d.sync += [addresses[0].eq(of.record + 8 * first), addresses[1].eq(of.gamma), addresses[2].eq(of.beta)]

        # Words as they arrive: two for each field, then gamma and beta with their sign.
        bank, place, is_upper, lower, fills = Signal(), Signal(4), Signal(), Signal(32), Signal(2)
        value, is_field = self.values.payload.data, Signal()
        gamma, beta = (INPUTS.index(name) for name in ("gamma", "beta"))
        end = _by_mode(of.mode, {mode: span.end for mode, span in _READ.items()})
        moves = self.values.valid & self.values.ready
        ends = place == Mux(ng, gamma, beta)
        m.d.comb += [
            self.values.ready.eq(~filled.bit_select(bank, 1)),
            is_field.eq(place < gamma),
            unit.write.enable.eq(moves & (~is_field | is_upper)),
            unit.write.bank.eq(bank),
            unit.write.place.eq(place),
            unit.write.value.eq(Mux(is_field, Cat(lower, value), Cat(value, value[31].replicate(32)))),
            fills.eq(Mux(moves & ends, Mux(bank, 0b10, 0b01), 0)),
        ]
        with m.If(moves):
            m.d.sync += [lower.eq(value), is_upper.eq(is_field & ~is_upper)]
            with m.If(ends):
                m.d.sync += [place.eq(first), bank.eq(~bank)]
            with m.Elif(~is_field):
                m.d.sync += place.eq(beta)
            with m.Elif(is_upper):
                m.d.sync += place.eq(Mux(place + 1 == end, gamma, place + 1))
        with m.If(self.begin):
            m.d.sync += [place.eq(first), bank.eq(0), is_upper.eq(0)]
        return fills

    def _compute(
        self, m: Module, unit: ScalarUnit, answered: Value, filled: Value, full: Value
    ) -> tuple[Signal, Signal]:
        """A channel that is there, into a bank that is free. Returns the pulse of its end, and the bank."""
        bank, runs, begins, ended = Signal(name="computed_bank"), Signal(), Signal(), Signal()
        m.d.comb += [
            begins.eq(self.busy & answered & ~runs & filled.bit_select(bank, 1) & ~full.bit_select(bank, 1)),
            ended.eq(runs & ~unit.busy),
            unit.begin.eq(begins),
            unit.bank.eq(bank),
        ]
        with m.If(begins):
            m.d.sync += runs.eq(1)
        with m.Elif(ended):
            m.d.sync += [runs.eq(0), bank.eq(~bank)]
        with m.If(self.begin):
            m.d.sync += bank.eq(0)
        return ended, bank

    def _store(self, m: Module, unit: ScalarUnit, full: Value) -> tuple[Signal, Signal]:
        """Writes the results. Returns a bit for the bank that becomes free, and the end of the last channel."""
        of, ng = self.instruction, self.instruction.mode == NORMALISE_NG
        left, number, within = Signal.like(of.channels, name="unwritten"), Signal(2), Signal()
        bank, element = Signal(name="written_bank"), Signal(_ELEMENT_COUNT_BITS)
        addresses = [Signal(ADDRESS_BITS, name=f"write_{name}") for name in ("record", "gamma", "beta")]
        steps = (RECORD_BYTES, ELEMENT_BYTES, ELEMENT_BYTES)
        elements = Mux(number == 0, _by_mode(of.mode, {mode: span.elements for mode, span in _WRITTEN.items()}), 1)
        is_last, ends_channel, written, last = element + 1 == elements, number == Mux(ng, 2, 0), Signal(2), Signal()
        gradients = [REGISTERS[name] for name in ("a", "gamma_gradient", "beta_gradient")]
        moves = self.elements.valid & self.elements.ready
        m.d.comb += [
            self.writes.valid.eq(full.bit_select(bank, 1) & ~within),
            self.writes.payload.address.eq(Array(addresses)[number]),
            self.writes.payload.length.eq(elements * ELEMENT_BYTES),
            unit.result.bank.eq(bank),
            unit.result.place.eq(Array(gradients)[number] + element[1:]),
            self.elements.valid.eq(within),
            self.elements.payload.eq(unit.value.word_select(element[0], BITS // 2)),
            written.eq(Mux(moves & is_last & ends_channel, Mux(bank, 0b10, 0b01), 0)),
            last.eq((written != 0) & (left == 1)),
        ]
        with m.If(self.writes.valid & self.writes.ready):
            m.d.sync += [within.eq(1), element.eq(0)]
            m.d.sync += Array(addresses)[number].eq(Array(addresses)[number] + Array(steps)[number])
        with m.If(moves):
            m.d.sync += element.eq(element + 1)
            with m.If(is_last):
                m.d.sync += [within.eq(0), number.eq(Mux(ends_channel, 0, number + 1))]
            with m.If(is_last & ends_channel):
                m.d.sync += [left.eq(left - 1), bank.eq(~bank)]
        with m.If(self.begin):
            m.d.sync += [left.eq(of.channels), bank.eq(0), number.eq(0), within.eq(0)]
            m.d.sync += [addresses[0].eq(of.record + 8 * _WRITTEN[NORMALISE_FF].first)]
            m.d.sync += [addresses[1].eq(of.gamma_gradient), addresses[2].eq(of.beta_gradient)]
        return written, last
