"""Goes through the taps of all pixels of an instruction, a tap a cycle.

A tap that lies at no place takes no cycle. One in the padding does, but a row of them only one; and so does a pixel without any tap.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.elementwise.axis import AxisWalk
from fixgrad.gateware.elementwise.plan import COLUMN_BITS, ROW_BITS, TAP_BITS, plan_layout
from fixgrad.gateware.post.plan import offset_bits
from fixgrad.machine import Machine


def tap_layout(machine: Machine) -> data.StructLayout:
    """A tap: whether it meets a word of the first operand, whether it is the first and the last of its pixel, its number;
    whether the pixel is the last one of its channel, and of all; where its words lie, and its first random element."""
    flags = dict.fromkeys(("inside", "begins", "ends", "ends_channel", "ends_all"), 1)
    offsets = dict.fromkeys(("first", "second", "mask", "target"), offset_bits(machine))
    return data.StructLayout({**flags, "number": TAP_BITS, **offsets, "random": 32})


@dataclass(frozen=True, slots=True)
class _Steps:
    """Where the step of this cycle leads to."""

    tap: Value
    tap_row: Value
    pixel: Value
    row: Value
    channel: Value


class Walk(wiring.Component):
    """One instruction at a time.

    Members:
        plan: in, steady from `begin` (in, a pulse) on. busy: out, taps are still to come. A plan without pixels has none.
        taps: out, stream of `tap_layout`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(
            {
                "plan": In(plan_layout(machine)),
                "begin": In(1),
                "busy": Out(1),
                "taps": Out(stream.Signature(tap_layout(machine))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        plan, width = self.plan, offset_bits(self.machine)
        m.submodules.rows = rows = AxisWalk(width)
        m.submodules.columns = columns = AxisWalk(0)
        going, step = Signal(), Signal()
        m.d.comb += [
            step.eq(going & (~self.taps.valid | self.taps.ready)),
            self.busy.eq(going | self.taps.valid),
            rows.axis.eq(plan.row_axis),
            columns.axis.eq(plan.column_axis),
            rows.of_words.eq(plan.row_words),
            rows.of_numbers.eq(plan.row_numbers),
        ]
        steps, tap = self._count(m, step, rows, columns)
        m.d.comb += [
            rows.begin.eq(self.begin | steps.channel),
            rows.next_pixel.eq(steps.row),
            rows.next_tap.eq(steps.tap_row),
            rows.first_tap.eq(steps.pixel),
            columns.begin.eq(self.begin | steps.row | steps.channel),
            columns.next_pixel.eq(steps.pixel),
            columns.next_tap.eq(steps.tap),
            columns.first_tap.eq(steps.tap_row),
            tap.inside.eq(plan.uses_first & rows.inside & columns.inside),
        ]
        of_channel = Signal(width)
        m.d.comb += tap.first.eq(of_channel + rows.words + columns.place)
        with m.If(self.begin):
            m.d.sync += of_channel.eq(0)
        with m.Elif(steps.channel):
            m.d.sync += of_channel.eq(of_channel + plan.first_words)
        self._pixel_offsets(m, steps, tap)
        with m.If(self.taps.ready):
            m.d.sync += self.taps.valid.eq(0)
        with m.If(step):
            m.d.sync += [self.taps.valid.eq(1), self.taps.payload.eq(tap)]
        with m.If(self.begin):
            m.d.sync += going.eq(~plan.empty)
        with m.Elif(step & tap.ends_all & tap.ends):
            m.d.sync += going.eq(0)
        return m

    def _count(self, m: Module, step: Value, rows: AxisWalk, columns: AxisWalk) -> tuple[_Steps, data.View]:
        """Channel, row, column; returns where this step leads, and the tap at hand."""
        plan, tap = self.plan, Signal(tap_layout(self.machine), name="tap")
        channel, row, column = Signal(plan.channels.shape()), Signal(ROW_BITS), Signal(COLUMN_BITS)
        begins = Signal()
        names = ("last_column", "last_row", "last_channel", "row_ends", "ends")
        last_column, last_row, last_channel, row_ends, ends = (Signal(name=name) for name in names)
        m.d.comb += [
            last_column.eq(column + 1 == plan.columns),
            last_row.eq(row + 1 == plan.rows),
            last_channel.eq(channel + 1 == plan.channels),
            row_ends.eq(columns.last | ~rows.inside),
            ends.eq(row_ends & rows.last),
            tap.begins.eq(begins),
            tap.ends.eq(ends),
            tap.ends_channel.eq(last_column & last_row),
            tap.ends_all.eq(last_column & last_row & last_channel),
            tap.number.eq(rows.number + columns.tap),
        ]
        names = ("to_tap", "to_tap_row", "to_pixel", "to_row", "to_channel")
        to_tap, to_tap_row, to_pixel, to_row, to_channel = (Signal(name=name) for name in names)
        m.d.comb += [
            to_tap.eq(step & ~row_ends),
            to_tap_row.eq(step & row_ends & ~ends),
            to_pixel.eq(step & ends & ~last_column),
            to_row.eq(step & ends & last_column & ~last_row),
            to_channel.eq(step & ends & last_column & last_row),
        ]
        with m.If(step):
            m.d.sync += begins.eq(ends)
        with m.If(step & ends):
            m.d.sync += column.eq(column + 1)
            with m.If(last_column):
                m.d.sync += [column.eq(0), row.eq(row + 1)]
            with m.If(last_column & last_row):
                m.d.sync += [row.eq(0), channel.eq(channel + 1)]
        with m.If(self.begin):
            m.d.sync += [*(each.eq(0) for each in (channel, row, column)), begins.eq(1)]
        return _Steps(to_tap, to_tap_row, to_pixel, to_row, to_channel), tap

    def _pixel_offsets(self, m: Module, steps: _Steps, tap: data.View) -> None:
        """Where the pixel's words of the other maps lie, and its random element; a channel begins with the latter anew."""
        plan, width = self.plan, offset_bits(self.machine)
        kinds = {
            "second": (0, plan.second_words, plan.second_row, 1, width),
            "mask": (0, plan.mask_words, plan.mask_row, 1, width),
            "target": (0, plan.channel_words, plan.target_row, 1, width),
            "random": (plan.random_first, 0, plan.random_row, plan.random_step, 32),
        }
        for name, (first, by_channel, by_row, by_pixel, bits) in kinds.items():
            of_channel, of_row, now = (Signal(bits, name=f"{name}_{of}") for of in ("of_channel", "of_row", "now"))
            next_channel, next_row = Signal(bits, name=f"{name}_next_channel"), Signal(bits, name=f"{name}_next_row")
            m.d.comb += [tap[name].eq(now), next_channel.eq(of_channel + by_channel), next_row.eq(of_row + by_row)]
            with m.If(self.begin):
                m.d.sync += Cat(of_channel, of_row, now).eq(Cat(*[Value.cast(first)[:bits]] * 3) if name == "random" else 0)
            with m.Elif(steps.channel):
                m.d.sync += [of_channel.eq(next_channel), of_row.eq(next_channel), now.eq(next_channel)]
            with m.Elif(steps.row):
                m.d.sync += [of_row.eq(next_row), now.eq(next_row)]
            with m.Elif(steps.pixel):
                m.d.sync += now.eq(now + by_pixel)
