r"""The POST unit: drains of POST, LOSS and STATISTICS, with the engines that move their data.

    instructions -> setup -> walk -> runs of mask, places -> items wait -> drain -> words -> writers
                      |        \-> biases, random elements, sums ---------^   \-> sums -> narrow engines
                      next POST   POST that is read ahead                 POST that is drained       POST that is acknowledged

A POST is set up while the one before is walked, walked while that is drained, and drained while that waits for its
acknowledgements; at most two have begun to be walked and are not acknowledged. LOSS and STATISTICS run alone, and the first NG
waits for the last FF: it may read what that writes.
"""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import joined
from fixgrad.gateware.axi import MemoryPorts
from fixgrad.gateware.axi.burst import FaultKind
from fixgrad.gateware.axi.client import ReadPort, WritePort
from fixgrad.gateware.axi.streams import connect_payload
from fixgrad.gateware.control.counters import activity_layout
from fixgrad.gateware.control.layouts import INDEX_BITS, body, issued_layout
from fixgrad.gateware.control.step_table import TableRead
from fixgrad.gateware.control.supervisor import UNIT_FAULT
from fixgrad.gateware.elementwise.elementwise_unit import READERS
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.gateware.post.channel_data import channels_layout
from fixgrad.gateware.post.drain import END_CYCLES
from fixgrad.gateware.post.map_reader import MapReader
from fixgrad.gateware.post.parts import Parts, connect_elementwise, connect_engines, connect_streams
from fixgrad.gateware.post.plan import channels_of, lane_shift, plan_layout
from fixgrad.gateware.post.range_registers import RANGE_REPORT
from fixgrad.gateware.post.word_writer import WordWriter
from fixgrad.machine import Machine
from fixgrad.machine.elementwise_instructions import ELEMENTWISE_KINDS
from fixgrad.machine.instructions import BY_NAME, Unit
from fixgrad.machine.registers import Cause
from fixgrad.numbers import ACCUMULATOR_BITS


