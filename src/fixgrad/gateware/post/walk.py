"""Walks over the accumulators of a POST: channel by channel, window by window, one item a cycle.

All post-processors walk in step: each takes the item's word of its own groups. So one walk is enough for all.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.pe.shape import PeShape
from fixgrad.gateware.post.plan import (
    CHANNELS_BITS,
    COORDINATE_BITS,
    WINDOW_BITS,
    channels_of,
    offset_bits,
    plan_layout,
    served_groups,
)
from fixgrad.gateware.post.post_lane import PLACE_BITS
from fixgrad.machine import Machine


def item_layout(machine: Machine) -> data.StructLayout:
    """A word of accumulators.

    `pe`: a bit for the PE that holds it. `turn`: which of its groups a post-processor takes. `address`: in the lane memory.
    `active`: the post-processors whose channel exists. `place`: in the pooling window. `stores`: the window is complete.
    `ends_channel`, `ends`: the last word of the channel, of the POST. `empty`: of no word: the POST has none.
    `offset`: of the window's (NG: the first) output. `map_offset`: of its word in mask and places. `random`: random element
    of the pixel, less that of the channel.
    """
    shape = PeShape.of(machine)
    return data.StructLayout(
        {
            "pe": machine.pes_per_group,
            "turn": ceil_log2(served_groups(machine)),
            "address": shape.lane_bits,
            "active": machine.post_processors,
            "place": PLACE_BITS,
            **dict.fromkeys(("stores", "ends_channel", "ends", "empty"), 1),
            "offset": offset_bits(machine),
            "map_offset": offset_bits(machine),
            "random": 32,
        }
    )


class Walk(wiring.Component):
    """One POST after the other. Two registers lie between a step and its item.

    Members:
        plan: in, steady while `busy`. begin: in, start, while not busy. busy: out, until the last item has left.
        items: out, stream of `item_layout`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(
            {
                "plan": In(plan_layout(machine)),
                "begin": In(1),
                "busy": Out(1),
                "items": Out(stream.Signature(item_layout(machine))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        starting, going, advance, step = Signal(), Signal(), Signal(), Signal()
        item, found, found_valid = Signal(item_layout(self.machine)), Signal(item_layout(self.machine)), Signal()
        m.d.comb += [
            advance.eq(~self.items.valid | self.items.ready),
            step.eq(going & advance),
            self.busy.eq(starting | going | found_valid | self.items.valid),
        ]
        m.d.sync += starting.eq(self.begin)
        with m.If(starting):
            m.d.sync += going.eq(1)
        with m.Elif(step & item.ends):
            m.d.sync += going.eq(0)
        moves = self._pixels(m, item, starting, step)
        self._offsets(m, item, starting, step, moves)
        slot, split_pe = self._channels(m, item, starting, step, moves)
        summands = self._in_pe(m, item, starting, step, moves, split_pe)

        # One register behind the choice of the PE, one behind the sum that is the address.
        kept = [Signal(part.shape(), name=f"summand_{number}") for number, part in enumerate((slot, *summands))]
        with m.If(advance):
            m.d.sync += [
                *(register.eq(part) for register, part in zip(kept, (slot, *summands), strict=True)),
                found_valid.eq(going),
                found.eq(item),
                self.items.valid.eq(found_valid),
                self.items.payload.eq(found),
                self.items.payload.address.eq(sum(kept[1:], kept[0])),
            ]
        return m

    def _pixels(self, m: Module, item: data.View, starting: Value, step: Value) -> "Moves":
        """Row and column, and those of the window's first pixel."""
        plan, box = self.plan, self.plan.box
        moves = Moves()
        self._row, self._column, self._first_row, self._first_column = (
            Signal(COORDINATE_BITS, name=name) for name in ("row", "column", "first_row", "first_column")
        )
        row, column, first_row, first_column = self._row, self._column, self._first_row, self._first_column
        in_rows, in_columns, place = Signal(WINDOW_BITS), Signal(WINDOW_BITS), Signal(PLACE_BITS)
        full_width, full_height, is_right, is_bottom = Signal(), Signal(), Signal(), Signal()
        column_ends, row_ends = Signal(), Signal()
        m.d.comb += [
            full_width.eq(in_columns + 1 == plan.walk_columns),
            full_height.eq(in_rows + 1 == plan.walk_rows),
            is_right.eq(column + 1 == box.right),
            is_bottom.eq(row + 1 == box.bottom),
            column_ends.eq(full_width | is_right),
            row_ends.eq(full_height | is_bottom),
            moves.inner_row.eq(column_ends & ~row_ends),
            moves.window.eq(column_ends & row_ends & ~is_right),
            moves.window_row.eq(column_ends & row_ends & is_right & ~is_bottom),
            moves.channel.eq((column_ends & row_ends & is_right & is_bottom) | plan.empty),
            item.place.eq(place),
            item.stores.eq(full_width & full_height & ~plan.empty),
            item.ends_channel.eq(moves.channel & ~plan.empty),
            item.empty.eq(plan.empty),
        ]
        with m.If(starting | (step & moves.channel)):
            m.d.sync += [row.eq(box.top), first_row.eq(box.top), column.eq(box.left), first_column.eq(box.left)]
            m.d.sync += [in_rows.eq(0), in_columns.eq(0), place.eq(0)]
        with m.Elif(step & (moves.window | moves.window_row)):
            m.d.sync += [in_rows.eq(0), in_columns.eq(0), place.eq(0)]
            with m.If(moves.window):
                m.d.sync += [row.eq(first_row), column.eq(column + 1), first_column.eq(column + 1)]
            with m.Else():
                m.d.sync += [row.eq(row + 1), first_row.eq(row + 1), column.eq(box.left), first_column.eq(box.left)]
        with m.Elif(step & moves.inner_row):
            m.d.sync += [row.eq(row + 1), in_rows.eq(in_rows + 1), column.eq(first_column), in_columns.eq(0), place.eq(place + 1)]
        with m.Elif(step):
            m.d.sync += [column.eq(column + 1), in_columns.eq(in_columns + 1), place.eq(place + 1)]
        return moves

    def _offsets(self, m: Module, item: data.View, starting: Value, step: Value, moves: "Moves") -> None:
        """Where the window's output lies, where mask and places of the pixel, and its random element."""
        plan, width = self.plan, offset_bits(self.machine)
        kinds = {
            "offset": (plan.first, plan.channel_words, plan.row_step, plan.column_step, width),
            "map_offset": (plan.map_first, plan.mask_channel_words, plan.mask_row_words, 1, width),
            "random": (plan.random_first, 0, plan.random_row_step, plan.random_batch, 32),
        }
        for name, (first, channel_step, row_step, column_step, bits) in kinds.items():
            of_channel, of_row, now = (Signal(bits, name=f"{name}_{of}") for of in ("of_channel", "of_row", "now"))
            next_channel, next_row = Signal(bits, name=f"{name}_next_channel"), Signal(bits, name=f"{name}_next_row")
            m.d.comb += [item[name].eq(now), next_channel.eq(of_channel + channel_step), next_row.eq(of_row + row_step)]
            with m.If(starting):
                m.d.sync += [of_channel.eq(first), of_row.eq(first), now.eq(first)]
            with m.Elif(step & moves.channel):
                m.d.sync += [of_channel.eq(next_channel), of_row.eq(next_channel), now.eq(next_channel)]
            with m.Elif(step & moves.window_row):
                m.d.sync += [of_row.eq(next_row), now.eq(next_row)]
            with m.Elif(step & moves.window):
                m.d.sync += now.eq(now + column_step)

    def _channels(
        self, m: Module, item: data.View, starting: Value, step: Value, moves: "Moves"
    ) -> tuple[Signal, Signal]:
        """Channels of a PE or group, PEs where they hold different channels, groups. Returns the channel's slot and its PE."""
        plan, machine = self.plan, self.machine
        bits = self.items.payload.shape()["address"].width
        slot, split_pe = Signal(bits, name="slot"), Signal(range(max(machine.pes_per_group, 2)))
        channel, number = Signal(plan.channels.shape()), Signal(CHANNELS_BITS)
        counts = [Signal(CHANNELS_BITS, name=f"count_{index}") for index in range(machine.post_processors)]
        turn = Signal(max(len(item.turn), 1), name="turn_now")
        m.d.comb += [
            *(item.active[index].eq(number < count) for index, count in enumerate(counts)),
            item.turn.eq(turn),
            item.ends.eq((moves.channel & (number + 1 == counts[0])) | plan.empty),
        ]
        with m.If(starting):
            m.d.sync += [count.eq(channels_of(plan, index)) for index, count in enumerate(counts)]
            m.d.sync += [slot.eq(plan.lane_base), split_pe.eq(0), channel.eq(0), number.eq(0), turn.eq(0)]
        with m.Elif(step & moves.channel):
            m.d.sync += [number.eq(number + 1), channel.eq(channel + 1), slot.eq(slot + plan.lane_slot_words)]
            with m.If(channel + 1 == plan.channels):
                m.d.sync += [channel.eq(0), slot.eq(plan.lane_base), split_pe.eq(split_pe + 1)]
                with m.If(~plan.channel_split | (split_pe == machine.pes_per_group - 1)):
                    m.d.sync += [split_pe.eq(0), turn.eq(turn + 1)]
        return slot, split_pe

    def _in_pe(
        self, m: Module, item: data.View, starting: Value, step: Value, moves: "Moves", split_pe: Value
    ) -> tuple[Value, Value]:
        """Which PE holds the pixel; where its row begins there, and how far into the row it is."""
        plan, bits = self.plan, len(item.address)
        holds, rows, columns = [], [], []
        for pe in range(self.machine.pes_per_group):
            rectangle = plan.rectangles[pe]
            width, row_at, window_at = (Signal(bits, name=f"{name}_{pe}") for name in ("width", "row_at", "window_at"))
            in_row, below = Signal(name=f"in_row_{pe}"), Signal(bits, name=f"below_{pe}")
            m.d.comb += [
                in_row.eq((self._row >= rectangle.top) & (self._row < rectangle.bottom)),
                below.eq(row_at + Mux(in_row, width, 0)),
            ]
            with m.If(starting | (step & moves.channel)):
                m.d.sync += [width.eq(rectangle.right - rectangle.left), row_at.eq(0), window_at.eq(0)]
            with m.Elif(step & moves.window):
                m.d.sync += row_at.eq(window_at)
            with m.Elif(step & moves.window_row):
                m.d.sync += [row_at.eq(below), window_at.eq(below)]
            with m.Elif(step & moves.inner_row):
                m.d.sync += row_at.eq(below)
            holds.append(in_row & (self._column >= rectangle.left) & (self._column < rectangle.right))
            rows.append(row_at)
            columns.append(rectangle.left[:bits])
        holder, row_at, left = Signal.like(item.pe), Signal(bits, name="held_row_at"), Signal(bits, name="held_left")
        m.d.comb += [
            holder.eq(Mux(plan.channel_split, 1, Cat(holds))),
            item.pe.eq(Mux(plan.empty, 0, Mux(plan.channel_split, 1 << split_pe, holder))),
        ]
        for pe, (of_row, of_column) in enumerate(zip(rows, columns, strict=True)):
            with m.If(holder[pe]):
                m.d.comb += [row_at.eq(of_row), left.eq(of_column)]
        return row_at, (self._column[:bits] - left)[:bits]


class Moves:
    """Where a step leads: to the window's next row, the next window, the next row of windows, the next channel."""

    def __init__(self) -> None:
        self.inner_row, self.window, self.window_row, self.channel = (
            Signal(name=f"to_{name}") for name in ("inner_row", "window", "window_row", "channel")
        )
