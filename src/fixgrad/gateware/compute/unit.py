"""The unit COMPUTE of one group: dispatch on one side, the group on the other."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import Fifo
from fixgrad.gateware.control.counters import activity_layout
from fixgrad.gateware.control.layouts import body, body_layout, issued_layout
from fixgrad.gateware.pe.group import Group
from fixgrad.gateware.post.range_registers import RANGE_REPORT
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit
from fixgrad.machine.parameters import MAX_PES_PER_GROUP

#: Members of the group that LOAD, POST and UPDATE use; the unit passes them on.
LOAD_SIDE = ("input_writes", "kernels", "kernel_pes", "errors")
DRAIN_SIDE = ("drain", "drain_address", "drained", "take_gradient", "gradient_address", "gradients", "gradient_wanted")
#: COMPUTEs that have ended and wait to be told: one whose flag is not accepted yet, and those behind it.
ENDED = 4
_SIDES = ("top", "bottom", "left", "right")


class ComputeUnit(wiring.Component):
    """A group, and what dispatch wants of it. Hold it in reset while no program runs.

    Decoding refuses what the planner cannot plan (see `fixgrad.gateware.control.checks`), so a COMPUTE always begins. One whose
    kernels or end mark never come ends with the front end's timeout.

    Members, to the front end:
        instructions: in, stream; taken when one begins. head_valid: in: its payload may be looked at, and planned, before it is
            valid (`compute_head_valid` of the front end).
        done: out, a pulse for each instruction, in order; of one that wrapped, when its report is accepted.
        activity: out, in PEs, see `activity_layout`; their sum is all PEs while an instruction is at hand, else 0.
    Members, to the range registers: report: out, stream; of instructions whose sums wrapped only.
    Members, to LOAD, POST and UPDATE: as of `Group`: input_writes, kernels, kernel_pes, errors; drain, drain_address, drained;
        take_gradient, gradient_address, gradients, gradient_wanted.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.group = Group(machine)
        passed = {name: self.group.signature.members[name] for name in (*LOAD_SIDE, *DRAIN_SIDE)}
        super().__init__(
            {
                "instructions": In(stream.Signature(issued_layout(Unit.COMPUTE))),
                "head_valid": In(1),
                "done": Out(1),
                "activity": Out(activity_layout(Unit.COMPUTE, machine)),
                "report": Out(stream.Signature(RANGE_REPORT)),
                **passed,
            }
        )

    @property
    def shape(self) -> Machine:
        """What tells it from other groups: see `fixgrad.gateware.pe.sharing`."""
        return self.machine

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.group = group = self.group
        m.submodules.ended = ended = Fifo(data.StructLayout({"register": 8, "overflow": 1}), ENDED)
        compute = body(self.instructions.payload, "COMPUTE")
        m.d.comb += [
            group.computes.valid.eq(self.head_valid),
            # None begins that could end before there is room to say so.
            group.go.eq(self.instructions.valid & (ended.level < ENDED - 1)),
            self.instructions.ready.eq(group.computes.ready),
        ]
        self._translate(m, compute)
        self._end(m, ended, compute)
        self._count(m)
        for name in (*LOAD_SIDE, *DRAIN_SIDE):
            self._pass(m, name)
        return m

    def _translate(self, m: Module, compute: data.View) -> None:
        """The instruction's fields to the group's. Bits beyond the sizes of its memories are dropped: addresses are modulo."""
        target, geometry = self.group.computes.payload, self.group.computes.payload.geometry
        pairs = ("kernel", "stride", "pad", "dilation")
        m.d.comb += [
            Value.cast(geometry.mode).eq(compute.mode),
            geometry.count_padding.eq(compute.count_padding),
            *(geometry[name][axis].eq(compute[f"{name}_{axis}"]) for name in pairs for axis in ("rows", "columns")),
            geometry.in_size.rows.eq(compute.in_rows),
            geometry.in_size.columns.eq(compute.in_columns),
        ]
        for pe in range(MAX_PES_PER_GROUP):
            m.d.comb += [geometry.in_[pe][side].eq(compute[f"in{pe}_{side}"]) for side in _SIDES]
            m.d.comb += [geometry.out[pe][side].eq(compute[f"out{pe}_{side}"]) for side in _SIDES]
        names = {name for name, _ in target.shape()} & set(body_layout("COMPUTE").members)
        m.d.comb += [target[name].eq(compute[name]) for name in sorted(names)]

    def _end(self, m: Module, ended: Fifo, compute: data.View) -> None:
        """Most ends are told at once; one that wrapped, and those behind it, when its report is accepted."""
        group, register = self.group, Signal(8)
        with m.If(self.instructions.valid & self.instructions.ready):
            m.d.sync += register.eq(compute.statistics)
        head, waits, told = ended.o.payload, Signal(), Signal()
        m.d.comb += [
            waits.eq(group.done & (group.overflow | ended.o.valid)),
            ended.i.valid.eq(waits),
            ended.i.payload.register.eq(register),
            ended.i.payload.overflow.eq(group.overflow),
            self.report.valid.eq(ended.o.valid & head.overflow),
            self.report.payload.register.eq(head.register),
            self.report.payload.overflow.eq(1),
            told.eq(ended.o.valid & (~head.overflow | self.report.ready)),
            ended.o.ready.eq(told),
            self.done.eq((group.done & ~waits) | told),
        ]

    def _count(self, m: Module) -> None:
        """A PE that neither steps nor is held has no kernel, or waits: for its plan, its pipeline, or a slower PE."""
        group, pes = self.group, self.machine.pes_per_group
        busy, blocked, works = Signal(range(pes + 1)), Signal(range(pes + 1)), Signal()
        steps, held = Value.cast(group.stepping), group.held_by_hazard | group.held_by_drain
        m.d.comb += [
            busy.eq(sum(steps[pe] for pe in range(pes))),
            blocked.eq(sum(held[pe] & ~steps[pe] for pe in range(pes))),
            works.eq(group.running | self.instructions.valid),
            self.activity.busy.eq(busy),
            self.activity.blocked.eq(blocked),
            self.activity.starved.eq(Mux(works, pes - busy - blocked, 0)),
        ]

    def _pass(self, m: Module, name: str) -> None:
        mine, inner, member = getattr(self, name), getattr(self.group, name), self.signature.members[name]
        if member.is_signature:
            for outer, port in zip(mine, inner, strict=True) if member.dimensions else [(mine, inner)]:
                wiring.connect(m, wiring.flipped(outer), port)
            return
        for outer, port in zip(mine, inner, strict=True) if member.dimensions else [(mine, inner)]:
            out, of_group = Value.cast(outer), Value.cast(port)
            m.d.comb += of_group.eq(out) if member.flow is wiring.In else out.eq(of_group)
