"""Everything in front of the units: control port, fetch, decoding, dispatch, counters, start and stop."""

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.burst import MemoryPorts
from fixgrad.gateware.axi.client import ReadPort
from fixgrad.gateware.axi.streams import connect_payload
from fixgrad.gateware.control.counters import Counters, activity_layout
from fixgrad.gateware.control.decode import Decode
from fixgrad.gateware.control.dispatch import Dispatch
from fixgrad.gateware.control.fetch import Fetch
from fixgrad.gateware.control.layouts import INDEX_BITS, WAIT_UNITS, issued_layout
from fixgrad.gateware.control.oldest import Oldest
from fixgrad.gateware.control.register_block import RegisterBlock
from fixgrad.gateware.control.supervisor import UNIT_FAULT, Supervisor
from fixgrad.machine import Machine, identity
from fixgrad.machine.encoding import DIGEST_DIGITS
from fixgrad.machine.instructions import Unit
from fixgrad.machine.registers import ErrorCode, register

_GROUP_UNITS = (Unit.COMPUTE, Unit.UPDATE)


class FrontEnd(wiring.Component):
    """The machine without its units and its memory ports.

    Members, to the host:
        s_axi: AXI4-Lite control port. irq: interrupt, high until its cause is cleared.
    Members, to each unit U (load, compute, post, update; of compute and update an array of groups):
        U: instructions, in order, each when its waits are met; see `fixgrad.gateware.control.layouts`.
        U_done: a pulse for each instruction that has completed; of a unit that writes, when the memory has acknowledged all.
        U_activity: what the unit does in this cycle, see `activity_layout`; all zero while it executes nothing.
        U_fault: an access of the unit failed (not of compute, which has none).
        compute_head_valid: of each group, `compute` shows an instruction that may be prepared but not begun.
    Members, to all DMA engines:
        base, limit, stop: see `BurstSplitter`. quiet: all of them are.
        reset: no program runs: units are to be held in reset.
    Members, to a test bench:
        completes: of each unit, an instruction completes, of compute and update in the slowest group.
    Members, to the interconnect:
        fetch: read ports of the fetch engine, one for each channel.
        read_beats, written_beats: moved in this cycle.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.memory = machine, MemoryPorts.of(machine)
        self.registers = RegisterBlock(machine)
        ports, groups = self.memory, machine.groups
        members = {
            "s_axi": self.registers.signature.members["bus"],
            "irq": Out(1),
            "compute_head_valid": Out(groups),
            "base": Out(ports.address_bits),
            "limit": Out(ports.address_bits + 1),
            "stop": Out(1),
            "quiet": In(1),
            "reset": Out(1),
            "completes": Out(data.StructLayout({str(unit): 1 for unit in WAIT_UNITS})),
            "fetch": Out(ReadPort(ports)).array(ports.channels),
            "read_beats": In(range(ports.channels + 1)),
            "written_beats": In(range(ports.channels + 1)),
        }
        for unit in WAIT_UNITS:
            issued, activity = Out(stream.Signature(issued_layout(unit, machine))), In(activity_layout(unit, machine))
            members[str(unit)] = issued.array(groups) if unit in _GROUP_UNITS else issued
            members[f"{unit}_activity"] = activity.array(groups) if unit is Unit.COMPUTE else activity
            members[f"{unit}_done"] = In(groups if unit in _GROUP_UNITS else 1)
            if unit is not Unit.COMPUTE:
                members[f"{unit}_fault"] = In(stream.Signature(UNIT_FAULT, always_ready=True))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.registers = registers = self.registers
        m.submodules.supervisor = supervisor = Supervisor(self.memory)
        m.submodules.counters = counters = Counters(self.machine)
        fetch, decode, dispatch = Fetch(self.memory), Decode(self.machine), Dispatch(self.machine)
        for name, part in (("fetcher", fetch), ("decode", decode), ("dispatch", dispatch)):
            m.submodules[name] = ResetInserter(supervisor.reset)(part)
        self._host(m, registers, supervisor)
        self._memory(m, registers, supervisor, fetch)
        connect_payload(m, fetch.o, decode.i)
        connect_payload(m, decode.o, dispatch.i)
        self._units(m, dispatch, counters)
        self._supervise(m, registers, supervisor, fetch, dispatch)
        self._show(m, registers, supervisor, counters, fetch, dispatch)
        return m

    def _host(self, m: Module, registers: RegisterBlock, supervisor: Supervisor) -> None:
        wiring.connect(m, wiring.flipped(self.s_axi), registers.bus)
        expected = registers.setting("EXPECTED_IDENTITY")[: 4 * DIGEST_DIGITS]
        m.d.comb += [
            supervisor.start.eq(registers.CONTROL_start),
            supervisor.abort.eq(registers.CONTROL_abort),
            supervisor.program.eq(registers.setting("PROGRAM")),
            supervisor.length.eq(registers.setting("PROGRAM_LENGTH")),
            supervisor.timeout.eq(registers.setting("TIMEOUT")),
            supervisor.identity_matches.eq(expected == int(identity(self.machine), 16)),
            registers.busy.eq(supervisor.busy),
            self.irq.eq((registers.INTERRUPT_STATUS & registers.INTERRUPT_ENABLE).any()),
        ]

    def _memory(self, m: Module, registers: RegisterBlock, supervisor: Supervisor, fetch: Fetch) -> None:
        m.d.comb += [
            self.base.eq(registers.setting("MEMORY_BASE")),
            self.limit.eq(registers.setting("MEMORY_LIMIT")),
            self.stop.eq(supervisor.stop),
            self.reset.eq(supervisor.reset),
            fetch.base.eq(self.base),
            fetch.limit.eq(self.limit),
            fetch.stop.eq(self.stop),
            fetch.start.eq(supervisor.begin),
            fetch.address.eq(supervisor.program),
            fetch.count.eq(supervisor.length),
        ]
        for mine, inner in zip(self.fetch, fetch.port, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)

    def _units(self, m: Module, dispatch: Dispatch, counters: Counters) -> None:
        m.d.comb += self.compute_head_valid.eq(dispatch.compute_head_valid)
        counts = Signal.like(dispatch.completed, name="counts_before")
        m.d.sync += counts.eq(dispatch.completed)
        m.d.comb += [self.completes[str(unit)].eq(dispatch.completed[str(unit)][0] != counts[str(unit)][0]) for unit in WAIT_UNITS]
        for unit in WAIT_UNITS:
            mine, inner = getattr(self, str(unit)), getattr(dispatch, str(unit))
            pairs = zip(mine, inner, strict=True) if unit in _GROUP_UNITS else [(mine, inner)]
            for out, queue in pairs:
                connect_payload(m, queue, out)
            activity, counted = getattr(self, f"{unit}_activity"), getattr(counters, str(unit))
            for now, to in zip(activity, counted, strict=True) if unit is Unit.COMPUTE else [(activity, counted)]:
                m.d.comb += to.eq(now)
            m.d.comb += [
                getattr(dispatch, f"{unit}_done").eq(getattr(self, f"{unit}_done")),
                getattr(counters, f"{unit}_waiting").eq(getattr(dispatch, f"{unit}_waiting")),
            ]

    def _supervise(self, m: Module, registers: RegisterBlock, supervisor: Supervisor, fetch: Fetch, dispatch: Dispatch) -> None:
        m.submodules.oldest = oldest = self._oldest(m, supervisor, dispatch)
        dispatched = Signal(INDEX_BITS)
        ends = Signal()  # every instruction of the program has been dispatched, and none was HALT
        takes = dispatch.i.valid & dispatch.i.ready
        with m.If(supervisor.clear):
            m.d.sync += dispatched.eq(0)
        with m.Elif(takes):
            m.d.sync += dispatched.eq(dispatched + 1)
        done = Cat(*(getattr(self, f"{unit}_done") for unit in WAIT_UNITS)).any()
        m.d.comb += [
            ends.eq(dispatched == supervisor.length),
            supervisor.halted.eq(dispatch.halted),
            supervisor.illegal.eq(Mux(ends, ErrorCode.NO_HALT, dispatch.error)),
            supervisor.illegal_index.eq(Mux(ends, dispatched, dispatch.error_index)),
            supervisor.fetched.eq(fetch.index),
            supervisor.quiet.eq(self.quiet & fetch.quiet),
            supervisor.blocked_index.eq(oldest.index),
            supervisor.progress.eq(takes | done | (self.read_beats != 0) | (self.written_beats != 0)),
        ]
        # One fault is enough to stop: of several in one cycle the first in this list is reported.
        fault = supervisor.fault
        m.d.comb += [
            fault.valid.eq(fetch.fault.valid),
            fault.payload.fault.eq(fetch.fault.payload),
            fault.payload.index.eq(fetch.index),
        ]
        for unit in (Unit.UPDATE, Unit.POST, Unit.LOAD):
            of_unit = getattr(self, f"{unit}_fault")
            with m.If(of_unit.valid):
                m.d.comb += [fault.valid.eq(1), fault.payload.eq(of_unit.payload)]

    def _oldest(self, m: Module, supervisor: Supervisor, dispatch: Dispatch) -> Oldest:
        """Of each queue the instruction that its unit executes, or else its oldest one, which is shown before it may begin."""
        queues: list[tuple[stream.Interface, Value, Value]] = []
        for unit in WAIT_UNITS:
            out, done, empty = getattr(self, str(unit)), getattr(self, f"{unit}_done"), getattr(dispatch, f"{unit}_empty")
            outs = list(out) if unit in _GROUP_UNITS else [out]
            queues += [(each, done[index], empty[index]) for index, each in enumerate(outs)]
        oldest = Oldest(len(queues))
        present = []
        for index, (queue, done, empty) in enumerate(queues):
            executed, count = Signal(INDEX_BITS, name=f"executed_{index}"), Signal(8, name=f"executing_{index}")
            begins = queue.valid & queue.ready
            with m.If(supervisor.reset):
                m.d.sync += count.eq(0)
            with m.Else():
                m.d.sync += count.eq(count + begins - done)
            with m.If(begins):
                m.d.sync += executed.eq(queue.payload.index)
            m.d.comb += oldest.indices[index].eq(Mux(count != 0, executed, queue.payload.index))
            present.append((count != 0) | ~empty)
        m.d.comb += oldest.present.eq(Cat(*present))
        return oldest

    def _show(
        self,
        m: Module,
        registers: RegisterBlock,
        supervisor: Supervisor,
        counters: Counters,
        fetch: Fetch,
        dispatch: Dispatch,
    ) -> None:
        fields = {"STATUS": {"busy": supervisor.busy, "done": supervisor.done, "error": supervisor.failed}}
        ended = {"done": supervisor.finished_well, "error": supervisor.finished_badly}
        fields["INTERRUPT_STATUS"] = ended
        for name, values in fields.items():
            target = registers.show_STATUS if name == "STATUS" else registers.set_INTERRUPT_STATUS
            m.d.comb += [target[bits.low].eq(values[bits.name]) for bits in register(name).bits]
        m.d.comb += [
            registers.show_ERROR.eq(supervisor.error),
            registers.show_ERROR_INSTRUCTION.eq(supervisor.error_index),
            registers.show_ERROR_ADDRESS.eq(supervisor.error_address),
        ]
        # What the machine forgets when it stops stays here for the host.
        kept = {"FETCHED": fetch.index, **{f"COMPLETED_{u.name}": dispatch.completed[str(u)] for u in WAIT_UNITS}}
        for name, value in kept.items():
            copy = Signal(INDEX_BITS, name=f"kept_{name}")
            with m.If(supervisor.clear):
                m.d.sync += copy.eq(0)
            with m.Elif(supervisor.running):
                m.d.sync += copy.eq(value)
            m.d.comb += getattr(registers, f"show_{name}").eq(copy)
        m.d.comb += [
            counters.clear.eq(supervisor.clear),
            counters.running.eq(supervisor.running),
            counters.read_beats.eq(self.read_beats),
            counters.written_beats.eq(self.written_beats),
            registers.counter_turn.eq(counters.turn),
            registers.counter_value.eq(counters.value),
        ]
