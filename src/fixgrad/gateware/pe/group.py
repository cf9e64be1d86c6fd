"""A group: its PEs and the planner of their walks. It runs one COMPUTE after the other."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from fixgrad.gateware.pe.pe import DRAIN_LATENCY, Pe
from fixgrad.gateware.pe.planner import Planner, geometry_layout
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.gateware.pe.sharing import shared
from fixgrad.machine import Machine
from fixgrad.numbers import ACCUMULATOR_BITS

#: Cycles from `drain` until `drained`: a register behind the choice of the PE.
GROUP_DRAIN_LATENCY = DRAIN_LATENCY + 1


def compute_layout(shape: PeShape) -> data.StructLayout:
    """A COMPUTE; fields as in the instruction table, cut to the sizes of the memories."""
    names = ("clear", "buffer", "slot_words", "lane_base", "lane_slot_words", "gradient_base", "number_on")
    return data.StructLayout({"geometry": geometry_layout(), **{name: shape.command()[name].shape for name in names}})


class Group(wiring.Component):
    """A group of PEs.

    Members, load side: as in `Pe`, but
        input_writes: in, array, for each PE {enable, address, data}.
        kernels: in, stream; `kernel_pes` (in, valid with it): the PEs that take the word. All take it in the same cycle.
        errors: in, array of streams, one a PE.
    Members, control:
        computes: in, stream of COMPUTE instructions. The walk of the one at hand is planned at once; it is taken when it
            begins, not before `go` (in) says that what it waits for has completed.
        done: out, for one cycle, when a COMPUTE has ended. overflow: out, with `done`: a sum left 32 bits.
        refused: out: the COMPUTE at hand cannot be planned (`MAX_RUNS`); it never begins.
    Members, drain side:
        drain: in, a bit for the PE to read, or 0. drain_address: in. drained: out, the word, `GROUP_DRAIN_LATENCY` cycles
            later.
        take_gradient: in, a bit for each PE to read. gradient_address: in. gradients: out, array, each PE's gradient
            `GRADIENT_LATENCY` cycles later.
        gradient_wanted: out: it was of a PE, see there, in the cycle before.
    Members, for counters, a bit for each PE: stepping, held_by_hazard, held_by_drain, waiting (out); see `Pe`.
        running: out, between begin and `done`.
    """

    def __init__(self, machine: Machine) -> None:
        self.pes, self.shape = machine.pes_per_group, PeShape.of(machine)
        shape, pes = self.shape, self.pes
        counters = ("stepping", "held_by_hazard", "held_by_drain", "waiting")
        super().__init__(
            {
                "input_writes": In(shape.input_write()).array(pes),
                "kernels": In(stream.Signature(shape.kernel())),
                "kernel_pes": In(pes),
                "errors": In(stream.Signature(shape.error())).array(pes),
                "computes": In(stream.Signature(compute_layout(shape))),
                "go": In(1),
                "done": Out(1),
                "overflow": Out(1),
                "refused": Out(1),
                "drain": In(pes),
                "drain_address": In(shape.lane_bits),
                "drained": Out(shape.lanes * ACCUMULATOR_BITS),
                "take_gradient": In(pes),
                "gradient_address": In(shape.gradient_bits),
                "gradients": Out(ACCUMULATOR_BITS).array(pes),
                "gradient_wanted": Out(1),
                **dict.fromkeys(counters, Out(pes)),
                "running": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pes = [Pe(self.shape) for _ in range(self.pes)]
        for number, pe in enumerate(pes):
            m.submodules[f"pe_{number}"] = shared(pe, platform)
        self._control(m, pes)
        self._load_side(m, pes)
        self._drain_side(m, pes)
        for name in ("stepping", "held_by_hazard", "held_by_drain", "waiting"):
            m.d.comb += getattr(self, name).eq(Cat(getattr(pe, name) for pe in pes))
        return m

    def _control(self, m: Module, pes: list[Pe]) -> None:
        """Plans, begins, ends."""
        m.submodules.planner = planner = Planner(self.shape, self.pes)
        compute, geometry = self.computes.payload, self.computes.payload.geometry
        begin, planned, keep_plan, busy = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            Value.cast(planner.geometry.payload).eq(Value.cast(geometry)),
            planner.geometry.valid.eq(self.computes.valid & ~planned & ~self.refused),
            busy.eq(Cat(pe.busy for pe in pes).any()),
            self.done.eq(self.running & ~busy),
            self.overflow.eq(Cat(pe.overflow for pe in pes).any()),
            begin.eq(planned & self.go & ~busy),
            self.computes.ready.eq(begin),
        ]
        with m.If(planner.geometry.valid & planner.geometry.ready):
            m.d.sync += [
                planned.eq(~planner.too_many_runs),
                self.refused.eq(planner.too_many_runs),
                keep_plan.eq(planner.same),
            ]
        with m.If(begin):
            m.d.sync += [planned.eq(0), self.running.eq(1)]
        with m.Elif(self.done):
            m.d.sync += self.running.eq(0)

        command = Signal(self.shape.command())
        m.d.comb += [
            command.mode.eq(geometry.mode),
            command.count_padding.eq(geometry.count_padding),
            command.taps.eq(geometry.kernel.rows * geometry.kernel.columns),
            command.keep_plan.eq(keep_plan),
            *(command[name].eq(compute[name]) for name, _ in compute_layout(self.shape) if name != "geometry"),
        ]
        for number, pe in enumerate(pes):
            m.d.comb += [
                Value.cast(pe.command).eq(Value.cast(command)),
                pe.begin.eq(begin),
                Value.cast(pe.plan).eq(Value.cast(planner.word)),
                pe.plan_valid.eq(planner.pes[number]),
            ]

    def _load_side(self, m: Module, pes: list[Pe]) -> None:
        """A kernel word goes to all its PEs in one cycle."""
        blocked = Cat(self.kernel_pes[number] & ~pe.kernels.ready for number, pe in enumerate(pes)).any()
        m.d.comb += self.kernels.ready.eq(~blocked)
        for number, pe in enumerate(pes):
            wiring.connect(m, wiring.flipped(self.errors[number]), pe.errors)
            m.d.comb += [
                Value.cast(pe.input_write).eq(Value.cast(self.input_writes[number])),
                Value.cast(pe.kernels.payload).eq(Value.cast(self.kernels.payload)),
                pe.kernels.valid.eq(self.kernels.valid & self.kernel_pes[number] & ~blocked),
            ]

    def _drain_side(self, m: Module, pes: list[Pe]) -> None:
        """One PE's accumulators, or all PEs' gradients."""
        asked = [self.drain, *(Signal(self.pes, name=f"asked_{cycle}") for cycle in range(DRAIN_LATENCY))]
        for before, after in pairwise(asked):
            m.d.sync += after.eq(before)
        # The choice as a number: four words and two bits are one LUT of six inputs.
        choice = Signal(range(max(self.pes, 2)))
        for number in range(self.pes):
            with m.If(asked[-2][number]):
                m.d.sync += choice.eq(number)
        words: list[Value] = [pe.drained for pe in pes]
        for bit in choice[: exact_log2(self.pes)]:
            words = [Mux(bit, after, before) for before, after in zip(words[::2], words[1::2], strict=True)]
        m.d.sync += [self.drained.eq(words[0]), self.gradient_wanted.eq(Cat(pe.gradient_wanted for pe in pes).any())]
        for number, pe in enumerate(pes):
            m.d.comb += [
                pe.drain.eq(self.drain[number]),
                pe.drain_address.eq(self.drain_address),
                pe.take_gradient.eq(self.take_gradient[number]),
                pe.gradient_address.eq(self.gradient_address),
                self.gradients[number].eq(pe.gradient),
            ]