class DrainState(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What the drain is at: nothing, taking items, waiting until all has been measured, reporting it."""

    IDLE = 0
    RUN = 1
    SETTLE = 2
    REPORT = 3


class SumState(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What the sums of errors in memory are at: left alone, about to change, changing, and one wrapped."""

    IDLE = 0
    BEGIN = 1
    RUN = 2
    REPORT = 3


class PostUnit(wiring.Component):
    """See the module.

    Members, to the front end:
        instructions: in, stream. done: out, a pulse for each that has completed, in order, its writes acknowledged and its
            report accepted. activity: out, see `activity_layout`. fault: out, an access failed, and whose it was.
        base, limit, stop: in; quiet: out: see `fixgrad.gateware.axi.reader.Reader`.
    Members, to the other units:
        table: the step table's reader.
        drain, drain_address, drained: arrays of groups, see `fixgrad.gateware.pe.group.Group`.
        reports: in, array of streams of `RANGE_REPORT`: two for each group, of its UPDATE unit and of its COMPUTEs.
    Members, to the interconnect:
        read_ports, write_ports: arrays [engine][channel]: one for each post-processor and a narrow one; for reads, behind them, those
            of the elementwise unit's operands.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.memory = machine, MemoryPorts.of(machine)
        ports, groups, shape, engines = self.memory, machine.groups, PeShape.of(machine), machine.post_processors + 1
        operands = READERS if machine.elementwise_lanes else 0
        super().__init__(
            {
                "instructions": In(stream.Signature(issued_layout(Unit.POST, machine))),
                "done": Out(1),
                "activity": Out(activity_layout(Unit.POST, machine)),
                "fault": Out(stream.Signature(UNIT_FAULT, always_ready=True)),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "quiet": Out(1),
                "table": Out(TableRead()),
                "drain": Out(machine.pes_per_group).array(groups),
                "drain_address": Out(shape.lane_bits).array(groups),
                "drained": In(machine.lanes * ACCUMULATOR_BITS).array(groups),
                "reports": In(stream.Signature(RANGE_REPORT)).array(2 * groups),
                "read_ports": Out(ReadPort(ports)).array(engines + operands, ports.channels),
                "write_ports": Out(WritePort(ports)).array(engines, ports.channels),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        machine = self.machine
        self._parts = Parts.of(machine, len(self.reports))
        self._parts.add_to(m, platform)
        plan = plan_layout(machine)
        self._walked, self._drained = Signal(plan, name="walked"), Signal(plan, name="drained_plan")
        self._channels = Signal(channels_layout(machine), name="channels_read")
        self._summed = Signal(channels_layout(machine), name="channels_summed")
        # Which of two POSTs (a bit) is walked, drained, to be completed next, and has its sums written.
        self._of_walk, self._of_drain = Signal(name="of_walk", init=1), Signal(name="of_drain", init=1)
        self._of_done, self._of_sums = Signal(name="of_done"), Signal(name="of_sums")
        self._indices = [Signal(INDEX_BITS, name=f"index_{of}") for of in range(2)]
        self._alone, self._alone_index = Signal(name="alone"), Signal(INDEX_BITS, name="alone_index")
        self._measured, self._sum_state = Signal(2, name="measured"), Signal(SumState, name="sum_state")
        self._state, self._pending = Signal(DrainState, name="drain_state"), Signal(name="plan_pending")
        self._sums_wait = Signal(name="sums_wait")
        self._completes, self._launched = Signal(name="completes"), Signal(range(3), name="launched")

        self._take(m)
        launch = self._launch(m)
        self._begin_drain(m, launch)
        self._run_drain(m)
        self._run_sums(m)
        self._complete(m, launch)
        connect_streams(m, self, self._parts)
        connect_engines(m, self, self._parts, self._of_drain)
        connect_elementwise(m, self, self._parts, self._of_drain)
        self._report_faults(m)
        return m

    def _take(self, m: Module) -> None:
        """Instructions to the part that executes them. POSTs follow one another; the others are alone."""
        issued, in_flight, newest_ng, ended = self.instructions.payload, Signal(range(4)), Signal(), Signal()
        ng, is_post = body(issued, "POST").mode[0], issued.opcode == BY_NAME["POST"].opcode
        may_post = ~self._alone & ((in_flight == 0) | ((newest_ng == ng) & (in_flight != 3)))
        may_others = ~self._alone & (in_flight == 0)
        targets = [
            (self._parts.setup.instructions, is_post & may_post),
            (self._parts.loss.instruction, (issued.opcode == BY_NAME["LOSS"].opcode) & may_others),
            (self._parts.statistics.instruction, (issued.opcode == BY_NAME["STATISTICS"].opcode) & may_others),
        ]
        alone = [self._parts.loss.ended, self._parts.statistics.ended]
        if self._parts.elementwise is not None:
            is_elementwise = Cat(issued.opcode == kind.opcode for kind in ELEMENTWISE_KINDS).any()
            targets.append((self._parts.elementwise.instruction, is_elementwise & may_others))
            alone.append(self._parts.elementwise.ended)
        for target, goes in targets:
            m.d.comb += [target.payload.eq(issued), target.valid.eq(self.instructions.valid & goes)]
            with m.If(goes & target.ready):
                m.d.comb += self.instructions.ready.eq(1)
        takes = self.instructions.valid & self.instructions.ready
        with m.If(takes & is_post):
            m.d.sync += newest_ng.eq(ng)
        m.d.sync += in_flight.eq(in_flight + (takes & is_post) - self._completes)
        # Alone until its writes are acknowledged and its sums are settled.
        alone_ends = Signal()
        m.d.comb += alone_ends.eq(ended & self._parts.narrow.settled & (self._sum_state == SumState.IDLE))
        with m.If(takes & ~is_post):
            m.d.sync += [self._alone.eq(1), self._alone_index.eq(issued.index), ended.eq(0)]
        with m.Elif(alone_ends):
            m.d.sync += [self._alone.eq(0), ended.eq(0)]
        with m.Elif(joined(alone)):
            m.d.sync += ended.eq(1)
        m.d.comb += self.done.eq(self._completes | alone_ends)
        self._activity(m, in_flight)

    def _activity(self, m: Module, in_flight: Value) -> None:
        drain, works = self._parts.drain, Signal()
        alone: Value = self._alone
        working = drain.issued | drain.working | self._parts.loss.busy | self._parts.statistics.busy | (self._state.as_value()[1])
        if (elementwise := self._parts.elementwise) is not None:
            working = working | elementwise.working
            alone = alone & (~elementwise.requantised.active | elementwise.blocked)
        m.d.comb += works.eq(working)
        answers = (self._measured != 0) & (self._state == DrainState.IDLE) & ~self._pending
        activity = self.activity
        with m.If((in_flight != 0) | self._alone):
            with m.If(works):
                m.d.comb += activity[str(Cause.BUSY)].eq(1)
            with m.Elif(drain.blocked | answers | alone):
                m.d.comb += activity[str(Cause.BLOCKED)].eq(1)
            with m.Else():
                m.d.comb += activity[str(Cause.MEMORY)].eq(1)

    def _launch(self, m: Module) -> Signal:
        """A plan begins to be walked, and its data to be read ahead. Returns the pulse."""
        setup, walk, maps, reads, loss = self._parts.setup, self._parts.walk, self._parts.maps, self._parts.reads, self._parts.loss
        launch, launched, begun = Signal(), Signal(), Signal()
        free = ~walk.busy & ~maps.busy & ~reads.busy & ~self._pending & (self._launched != 2)
        m.d.comb += [launch.eq(setup.plan.valid & free), setup.plan.ready.eq(free)]
        m.d.sync += [launched.eq(launch), begun.eq(launched | loss.begin)]
        with m.If(launch):
            m.d.sync += [self._walked.eq(setup.plan.payload), self._of_walk.eq(~self._of_walk)]
            for of, index in enumerate(self._indices):
                with m.If(self._of_walk != of):
                    m.d.sync += index.eq(setup.plan.payload.index)
        walked, channels = self._walked, self._channels
        with m.If(launched):
            m.d.sync += [
                *(channels[name].eq(walked[name]) for name in ("table", "sums", "uses_table", "uses_sums", "all_channels")),
                *(channels.counts[index].eq(channels_of(walked, index)) for index in range(self.machine.post_processors)),
            ]
            with m.If(walked.empty):
                m.d.sync += [channels.uses_table.eq(0), channels.uses_sums.eq(0)]
        with m.Elif(loss.begin):
            m.d.sync += channels.eq(loss.channels)
        m.d.comb += [
            walk.plan.eq(walked),
            walk.begin.eq(launch),
            maps.plan.eq(walked),
            maps.begin.eq(launched),
            maps.of.eq(self._of_walk),
            reads.channels.eq(channels),
            reads.begin.eq(begun),
            reads.sums_settled.eq((self._sum_state == SumState.IDLE) | (self._of_sums == self._of_walk)),
        ]
        self._is_launched, self._begun = launched, Signal(name="is_new")
        m.d.comb += self._begun.eq(launched | begun)
        return launch

    def _begin_drain(self, m: Module, launch: Signal) -> None:
        """The plan that has been launched begins to be drained when the one before has been measured."""
        begins = Signal()
        m.d.comb += begins.eq(self._pending & ~self._begun & (self._state == DrainState.IDLE))
        with m.If(launch):
            m.d.sync += self._pending.eq(1)
        with m.Elif(begins):
            m.d.sync += self._pending.eq(0)
        with m.If(begins):
            m.d.sync += [self._drained.eq(self._walked), self._of_drain.eq(self._of_walk)]
        # Its sums may have to wait for those of the one before, its first errors need not.
        with m.If(begins & self._channels.uses_sums):
            m.d.sync += self._sums_wait.eq(1)
        with m.Elif(self._sum_state == SumState.IDLE):
            m.d.sync += self._sums_wait.eq(0)
        new = Signal()
        m.d.sync += new.eq(begins)
        m.d.comb += [self._parts.drain.begin.eq(new), self._parts.drain.plan.eq(self._drained)]
        self._drain_begun = new

    def _run_drain(self, m: Module) -> None:
        """Takes items, waits until the last one has been measured, reports."""
        drain, state, writers = self._parts.drain, self._state, self._parts.writers
        left, index = Signal(range(END_CYCLES + 64)), Signal(range(max(len(writers), 2)))
        report, measured = self._parts.ranges.reports[0], Signal()
        connect_payload(m, self._parts.maps.o, self._parts.items.i)
        m.d.comb += [
            drain.items.payload.eq(self._parts.items.o.payload),
            drain.items.valid.eq(self._parts.items.o.valid & (state == DrainState.RUN)),
            self._parts.items.o.ready.eq(drain.items.ready & (state == DrainState.RUN)),
            report.payload.register.eq(self._drained.statistics),
        ]
        statistics = Array(drain.statistics)[index]
        m.d.comb += [report.payload[name].eq(statistics[name]) for name in ("magnitudes", "saturated", "overflow")]
        with m.Switch(state):
            with m.Case(DrainState.IDLE), m.If(self._drain_begun):
                m.d.sync += state.eq(DrainState.RUN)
            with m.Case(DrainState.RUN), m.If(drain.ended):
                m.d.sync += [state.eq(DrainState.SETTLE), left.eq(END_CYCLES + self._drained.window)]
            with m.Case(DrainState.SETTLE):
                m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.d.comb += [writer.end.eq(1) for writer in writers]
                    m.d.sync += [state.eq(DrainState.REPORT), index.eq(0)]
            with m.Case(DrainState.REPORT):
                m.d.comb += report.valid.eq(1)
                with m.If(report.ready):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == len(writers) - 1):
                        m.d.comb += measured.eq(1)
                        m.d.sync += state.eq(DrainState.IDLE)
        for of in range(2):
            with m.If(measured & (self._of_drain == of)):
                m.d.sync += self._measured[of].eq(1)
            with m.Elif(self._completes & (self._of_done == of)):
                m.d.sync += self._measured[of].eq(0)

    def _run_sums(self, m: Module) -> None:
        """From the begin of a POST or LOSS with sums until they are in memory."""
        sums, state, report = self._parts.sums, self._sum_state, self._parts.ranges.reports[1]
        register = Signal(report.payload.register.shape())
        m.d.comb += [
            sums.channels.eq(self._summed),
            sums.begin.eq(state == SumState.BEGIN),
            report.valid.eq(state == SumState.REPORT),
            report.payload.register.eq(register),
            report.payload.overflow.eq(1),
        ]
        with m.Switch(state):
            with m.Case(SumState.IDLE):
                with m.If(self._sums_wait):
                    m.d.sync += [state.eq(SumState.BEGIN), register.eq(self._drained.statistics)]
                    m.d.sync += [self._summed.eq(self._channels), self._of_sums.eq(self._of_drain)]
                with m.Elif(self._parts.loss.begin & self._parts.loss.channels.uses_sums):
                    m.d.sync += [state.eq(SumState.BEGIN), register.eq(self._parts.loss.report.payload.register)]
                    m.d.sync += [self._summed.eq(self._parts.loss.channels), self._of_sums.eq(self._of_walk)]
            with m.Case(SumState.BEGIN):
                m.d.sync += state.eq(SumState.RUN)
            with m.Case(SumState.RUN), m.If(~sums.busy & self._parts.narrow.settled):
                m.d.sync += state.eq(Mux(sums.wrapped, SumState.REPORT, SumState.IDLE))
            with m.Case(SumState.REPORT), m.If(report.ready):
                m.d.sync += state.eq(SumState.IDLE)

    def _complete(self, m: Module, launch: Signal) -> None:
        """POSTs complete in order."""
        writers, of = self._parts.writers, self._of_done
        acknowledged = Cat(writer.completed.bit_select(of, 1) for writer in writers).all()
        sums_written = (self._sum_state == SumState.IDLE) | (self._of_sums != of)
        sums_written = sums_written & ~(self._sums_wait & (self._of_drain == of))
        m.d.comb += self._completes.eq(self._measured.bit_select(of, 1) & acknowledged & sums_written)
        m.d.sync += self._launched.eq(self._launched + launch - self._completes)
        with m.If(self._completes):
            m.d.sync += of.eq(~of)
            m.d.comb += [writer.forget.eq(Mux(of, 0b10, 0b01)) for writer in writers]

    def _report_faults(self, m: Module) -> None:
        """The first of those of a cycle, a cycle later. A map that does not begin at a word is one, too."""
        fault, walked, shift = self.fault.payload, self._walked, lane_shift(self.machine)
        narrow = Mux(self._alone, self._alone_index, Array(self._indices)[self._of_walk])
        summed = Mux(self._alone, self._alone_index, Array(self._indices)[self._of_sums])
        found = [(self._parts.narrow.read_fault, narrow), (self._parts.narrow.write_fault, summed)]
        engines: list[MapReader | WordWriter] = [*self._parts.readers, *self._parts.writers]
        found += [(each.fault, Array(self._indices)[each.fault_of]) for each in engines]
        if self._parts.elementwise is not None:
            found = [(each, Mux(self._alone, self._alone_index, index)) for each, index in found]
            found.append((self._parts.elementwise.fault, self._alone_index))
        m.d.sync += self.fault.valid.eq(Cat(each.valid for each, _ in found).any())
        for each, index in found:
            with m.If(each.valid):
                m.d.sync += [fault.fault.eq(each.payload), fault.index.eq(index)]
        uses = ((walked.mask, walked.uses_mask), (walked.places, walked.uses_places | walked.with_argmax), (walked.target, 1))
        for address, is_used in uses if shift else ():
            with m.If(self._is_launched & is_used & address[:shift].any()):
                m.d.sync += [self.fault.valid.eq(1), fault.index.eq(walked.index)]
                m.d.sync += [fault.fault.kind.eq(FaultKind.OUTSIDE), fault.fault.address.eq(address)]
