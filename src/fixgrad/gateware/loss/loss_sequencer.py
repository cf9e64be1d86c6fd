"""Executes LOSS: labels, three times the logits, errors back to memory, with a narrow engine for each direction."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.window import element_layout
from fixgrad.gateware.control.layouts import body, issued_layout
from fixgrad.gateware.control.step_table import TableRead
from fixgrad.gateware.loss.codes import ELEMENT_BYTES, Pack, Unpack
from fixgrad.gateware.loss.exponential import EXPONENTIAL_TABLE
from fixgrad.gateware.loss.loss_unit import LossUnit, Pass
from fixgrad.gateware.post.channel_data import channels_layout
from fixgrad.gateware.post.narrow_engines import TRANSFER
from fixgrad.gateware.post.plan import lane_shift
from fixgrad.gateware.post.range_registers import RANGE_REPORT
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit
from fixgrad.numbers import ACCUMULATOR_BITS

_LABEL_BYTES = 2


class State(enum.Enum, shape=3):  # type: ignore[call-arg]
    """What a LOSS is at. CHANNELS: its classes are made known as channels. REPORT: it is measured; the errors are written."""

    IDLE = 0
    TABLE = 1
    CHANNELS = 2
    LABELS = 3
    RUN = 4
    REPORT = 5


class LossSequencer(wiring.Component):
    """One LOSS at a time.

    Members:
        instruction: in, stream of LOSS, taken while not `busy` (out). ended: out, for one cycle: all errors have been handed on.
        table: the step table.
        channels: out, steady while busy; begin (out): the classes, as channels of post-processor 0.
        reads, values, writes, elements: see `NarrowEngines`.
        random: in, stream: first random elements of the classes. errors: out, {valid, sum}; sums_room: in; see `SumWrites`.
        report: out, stream of `RANGE_REPORT`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(
            {
                "instruction": In(stream.Signature(issued_layout(Unit.POST, machine))),
                "busy": Out(1),
                "ended": Out(1),
                "table": Out(TableRead()),
                "channels": Out(channels_layout(machine)),
                "begin": Out(1),
                "reads": Out(stream.Signature(TRANSFER)),
                "values": In(stream.Signature(element_layout(ELEMENT_BYTES))),
                "writes": Out(stream.Signature(TRANSFER)),
                "elements": Out(stream.Signature(32)),
                "random": In(stream.Signature(32)),
                "errors": Out(data.StructLayout({"valid": 1, "sum": ACCUMULATOR_BITS})),
                "sums_room": In(1),
                "report": Out(stream.Signature(RANGE_REPORT)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        issued, state = Signal(issued_layout(Unit.POST, self.machine)), Signal(State)
        loss = body(issued, "LOSS")
        m.submodules.unit = unit = LossUnit(self.machine, EXPONENTIAL_TABLE)
        m.d.comb += [self.instruction.ready.eq(state == State.IDLE), self.busy.eq(state != State.IDLE)]
        asked, written = Signal(), Signal()
        labels_taken, all_asked = Signal(), Signal()
        with m.Switch(state):
            with m.Case(State.IDLE), m.If(self.instruction.valid):
                m.d.sync += [issued.eq(self.instruction.payload), state.eq(State.TABLE), asked.eq(0)]
            with m.Case(State.TABLE):
                m.d.comb += self.table.index.valid.eq(~asked)
                with m.If(self.table.index.valid & self.table.index.ready):
                    m.d.sync += asked.eq(1)
                with m.If(self.table.entry.valid):
                    m.d.sync += state.eq(State.CHANNELS)
            with m.Case(State.CHANNELS):
                m.d.comb += self.begin.eq(1)
                m.d.sync += state.eq(State.LABELS)
            with m.Case(State.LABELS), m.If(labels_taken):
                m.d.comb += unit.begin.eq(1)
                m.d.sync += state.eq(State.RUN)
            with m.Case(State.RUN), m.If(written & ~unit.busy & all_asked):
                m.d.sync += state.eq(State.REPORT)
            with m.Case(State.REPORT):
                m.d.comb += self.report.valid.eq(1)
                with m.If(self.report.ready):
                    m.d.comb += self.ended.eq(1)
                    m.d.sync += state.eq(State.IDLE)
        self._settings(m, loss, unit)
        self._read(m, state, loss, unit, labels_taken, all_asked)
        self._write(m, state, loss, unit, written)
        return m

    def _settings(self, m: Module, loss: data.View, unit: LossUnit) -> None:
        entry, statistics, channels = self.table.entry.payload, unit.statistics, self.channels
        with m.If(self.table.entry.valid):
            names = ("frac", "shift", "stochastic", "key_low", "key_high")
            kept = {name: Signal.like(unit.loss[name], name=name) for name in names}
            m.d.sync += [register.eq(entry[name]) for name, register in kept.items()]
        m.d.comb += [
            self.table.index.payload.eq(loss.param),
            *(unit.loss[name].eq(register) for name, register in kept.items()),
            unit.loss.classes.eq(loss.classes),
            unit.loss.images.eq(loss.images),
            channels.table.eq(loss.element),
            channels.sums.eq(loss.bias_gradient),
            channels.uses_table.eq(kept["stochastic"] & (loss.images != 0)),
            channels.uses_sums.eq(loss.with_bias & (loss.images != 0)),
            channels.counts[0].eq(loss.classes),
            self.report.payload.register.eq(loss.statistics),
            *(self.report.payload[name].eq(statistics[name]) for name, _ in statistics.shape()),
            self.errors.valid.eq(unit.bias_sum_valid & loss.with_bias),
            self.errors.sum.eq(unit.bias_sum),
        ]

    def _read(self, m: Module, state: Signal, loss: data.View, unit: LossUnit, labels_taken: Signal, all_asked: Signal) -> None:
        """Labels, then the logits of each class, pass after pass. Lanes without an image are left out."""
        m.submodules.unpack = unpack = Unpack()
        wiring.connect(m, wiring.flipped(self.values), unpack.i)
        lanes, wide = self.machine.lanes, Signal()
        is_labels = state == State.LABELS
        m.d.comb += [wide.eq(loss.logit_bits > 8), unpack.wide.eq(is_labels | wide)]

        # What to ask for: of each pass all classes.
        class_, pass_, address, asked_labels = Signal(loss.classes.shape()), Signal(2), Signal.like(loss.logits), Signal()
        some, asks = (loss.classes != 0) & (loss.images != 0), Signal()
        m.d.comb += [
            all_asked.eq((pass_ == Pass.NONE) | ~some),
            self.reads.valid.eq(Mux(is_labels, ~asked_labels, (state == State.RUN) & ~all_asked)),
            self.reads.payload.address.eq(Mux(is_labels, loss.labels, address)),
            self.reads.payload.length.eq(Mux(is_labels | wide, _LABEL_BYTES * lanes, lanes)),
            asks.eq(self.reads.valid & self.reads.ready),
        ]
        with m.If(state == State.CHANNELS):
            m.d.sync += [class_.eq(0), pass_.eq(0), address.eq(loss.logits), asked_labels.eq(0)]
        with m.Elif(asks & is_labels):
            m.d.sync += asked_labels.eq(1)
        with m.Elif(asks & (class_ + 1 == loss.classes)):
            m.d.sync += [class_.eq(0), pass_.eq(pass_ + 1), address.eq(loss.logits)]
        with m.Elif(asks):
            m.d.sync += [class_.eq(class_ + 1), address.eq(address + Mux(wide, _LABEL_BYTES * lanes, lanes))]

        # What arrives: codes of all lanes, class by class.
        lane, classes, passes = Signal(range(lanes + 1)), Signal(loss.classes.shape()), Signal(2)
        has_image, is_last, moves, needs_random = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            has_image.eq(lane < loss.images),
            is_last.eq(lane == lanes - 1),
            needs_random.eq((passes == Pass.ERROR) & self.channels.uses_table),
            unit.logits.valid.eq((state == State.RUN) & unpack.o.valid & has_image & (~needs_random | self.random.valid)),
            unit.logits.payload.logit.eq(unpack.o.payload),
            unit.logits.payload.element.eq(self.random.payload + loss.random_image),
            unit.label.enable.eq(is_labels & unpack.o.valid & has_image),
            unit.label.lane.eq(lane),
            unit.label.label.eq(unpack.o.payload),
            unpack.o.ready.eq(is_labels | ~has_image | (unit.logits.valid & unit.logits.ready)),
            moves.eq(unpack.o.valid & unpack.o.ready),
            labels_taken.eq(is_labels & moves & is_last),
            self.random.ready.eq((state == State.RUN) & moves & is_last & needs_random),
        ]
        with m.If(state == State.CHANNELS):
            m.d.sync += [lane.eq(0), classes.eq(0), passes.eq(0)]
        with m.Elif(moves):
            m.d.sync += lane.eq(Mux(is_last, 0, lane + 1))
            with m.If(is_last & ~is_labels):
                m.d.sync += classes.eq(classes + 1)
                with m.If(classes + 1 == loss.classes):
                    m.d.sync += [classes.eq(0), passes.eq(passes + 1)]

    def _write(self, m: Module, state: Signal, loss: data.View, unit: LossUnit, written: Signal) -> None:
        """The errors of each class, with 0 for lanes without an image."""
        m.submodules.pack = pack = Pack()
        wiring.connect(m, pack.o, wiring.flipped(self.elements))
        lanes = self.machine.lanes
        class_, lane, within, moves = Signal(loss.classes.shape()), Signal(range(lanes + 1)), Signal(), Signal()
        has_image, is_last, runs = lane < loss.images, lane == lanes - 1, state == State.RUN
        # An error is taken only if the next sum of errors has room.
        error_here: Value = unit.errors.valid & (self.sums_room | ~self.channels.uses_sums)
        m.d.comb += [
            written.eq((class_ == loss.classes) & ~pack.o.valid),
            self.writes.valid.eq(runs & ~within & (class_ != loss.classes)),
            self.writes.payload.address.eq(loss.target + (class_ << lane_shift(self.machine))),
            self.writes.payload.length.eq(lanes),
            pack.i.valid.eq(within & (~has_image | error_here)),
            pack.i.payload.eq(Cat(Mux(has_image, unit.errors.payload.code.as_unsigned(), 0)[:8], is_last)),
            moves.eq(pack.i.valid & pack.i.ready),
            unit.errors.ready.eq(moves & has_image),
        ]
        with m.If(state == State.CHANNELS):
            m.d.sync += [class_.eq(0), lane.eq(0), within.eq(0)]
        with m.Elif(self.writes.valid & self.writes.ready):
            m.d.sync += within.eq(1)
        with m.Elif(moves):
            m.d.sync += lane.eq(Mux(is_last, 0, lane + 1))
            with m.If(is_last):
                m.d.sync += [within.eq(0), class_.eq(class_ + 1)]
