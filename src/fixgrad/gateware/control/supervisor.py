"""Starts and stops the machine: every program ends, with HALT or with an error code."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.burst import FAULT, FaultKind, MemoryPorts
from fixgrad.gateware.control.decode import ERROR_BITS
from fixgrad.gateware.control.layouts import INDEX_BITS
from fixgrad.machine.instructions import INSTRUCTION_BYTES
from fixgrad.machine.registers import ErrorCode

#: A failed access and the instruction that made it.
UNIT_FAULT = data.StructLayout({"fault": FAULT, "index": INDEX_BITS})


class State(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What the machine does. DRAIN: no burst begins any more; those under way end. STUCK: the memory does not answer."""

    IDLE = 0
    RUN = 1
    DRAIN = 2
    STUCK = 3


class Supervisor(wiring.Component):
    """The machine's state.

    Members, from the registers:
        start, abort: pulses. program, length, timeout: settings. identity_matches: the program was made for this machine.
    Members, from the machine:
        halted: HALT was reached. illegal, illegal_index: the instruction at hand is refused, and why.
        fault: an access failed. fetched: instructions fetched, the place of one whose fetch failed.
        progress: something moved. blocked_index: the instruction to blame where nothing moves.
        quiet: no burst is outstanding.
    Members, to the machine:
        clear: a program begins: counters start from 0. begin: a cycle later: fetch starts.
        reset: nothing runs: units forget what they were doing.
        running: from `clear` until the end. stop: no burst begins.
    Members, to the registers:
        busy, done, failed; error, error_index, error_address.
        finished_well, finished_badly: a pulse when the program has ended.
    """

    def __init__(self, ports: MemoryPorts) -> None:
        self.memory = ports
        super().__init__(
            {
                "start": In(1),
                "abort": In(1),
                "program": In(64),
                "length": In(32),
                "timeout": In(32),
                "identity_matches": In(1),
                "halted": In(1),
                "illegal": In(ERROR_BITS),
                "illegal_index": In(INDEX_BITS),
                "fault": In(stream.Signature(UNIT_FAULT, always_ready=True)),
                "fetched": In(INDEX_BITS),
                "progress": In(1),
                "blocked_index": In(INDEX_BITS),
                "quiet": In(1),
                "clear": Out(1),
                "begin": Out(1),
                "reset": Out(1, init=1),
                "running": Out(1),
                "stop": Out(1),
                "busy": Out(1),
                "done": Out(1),
                "failed": Out(1),
                "error": Out(ERROR_BITS),
                "error_index": Out(INDEX_BITS),
                "error_address": Out(self.memory.address_bits),
                "finished_well": Out(1),
                "finished_badly": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        state, idle_cycles, expired = Signal(State), Signal(32), Signal()
        m.d.comb += [
            self.busy.eq((state == State.RUN) | (state == State.DRAIN)),
            self.running.eq(self.busy),
            self.stop.eq((state == State.DRAIN) | (state == State.STUCK)),
            self.reset.eq(state == State.IDLE),
            expired.eq((self.timeout != 0) & (idle_cycles >= self.timeout)),
        ]
        m.d.sync += [self.begin.eq(self.clear), idle_cycles.eq(Mux(self.progress | self.clear | expired, 0, idle_cycles + 1))]
        with m.Switch(state):
            with m.Case(State.IDLE), m.If(self.start):
                self._start(m, state)
            with m.Case(State.RUN):
                self._run(m, state, expired)
            with m.Case(State.DRAIN):
                with m.If(self.quiet):
                    m.d.sync += state.eq(State.IDLE)
                    self._finish(m)
                with m.Elif(expired):
                    m.d.sync += [state.eq(State.STUCK), self.error.eq(Mux(self.error == 0, ErrorCode.TIMEOUT, self.error))]
                    self._finish(m)
            with m.Case(State.STUCK):
                with m.If(self.quiet):
                    m.d.sync += state.eq(State.IDLE)
                with m.If(self.start):
                    m.d.comb += self.finished_badly.eq(1)
                    m.d.sync += self.error.eq(ErrorCode.TIMEOUT)
        return m

    def _start(self, m: Module, state: Signal) -> None:
        m.d.sync += [self.done.eq(0), self.failed.eq(0), self.error.eq(0), self.error_index.eq(0), self.error_address.eq(0)]
        out_of_range = (
            (self.program[: INSTRUCTION_BYTES.bit_length() - 1] != 0)
            | (self.program >> self.memory.address_bits != 0)
            | (self.length >> INDEX_BITS != 0)
        )
        error = Signal(ERROR_BITS)
        with m.If(~self.identity_matches):
            m.d.comb += error.eq(ErrorCode.WRONG_IDENTITY)
        with m.Elif(out_of_range):
            m.d.comb += error.eq(ErrorCode.OUT_OF_RANGE)
        with m.Elif(self.length == 0):
            m.d.comb += error.eq(ErrorCode.NO_HALT)
        m.d.comb += self.clear.eq(1)
        with m.If(error != 0):
            m.d.comb += self.finished_badly.eq(1)
            m.d.sync += [self.failed.eq(1), self.error.eq(error)]
        with m.Else():
            m.d.sync += state.eq(State.RUN)

    def _run(self, m: Module, state: Signal, expired: Signal) -> None:
        fault = self.fault.payload
        kinds = {FaultKind.OUTSIDE: ErrorCode.OUTSIDE_MEMORY, FaultKind.READ: ErrorCode.MEMORY_READ}
        kinds[FaultKind.WRITE] = ErrorCode.MEMORY_WRITE
        with m.If(self.fault.valid):
            m.d.sync += [state.eq(State.DRAIN), self.error_index.eq(fault.index), self.error_address.eq(fault.fault.address)]
            with m.Switch(fault.fault.kind):
                for kind, code in kinds.items():
                    with m.Case(kind):
                        m.d.sync += self.error.eq(code)
        with m.Elif(self.illegal != 0):
            m.d.sync += [state.eq(State.DRAIN), self.error.eq(self.illegal), self.error_index.eq(self.illegal_index)]
        with m.Elif(self.halted):
            m.d.sync += state.eq(State.DRAIN)
        with m.Elif(self.abort):
            self._blame(m, state, ErrorCode.ABORTED)
        with m.Elif(expired):
            self._blame(m, state, ErrorCode.TIMEOUT)

    def _blame(self, m: Module, state: Signal, code: ErrorCode) -> None:
        m.d.sync += [state.eq(State.DRAIN), self.error.eq(code), self.error_index.eq(self.blocked_index)]

    def _finish(self, m: Module) -> None:
        """The end of a program, in DRAIN: an error is known by now, or the memory does not answer."""
        failed = (self.error != 0) | ~self.quiet
        m.d.comb += [self.finished_well.eq(~failed), self.finished_badly.eq(failed)]
        m.d.sync += [self.failed.eq(failed), self.done.eq(~failed)]
