"""Plans the walks of a group's PEs for the next COMPUTE, while the one before may be running."""

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.pe.axis_planner import AxisPlanner
from fixgrad.gateware.pe.shape import COORDINATE_BITS, Mode, PeShape
from fixgrad.machine.parameters import MAX_PES_PER_GROUP


def geometry_layout() -> data.StructLayout:
    """Everything that a plan depends on; the fields of a COMPUTE."""
    side = data.StructLayout(dict.fromkeys(("top", "bottom", "left", "right"), COORDINATE_BITS))
    size = data.StructLayout({"rows": COORDINATE_BITS, "columns": COORDINATE_BITS})
    pair = data.StructLayout({"rows": 4, "columns": 4})
    pairs = dict.fromkeys(("kernel", "stride", "pad", "dilation"), pair)
    rectangles = dict.fromkeys(("in_", "out"), data.ArrayLayout(side, MAX_PES_PER_GROUP))
    return data.StructLayout({"mode": Mode, "count_padding": 1, **pairs, "in_size": size, **rectangles})


class Planner(wiring.Component):
    """Plans one axis of one PE after the other.

    Members:
        geometry: in, stream: what to plan; taken when the plan is complete.
        same: out, with `geometry.ready`: it is the geometry of the last plan, so nothing was planned: keep that plan.
        too_many_runs: out, with `geometry.ready`: an axis has more runs than a table holds; the plan is of no use.
        word: out, a word of the plan for the PE whose bit in `pes` (out) is set.
    """

    def __init__(self, shape: PeShape, pes: int) -> None:
        self.shape, self.pe_count = shape, pes
        super().__init__(
            {
                "geometry": In(stream.Signature(geometry_layout())),
                "same": Out(1),
                "too_many_runs": Out(1),
                "word": Out(shape.plan_word()),
                "pes": Out(pes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.axis = axis = AxisPlanner(self.shape)
        geometry = self.geometry.payload
        pe, columns, full = Signal(range(max(self.pe_count, 2))), Signal(), Signal()
        kept, kept_valid = Signal(geometry_layout()), Signal()
        m.d.comb += [
            Value.cast(self.word).eq(Value.cast(axis.word)),
            self.word.columns.eq(columns),
            self.pes.eq(Mux(axis.word_valid, Const(1, 1) << pe, 0)),
        ]
        self._parameters(m, axis, pe, columns)
        with m.FSM():
            with m.State("wait"):
                m.d.sync += [pe.eq(0), columns.eq(0), full.eq(0)]
                m.d.comb += self.same.eq(kept_valid & (Value.cast(kept) == Value.cast(geometry)))
                with m.If(self.geometry.valid & self.same):
                    m.d.comb += self.geometry.ready.eq(1)
                with m.Elif(self.geometry.valid):
                    m.next = "begin"
            with m.State("begin"):
                m.d.comb += axis.begin.eq(1)
                m.next = "axis"
            with m.State("axis"), m.If(axis.done):
                m.d.sync += [columns.eq(~columns), full.eq(full | axis.too_many_runs)]
                m.next = "begin"
                with m.If(columns):
                    m.d.sync += pe.eq(pe + 1)
                    with m.If(pe == self.pe_count - 1):
                        m.next = "done"
            with m.State("done"):
                m.d.comb += [self.geometry.ready.eq(1), self.too_many_runs.eq(full)]
                m.d.sync += [kept.eq(geometry), kept_valid.eq(~full)]
                m.next = "wait"
        return m

    def _parameters(self, m: Module, axis: AxisPlanner, pe: Signal, columns: Signal) -> None:
        geometry = self.geometry.payload
        m.d.comb += [axis.mode.eq(geometry.mode), axis.count_padding.eq(geometry.count_padding)]
        for name in ("kernel", "stride", "pad", "dilation"):
            m.d.comb += getattr(axis, name).eq(Mux(columns, geometry[name].columns, geometry[name].rows))
        inside, out = geometry.in_[pe], geometry.out[pe]
        m.d.comb += [
            axis.size.eq(Mux(columns, geometry.in_size.columns, geometry.in_size.rows)),
            axis.in_begin.eq(Mux(columns, inside.left, inside.top)),
            axis.in_unit.eq(Mux(columns, 1, inside.right - inside.left)),
            axis.out_begin.eq(Mux(columns, out.left, out.top)),
            axis.out_end.eq(Mux(columns, out.right, out.bottom)),
            axis.out_unit.eq(Mux(columns, 1, out.right - out.left)),
            axis.number_unit.eq(Mux(columns, 1, geometry.kernel.columns)),
        ]
