"""Turns a POST into its plan: products of fields one after the other, the entry of the step table, the box of all pixels.

    cycles   about 10 + bits of the second factors: 30 to 80 for maps of ordinary size, while the POST before drains
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import limit_value
from fixgrad.gateware.control.layouts import body, issued_layout
from fixgrad.gateware.control.step_table import TableRead
from fixgrad.gateware.post.plan import (
    ALL_CHANNELS_BITS,
    RECTANGLE,
    WINDOW_BITS,
    offset_bits,
    plan_layout,
    served_groups,
    times,
)
from fixgrad.gateware.post.post_lane import CODE_BITS
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit

#: Code of a rectifier that applies the mask, in NG.
_MASK = 1
_FACTOR_BITS = 16


class Setup(wiring.Component):
    """Works out one plan at a time.

    Members:
        instructions: in, stream of POSTs (no other kind).
        table: the step table.
        plan: out, stream of plans (`plan_layout`).
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(
            {
                "instructions": In(stream.Signature(issued_layout(Unit.POST, machine))),
                "table": Out(TableRead()),
                "plan": Out(stream.Signature(plan_layout(machine))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        issued = Signal(issued_layout(Unit.POST, self.machine))
        busy, asked, answered, worked_out = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            self.instructions.ready.eq(~busy),
            self.plan.valid.eq(busy & answered & worked_out),
            self.table.index.valid.eq(busy & ~asked),
            self.table.index.payload.eq(body(issued, "POST").param),
        ]
        takes = self.instructions.valid & ~busy
        with m.If(takes):
            m.d.sync += [issued.eq(self.instructions.payload), busy.eq(1), asked.eq(0), answered.eq(0)]
        with m.If(self.table.index.valid & self.table.index.ready):
            m.d.sync += asked.eq(1)
        with m.If(self.table.entry.valid):
            m.d.sync += answered.eq(1)
        with m.If(self.plan.valid & self.plan.ready):
            m.d.sync += busy.eq(0)
        post = body(issued, "POST")
        m.d.comb += [self.plan.payload.index.eq(issued.index), *self._copied(post)]
        self._boxes(m, post)
        self._settings(m, post)
        self._products(m, post, takes, worked_out)
        return m

    def _copied(self, post: Value) -> list[Value]:
        plan = self.plan.payload
        names = ["statistics", "channels", "channel_words", "row_words", "mask_channel_words", "mask_row_words", "pool_columns"]
        names += ["images", "channel_split", "with_argmax", "lane_base", "lane_slot_words", "random_batch", "target", "mask"]
        return [*(plan[name].eq(post[name]) for name in names), plan.places.eq(post.argmax), plan.sums.eq(post.bias_gradient)]

    def _boxes(self, m: Module, post: Value) -> None:
        """The rectangles of PEs that have pixels, and the smallest one around them."""
        plan, real = self.plan.payload, []
        for pe in range(self.machine.pes_per_group):
            rectangle = Signal(RECTANGLE, name=f"rectangle_{pe}")
            m.d.comb += [rectangle[side].eq(post[f"out{pe}_{side}"]) for side, _ in RECTANGLE]
            m.d.comb += plan.rectangles[pe].eq(rectangle)
            real.append((rectangle, (rectangle.top < rectangle.bottom) & (rectangle.left < rectangle.right)))
        first, has_pixels = real[0]
        for side, field in RECTANGLE:
            is_low = side in ("top", "left")
            neutral = Const((1 << field.width) - 1 if is_low else 0, field.width)
            outermost, *others = [Mux(valid, rectangle[side], neutral) for rectangle, valid in real]
            for value in others:
                outermost = Mux(outermost < value if is_low else outermost > value, outermost, value)
            m.d.sync += plan.box[side].eq(Mux(post.channel_split, first[side], outermost))
        some = Mux(post.channel_split, has_pixels, Cat(valid for _, valid in real).any())
        m.d.comb += plan.empty.eq(~some | (post.channels == 0) | (post.total_channels == 0))

    def _settings(self, m: Module, post: Value) -> None:
        """What the post-processors need, which tables and maps are read, how many words each output makes."""
        plan, ng, entry = self.plan.payload, post.mode[0], self.table.entry.payload
        setting = plan.setting
        with m.If(self.table.entry.valid):
            m.d.sync += [setting[name].eq(entry[name]) for name in ("stochastic", "shift", "key_low", "key_high")]
            m.d.sync += plan.bias_shift.eq(entry.bias_shift)
        rows, columns = _at_least_one(post.pool_rows), _at_least_one(post.pool_columns)
        wide, parts = ~ng & (post.out_bits > 8), Signal(2)
        m.d.comb += [
            setting.ng.eq(ng),
            setting.rectify.eq(post.rectify),
            setting.limit.eq(limit_value(post.out_bits, CODE_BITS)),
            plan.wide.eq(wide),
            plan.window.eq(rows * columns),
            plan.pooled.eq(plan.window != 1),
            plan.walk_rows.eq(Mux(ng, 1, rows)),
            plan.walk_columns.eq(Mux(ng, 1, columns)),
            plan.column_step.eq(Mux(ng, columns, 1)),
            plan.uses_mask.eq(ng & (post.rectify == _MASK)),
            plan.uses_places.eq(ng & plan.pooled),
            plan.uses_table.eq(Mux(ng, setting.stochastic, post.with_bias)),
            plan.uses_sums.eq(ng & post.with_bias),
            plan.table.eq(Mux(ng, post.element, post.bias)),
            parts.eq(Mux(ng, 1, 1 + wide + post.with_argmax)),
            plan.parts.eq(parts),
            plan.spacing.eq(Mux(ng, plan.window, Mux(~plan.pooled, parts, Mux(parts == 3, 2, 1)))),
        ]
        served, pes = served_groups(self.machine), self.machine.pes_per_group
        mine, every = (times(post.channels, served * number, ALL_CHANNELS_BITS) for number in (1, pes))
        all_channels = Mux(post.channel_split, every, mine)
        machine_channels = times(all_channels, self.machine.post_processors, ALL_CHANNELS_BITS + 4)
        m.d.comb += [
            plan.all_channels.eq(all_channels),
            plan.count.eq(Mux(machine_channels < post.total_channels, machine_channels, post.total_channels)),
        ]

    def _products(self, m: Module, post: Value, begin: Value, worked_out: Signal) -> None:
        """result = sum + x * (y / divisor), a bit of y a cycle; the results of one product go into later ones."""
        plan, ng, width = self.plan.payload, post.mode[0], offset_bits(self.machine)
        rows, columns, box = _at_least_one(post.pool_rows), _at_least_one(post.pool_columns), plan.box
        row_step, of_channels, of_map_channels = Signal(15), Signal(width), Signal(width)
        divide = plan.pooled & ~ng
        # (result, x, y, sum, divisor). Those of the first list are for FF and NG.
        both = [
            (row_step, post.row_words, Mux(ng, rows, 1), 0, 1),
            (plan.first, row_step, box.top, 0, rows),
            (plan.first, plan.column_step, box.left, plan.first, columns),
            (of_channels, post.channel_words, post.channels, 0, 1),
        ]
        backward = [
            (plan.map_first, post.mask_row_words, box.top, box.left, 1),
            (of_map_channels, post.mask_channel_words, post.channels, 0, 1),
            (plan.random_first, post.random_row, box.top, box.left, 1),
            (plan.random_first, plan.random_first, post.random_batch, post.random_image, 1),
            (plan.random_row_step, post.random_row, post.random_batch, 0, 1),
        ]
        step, loaded = Signal(range(len(both) + len(backward) + 2)), Signal()
        x, y, sum_, quotient = Signal(width), Signal(_FACTOR_BITS), Signal(width), Signal(_FACTOR_BITS)
        divisor, dividing = Signal(WINDOW_BITS), Signal()
        last = Mux(ng, len(both) + len(backward), len(both))
        with m.If(begin):
            # The box is known a cycle after the instruction.
            m.d.sync += [step.eq(0), loaded.eq(0), worked_out.eq(0), dividing.eq(0)]
        with m.Elif(~loaded):
            m.d.sync += [loaded.eq(1), quotient.eq(0)]
            with m.Switch(step):
                for number, (_, of_x, of_y, start, by) in enumerate((*both, *backward)):
                    with m.Case(number):
                        m.d.sync += [x.eq(of_x), y.eq(of_y), sum_.eq(start), divisor.eq(by)]
                        m.d.sync += dividing.eq(divide if not isinstance(by, int) else 0)
            with m.If(step == last):
                m.d.sync += worked_out.eq(1)
        with m.Elif(dividing):
            m.d.sync += [y.eq(y - divisor), quotient.eq(quotient + 1)]
            with m.If(y < divisor):
                m.d.sync += [y.eq(quotient), dividing.eq(0)]
        with m.Elif(y != 0):
            m.d.sync += [y.eq(y >> 1), x.eq(x << 1), sum_.eq(sum_ + Mux(y[0], x, 0))]
        with m.Elif(~worked_out):
            m.d.sync += [loaded.eq(0), step.eq(step + 1)]
            with m.Switch(step):
                for number, (result, *_) in enumerate((*both, *backward)):
                    with m.Case(number):
                        m.d.sync += result.eq(sum_)
        served, pes = served_groups(self.machine), self.machine.pes_per_group
        for out, queues in ((plan.post_words, of_channels), (plan.map_post_words, of_map_channels)):
            one, split = (times(queues, served * number, width) for number in (1, pes))
            m.d.comb += out.eq(Mux(post.channel_split, split, one))
        m.d.comb += plan.row_step.eq(row_step)


def _at_least_one(value: Value) -> Value:
    """A window has a row and a column, whatever an instruction says."""
    return value | (value == 0)


