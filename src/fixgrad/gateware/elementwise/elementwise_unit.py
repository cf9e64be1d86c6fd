"""The elementwise unit: ELEMENTWISE, CHANNEL_SUMS and NORMALISE, one at a time.

    setup -> walk -> requests -> taps -> engine (lanes) -> POST's post-processor -> output -> POST's writer
                        |                  ^      \\-> channel totals -> narrow engine
                        '-> readers of four operands; coefficients of the channels
    normaliser <-> narrow engine

Requantisation is the post-processor's, whose lanes are idle meanwhile.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi import MemoryPorts
from fixgrad.gateware.axi.burst import FAULT, FaultKind
from fixgrad.gateware.axi.client import ReadPort
from fixgrad.gateware.axi.streams import connect_payload
from fixgrad.gateware.axi.window import element_layout
from fixgrad.gateware.control.layouts import body, issued_layout
from fixgrad.gateware.control.step_table import TableRead
from fixgrad.gateware.elementwise.channel_totals import ChannelTotals
from fixgrad.gateware.elementwise.coefficients import Coefficients
from fixgrad.gateware.elementwise.engine import OPERANDS, Engine
from fixgrad.gateware.elementwise.lane import ACCUMULATOR_CYCLE
from fixgrad.gateware.elementwise.normaliser import Normaliser
from fixgrad.gateware.elementwise.operand_reader import OperandReader
from fixgrad.gateware.elementwise.output import Output
from fixgrad.gateware.elementwise.requantised import requantised_layout
from fixgrad.gateware.elementwise.requests import Requests
from fixgrad.gateware.elementwise.setup import Setup
from fixgrad.gateware.elementwise.walk import Walk
from fixgrad.gateware.pe.sharing import shared
from fixgrad.gateware.post.narrow_engines import ELEMENT_BYTES, TRANSFER
from fixgrad.gateware.post.output import addressed_word
from fixgrad.gateware.post.plan import lane_shift
from fixgrad.gateware.post.post_lane import CODE_BITS
from fixgrad.gateware.post.post_processor import SETTLE_CYCLES, STATISTICS
from fixgrad.gateware.post.range_registers import RANGE_REPORT
from fixgrad.gateware.post.word_writer import DEPTH
from fixgrad.machine import Machine
from fixgrad.machine.instructions import BY_NAME, Unit

#: Engines that read operands.
READERS = len(OPERANDS)
#: Cycles from the last tap until all is measured and its last word has left.
_SETTLE = ACCUMULATOR_CYCLE + SETTLE_CYCLES + 8


class State(enum.Enum, shape=3):  # type: ignore[call-arg]
    """What an instruction is at. SETTLE: its last tap is taken. ACKNOWLEDGE: its words are being acknowledged."""

    IDLE = 0
    SETUP = 1
    RUN = 2
    SETTLE = 3
    REPORT = 4
    ACKNOWLEDGE = 5
    NORMALISE = 6


class ElementwiseUnit(wiring.Component):
    """See the module.

    Members:
        instruction: in, stream, taken while the unit is idle. ended: out, for one cycle: all words are acknowledged, and what goes
            through the narrow engine has been handed on. working: out, something moves. blocked: out, words wait to be written.
        table: the step table. report: out, stream of `RANGE_REPORT`.
        reads, values, writes, elements: see `NarrowEngines`.
        requantised: out, see `requantised_layout`; codes, statistics: in, of the post-processor.
        word: out; room: in; end, close, forget: out; completed: in: see `WordWriter`, of its instruction.
        base, limit, stop, quiet: see `fixgrad.gateware.axi.reader.Reader`. fault: out.
        read_ports: array [operand][channel].
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.memory = machine, MemoryPorts.of(machine)
        ports = self.memory
        super().__init__(
            {
                "instruction": In(stream.Signature(issued_layout(Unit.POST, machine))),
                **dict.fromkeys(("ended", "working", "blocked"), Out(1)),
                "table": Out(TableRead()),
                "report": Out(stream.Signature(RANGE_REPORT)),
                "reads": Out(stream.Signature(TRANSFER)),
                "values": In(stream.Signature(element_layout(ELEMENT_BYTES))),
                "writes": Out(stream.Signature(TRANSFER)),
                "elements": Out(stream.Signature(8 * ELEMENT_BYTES)),
                "requantised": Out(requantised_layout(machine)),
                "codes": In(CODE_BITS * machine.lanes),
                "statistics": In(STATISTICS),
                "word": Out(addressed_word(machine)),
                "room": In(range(DEPTH + 1)),
                **dict.fromkeys(("end", "close", "forget"), Out(1)),
                "completed": In(1),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "fault": Out(stream.Signature(FAULT, always_ready=True)),
                "quiet": Out(1),
                "read_ports": Out(ReadPort(ports)).array(READERS, ports.channels),
            }
        )

    @property
    def shape(self) -> Machine:
        """What tells it from other units: see `fixgrad.gateware.pe.sharing`."""
        return self.machine

    def elaborate(self, platform: object) -> Module:
        m = Module()
        machine = self.machine
        m.submodules.setup = self._setup = Setup(machine)
        m.submodules.walk = self._walk = Walk(machine)
        m.submodules.requests = self._requests = Requests(machine)
        m.submodules.engine = self._engine = Engine(machine)
        m.submodules.output = self._output = Output(machine)
        m.submodules.coefficients = self._coefficients = Coefficients()
        m.submodules.totals = self._totals = ChannelTotals(machine)
        m.submodules.normaliser = self._normaliser = Normaliser()
        self._issued, self._state = Signal(issued_layout(Unit.POST, machine), name="issued"), Signal(State, name="state")
        self._run(m)
        self._connect_setup(m)
        self._connect_narrow(m)
        self._connect_engine(m)
        self._connect_post(m)
        faults = self._connect_readers(m, platform)
        self._report_faults(m, faults)
        return m

    def _run(self, m: Module) -> None:
        """From taking an instruction until it has ended."""
        issued, state, setup, engine = self._issued, self._state, self._setup, self._engine
        self._starts = starts = Signal(name="starts")
        is_sums, measured = setup.arithmetic.sums, body(issued, "ELEMENTWISE").measured
        left, takes = Signal(range(_SETTLE + 1)), Signal()
        m.d.comb += [
            self.instruction.ready.eq(state == State.IDLE),
            takes.eq(self.instruction.valid & self.instruction.ready),
            self.working.eq(
                engine.issued | (state == State.SETUP) | (state == State.SETTLE) | (state == State.NORMALISE)
            ),
            self.blocked.eq(engine.blocked | (state == State.ACKNOWLEDGE)),
            # Words that wait for longer bursts do not wait for a lane that is held up.
            self.close.eq(engine.blocked),
        ]
        begins, is_scalar = Signal(), Signal()
        m.d.sync += begins.eq(takes)
        m.d.comb += [
            is_scalar.eq(issued.opcode == BY_NAME["NORMALISE"].opcode),
            setup.begin.eq(begins & ~is_scalar),
            self._normaliser.begin.eq(begins & is_scalar),
        ]
        with m.Switch(state):
            with m.Case(State.IDLE), m.If(takes):
                m.d.sync += [issued.eq(self.instruction.payload), state.eq(State.SETUP)]
            with m.Case(State.SETUP):
                with m.If(begins & is_scalar):
                    m.d.sync += state.eq(State.NORMALISE)
                with m.Elif(setup.done & ~begins):
                    m.d.comb += starts.eq(1)
                    m.d.sync += state.eq(State.RUN)
            with m.Case(State.NORMALISE), m.If(~self._normaliser.busy):
                m.d.comb += self.ended.eq(1)
                m.d.sync += state.eq(State.IDLE)
            with m.Case(State.RUN), m.If(engine.ended | setup.plan.empty):
                m.d.sync += [state.eq(State.SETTLE), left.eq(_SETTLE)]
            with m.Case(State.SETTLE):
                m.d.sync += left.eq(left - 1)
                with m.If((left == 0) & ~self._totals.busy):
                    m.d.comb += self.end.eq(~is_sums)
                    m.d.sync += state.eq(Mux(is_sums | ~measured, State.ACKNOWLEDGE, State.REPORT))
                with m.Elif(left == 0):
                    m.d.sync += left.eq(0)
            with m.Case(State.REPORT):
                m.d.comb += self.report.valid.eq(1)
                with m.If(self.report.ready):
                    m.d.sync += state.eq(State.ACKNOWLEDGE)
            with m.Case(State.ACKNOWLEDGE), m.If(is_sums | self.completed):
                m.d.comb += [self.ended.eq(1), self.forget.eq(~is_sums)]
                m.d.sync += state.eq(State.IDLE)
        m.d.comb += self.report.payload.register.eq(body(issued, "ELEMENTWISE").statistics)
        m.d.comb += [self.report.payload[name].eq(self.statistics[name]) for name, _ in STATISTICS]

    def _connect_setup(self, m: Module) -> None:
        """What the parts that walk and fetch are told."""
        setup, walk, coefficients, totals = self._setup, self._walk, self._coefficients, self._totals
        of_map, of_sums, plan = body(self._issued, "ELEMENTWISE"), body(self._issued, "CHANNEL_SUMS"), setup.plan
        m.d.comb += [
            setup.instruction.eq(self._issued),
            walk.plan.eq(plan),
            walk.begin.eq(self._starts),
            coefficients.begin.eq(self._starts & ~plan.sums & ~plan.empty),
            coefficients.channels.eq(plan.channels),
            coefficients.constants.eq(setup.constants),
            coefficients.per_channel.eq(of_map.per_channel),
            coefficients.record.eq(of_map.record),
            coefficients.stochastic.eq(setup.arithmetic.setting.stochastic),
            coefficients.element.eq(of_map.element),
            totals.begin.eq(self._starts & plan.sums & ~plan.empty),
            totals.channels.eq(plan.channels),
            totals.products.eq(of_sums.products),
            totals.target.eq(of_sums.target),
        ]

    def _connect_narrow(self, m: Module) -> None:
        """Step table and narrow engine: the normaliser's while it is busy, else of the other parts."""
        normaliser, coefficients, totals, setup = self._normaliser, self._coefficients, self._totals, self._setup
        m.d.comb += normaliser.instruction.eq(body(self._issued, "NORMALISE"))
        for mine, user in ((normaliser.busy, normaliser), (~normaliser.busy, setup)):
            m.d.comb += [
                user.table.entry.valid.eq(self.table.entry.valid & mine),
                user.table.entry.payload.eq(self.table.entry.payload),
            ]
            with m.If(mine):
                connect_payload(m, user.table.index, self.table.index)
        with m.If(normaliser.busy):
            connect_payload(m, normaliser.reads, self.reads)
            connect_payload(m, self.values, normaliser.values)
            connect_payload(m, normaliser.writes, self.writes)
            connect_payload(m, normaliser.elements, self.elements)
        with m.Else():
            connect_payload(m, coefficients.reads, self.reads)
            connect_payload(m, self.values, coefficients.values)
            connect_payload(m, totals.writes, self.writes)
            connect_payload(m, totals.elements, self.elements)

    def _connect_engine(self, m: Module) -> None:
        """Taps, coefficients and sums."""
        setup, requests, engine, plan = self._setup, self._requests, self._engine, self._setup.plan
        connect_payload(m, self._walk.taps, requests.i)
        connect_payload(m, requests.o, engine.taps)
        connect_payload(m, self._coefficients.o, engine.coefficients)
        m.d.comb += [
            requests.plan.eq(plan),
            requests.walking.eq(self._walk.busy),
            requests.starved.eq(engine.starved),
            engine.arithmetic.eq(setup.arithmetic),
            *(getattr(engine, name).eq(plan[name]) for name in ("uses_second", "uses_mask", "uses_argmax")),
            engine.room.eq(self.room),
            engine.left.eq(self.word.valid),
            engine.sums_room.eq(self._totals.room),
            self._totals.sums.eq(engine.sums),
        ]

    def _connect_post(self, m: Module) -> None:
        """Through the post-processor to the writer."""
        setup, engine, output, out = self._setup, self._engine, self._output, self.requantised
        of_map, pixel = body(self._issued, "ELEMENTWISE"), self._engine.pixel
        m.d.comb += [
            out.active.eq(self._state != State.IDLE),
            out.begin.eq(self._starts),
            out.valid.eq(pixel.valid),
            out.setting.eq(setup.arithmetic.setting),
            out.images.eq(setup.arithmetic.images),
            out.accumulators.eq(pixel.accumulators),
            out.activations.eq(Cat(Cat(bit, Cat([0] * 7)) for bit in pixel.open)),
            out.element.eq(pixel.element),
            output.valid.eq(pixel.valid),
            output.target.eq(pixel.target),
            output.codes.eq(self.codes),
            output.winners.eq(engine.winners),
            output.base.eq(of_map.target),
            output.argmax.eq(of_map.argmax),
            output.wide.eq(setup.arithmetic.wide),
            output.with_argmax.eq(setup.arithmetic.with_argmax),
            self.word.eq(output.word),
        ]

    def _connect_readers(self, m: Module, platform: object) -> list[stream.Interface]:
        """One for each operand; returns their faults."""
        of_map, of_sums, setup = body(self._issued, "ELEMENTWISE"), body(self._issued, "CHANNEL_SUMS"), self._setup
        is_sums, arithmetic = setup.arithmetic.sums, setup.arithmetic
        bases = (Mux(is_sums, of_sums.first, of_map.first), of_map.argmax, Mux(is_sums, of_sums.second, of_map.second), of_map.mask)
        wide = {"first": arithmetic.first_wide, "second": arithmetic.second_wide}
        readers = [OperandReader(self.machine, 2 if name in wide else 1) for name in OPERANDS]
        for index, (name, reader) in enumerate(zip(OPERANDS, readers, strict=True)):
            m.submodules[f"{name}_reader"] = shared(reader, platform)
            connect_payload(m, self._requests.offsets[index], reader.offsets)
            connect_payload(m, reader.words, getattr(self._engine, name))
            m.d.comb += [
                reader.base.eq(bases[index]),
                reader.wide.eq(wide.get(name, 0)),
                reader.flush.eq(self._requests.flush[index]),
                reader.low.eq(self.base),
                reader.limit.eq(self.limit),
                reader.stop.eq(self.stop),
            ]
            for mine, inner in zip(self.read_ports[index], reader.port, strict=True):
                wiring.connect(m, wiring.flipped(mine), inner)
        m.d.comb += self.quiet.eq(Cat(reader.quiet for reader in readers).all())
        return [reader.fault for reader in readers]

    def _report_faults(self, m: Module, faults: list[stream.Interface]) -> None:
        """The first of those of a cycle. A map that does not begin at a word is one, too."""
        fault, shift, plan = self.fault, lane_shift(self.machine), self._setup.plan
        of_map, of_sums = body(self._issued, "ELEMENTWISE"), body(self._issued, "CHANNEL_SUMS")
        uses = (
            (of_map.target, ~plan.sums),
            (of_map.argmax, plan.uses_argmax | (~plan.sums & self._setup.arithmetic.with_argmax)),
            (of_map.mask, plan.uses_mask),
            (Mux(plan.sums, of_sums.second, of_map.second), plan.uses_second),
            (Mux(plan.sums, of_sums.first, of_map.first), plan.uses_first),
        )
        for address, is_used in uses if shift else ():
            with m.If(self._starts & ~plan.empty & is_used & address[:shift].any()):
                m.d.comb += [fault.valid.eq(1), fault.payload.kind.eq(FaultKind.OUTSIDE), fault.payload.address.eq(address)]
        for each in reversed(faults):
            with m.If(each.valid):
                m.d.comb += [fault.valid.eq(1), fault.payload.eq(each.payload)]
