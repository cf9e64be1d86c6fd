"""From the codes of the post-processors to words with addresses, for all of them at once: they walk in step.

    FF   a window makes one to three words of `lanes` bytes: its codes (two words if they are wide), the places of its maxima
    NG   a word of errors makes one for each element of the pooling window before it, row by row
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.post.plan import lane_shift, offset_bits, plan_layout, times
from fixgrad.gateware.post.post_lane import CODE_BITS, PLACE_BITS
from fixgrad.machine import Machine
from fixgrad.machine.instructions import ADDRESS_BITS


def addressed_word(machine: Machine) -> data.StructLayout:
    """A word of a feature map and where it goes, if `valid`."""
    return data.StructLayout({"valid": 1, "address": ADDRESS_BITS, "data": 8 * machine.lanes})


class Output(wiring.Component):
    """Three registers from codes to words.

    Members:
        plan: in, steady from `begin` (in) until the last word has left.
        starts: in, codes are there that make words; offset, active: in, of their item.
        codes, places: in, of each post-processor, all lanes; NG: in this cycle and those of the window's other elements.
        words: out, for each post-processor {valid, address, data}.
        left: out, words leave in this cycle, if their post-processor is active.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, lanes, number = machine, machine.lanes, machine.post_processors
        super().__init__(
            {
                "plan": In(plan_layout(machine)),
                "begin": In(1),
                "starts": In(1),
                "offset": In(offset_bits(machine)),
                "active": In(number),
                "codes": In(CODE_BITS * lanes).array(number),
                "places": In(PLACE_BITS * lanes).array(number),
                "words": Out(addressed_word(machine)).array(number),
                "left": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        plan, ng = self.plan, self.plan.setting.ng
        remaining, goes_on = Signal(plan.window.shape()), Signal()
        valid, active = Signal(), Signal(self.machine.post_processors)
        m.d.comb += goes_on.eq(~self.starts & (remaining != 0))
        m.d.sync += valid.eq(self.starts | goes_on)
        with m.If(self.starts):
            m.d.sync += [remaining.eq(Mux(ng, plan.window, plan.parts) - 1), active.eq(self.active)]
        with m.Elif(goes_on):
            m.d.sync += remaining.eq(remaining - 1)
        offset, is_places = self._offset(m, goes_on, remaining)
        m.d.sync += self.left.eq(valid)
        shift, width = lane_shift(self.machine), offset_bits(self.machine)
        for index, word in enumerate(self.words):
            # Where the post-processor's channels begin.
            of_codes, of_places, base = (Signal(ADDRESS_BITS, name=f"{name}_{index}") for name in ("codes_at", "places_at", "at"))
            skipped = Signal(width, name=f"skipped_{index}")
            m.d.comb += [
                skipped.eq(times(plan.post_words, index, width) if index else 0),
                base.eq(Mux(is_places, of_places, of_codes)),
            ]
            with m.If(self.begin):
                m.d.sync += [
                    of_codes.eq(plan.target + (Mux(plan.wide, skipped << 1, skipped) << shift)),
                    of_places.eq(plan.places + (skipped << shift)),
                ]
            m.d.sync += [
                word.valid.eq(valid & active[index]),
                word.address.eq(base + (offset << shift)),
                word.data.eq(self._data(m, index)),
            ]
        return m

    def _data(self, m: Module, index: int) -> Signal:
        """The word that leaves: codes at once, what else there is of them in the cycles after."""
        lanes, plan, codes, places = self.machine.lanes, self.plan, self.codes[index], self.places[index]
        now, held = Signal(8 * lanes, name=f"now_{index}"), Signal(8 * lanes, name=f"held_{index}")
        narrow = Cat(codes.word_select(lane, CODE_BITS)[:8] for lane in range(lanes))
        lower, upper = codes[: 8 * lanes], codes[8 * lanes :]
        # Places stay until the next window's first code, which is not earlier than the third part takes them.
        m.d.sync += [
            now.eq(Mux(self.starts | plan.setting.ng, Mux(plan.wide, lower, narrow), held)),
            held.eq(Mux(self.starts & plan.wide, upper, places)),
        ]
        return now

    def _offset(self, m: Module, goes_on: Signal, remaining: Signal) -> tuple[Signal, Signal]:
        """Of the word that leaves, in words of `lanes` bytes; and whether it is one of places."""
        plan, ng, width = self.plan, self.plan.setting.ng, offset_bits(self.machine)
        offset, row, column, first = Signal(width), Signal(width), Signal(plan.pool_columns.shape()), Signal(width)
        is_places, next_row = Signal(), Signal(width)
        m.d.comb += next_row.eq(row + plan.row_words)
        with m.If(self.starts):
            m.d.sync += [
                offset.eq(Mux(plan.wide, self.offset << 1, self.offset)),
                row.eq(self.offset),
                first.eq(self.offset),
                column.eq(1),
                is_places.eq(0),
            ]
        with m.Elif(goes_on & ng):
            with m.If(column == plan.pool_columns):
                m.d.sync += [offset.eq(next_row), row.eq(next_row), column.eq(1)]
            with m.Else():
                m.d.sync += [offset.eq(offset + 1), column.eq(column + 1)]
        with m.Elif(goes_on):
            is_last = plan.with_argmax & (remaining == 1)
            m.d.sync += [is_places.eq(is_last), offset.eq(Mux(is_last, first, offset | 1))]
        return offset, is_places
