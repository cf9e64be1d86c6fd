"""Takes taps when all that they need is there, and sends their codes through the lanes: a slice of a word a cycle.

Behind the issue of a slice nothing waits: there is room for what its pixel makes.
"""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import sum_of
from fixgrad.gateware.elementwise.coefficients import COEFFICIENTS
from fixgrad.gateware.elementwise.lane import ACCUMULATOR_CYCLE, PRODUCT_BITS, PRODUCT_CYCLE, ElementwiseLane
from fixgrad.gateware.elementwise.operand_reader import code, slice_of
from fixgrad.gateware.elementwise.plan import ARITHMETIC, TAP_BITS
from fixgrad.gateware.pe.sharing import shared
from fixgrad.gateware.post.plan import offset_bits
from fixgrad.gateware.post.post_lane import CODE_BITS
from fixgrad.gateware.post.word_writer import DEPTH
from fixgrad.machine import Machine
from fixgrad.numbers import ACCUMULATOR_BITS

#: Operands that a tap may wait for, in this order wherever there is a bit for each.
OPERANDS = ("first", "argmax", "second", "mask")


def issue_layout(machine: Machine) -> data.StructLayout:
    """What of a tap the lanes need: see `fixgrad.gateware.elementwise.walk.tap_layout`."""
    flags = dict.fromkeys(("inside", "begins", "ends", "ends_channel", "ends_all"), 1)
    return data.StructLayout({**flags, "number": TAP_BITS, "target": offset_bits(machine), "random": 32})


def pixel_layout(machine: Machine) -> data.StructLayout:
    """A pixel of all lanes on its way through a post-processor: accumulators, whether each lane's mask is open, its first random
    element, numbers of the maxima's taps, and where it goes."""
    return data.StructLayout(
        {
            "valid": 1,
            "accumulators": ACCUMULATOR_BITS * machine.lanes,
            "open": machine.lanes,
            "element": 32,
            "target": offset_bits(machine),
        }
    )


def channel_sum_layout(machine: Machine) -> data.StructLayout:
    """The sums of a slice over its lanes, of first codes and of products; whether it is the channel's last."""
    grows = machine.elementwise_lanes.bit_length()
    return data.StructLayout(
        {"valid": 1, "first": signed(CODE_BITS + grows), "product": signed(PRODUCT_BITS + grows), "ends_channel": 1}
    )


class Engine(wiring.Component):
    """The lanes and what feeds them.

    Members:
        arithmetic: in, steady; uses_second, uses_mask, uses_argmax: in, steady, see `plan_layout`.
        taps: in, stream of `issue_layout`. first, argmax, second, mask: in, streams of words. coefficients: in, stream.
        room: in, words that the writer takes; left: in, one has been given to it. sums_room: in, likewise for a channel's sums.
        starved: out, a bit for each of `OPERANDS`: the tap at hand waits for its word.
        pixel: out, see `pixel_layout`. winners: out, {valid, numbers}: the maxima's taps of a pixel, ahead of it.
        sums: out, see `channel_sum_layout`.
        issued: out, a slice is taken. blocked: out, one waits for room. ended: out, the last one of all is taken.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, lanes = machine, machine.lanes
        super().__init__(
            {
                "arithmetic": In(ARITHMETIC),
                **dict.fromkeys(("uses_second", "uses_mask", "uses_argmax"), In(1)),
                "taps": In(stream.Signature(issue_layout(machine))),
                "first": In(stream.Signature(2 * 8 * lanes)),
                "argmax": In(stream.Signature(8 * lanes)),
                "second": In(stream.Signature(2 * 8 * lanes)),
                "mask": In(stream.Signature(8 * lanes)),
                "coefficients": In(stream.Signature(COEFFICIENTS)),
                "room": In(range(DEPTH + 1)),
                "left": In(1),
                "sums_room": In(1),
                "starved": Out(len(OPERANDS)),
                "pixel": Out(pixel_layout(machine)),
                "winners": Out(data.StructLayout({"valid": 1, "numbers": TAP_BITS * lanes})),
                "sums": Out(channel_sum_layout(machine)),
                "issued": Out(1),
                "blocked": Out(1),
                "ended": Out(1),
            }
        )

    @property
    def slices(self) -> int:
        """Slices of a word."""
        return self.machine.lanes // self.machine.elementwise_lanes

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._number = Signal(range(max(self.slices, 2)), name="slice_number")
        self._is_last = Signal(name="is_last_slice")
        self._issue(m)
        tag = data.StructLayout(
            {"pixel": 1, "ends_pixel": 1, "ends_channel": 1, "slice": len(self._number), "open": self.machine.lanes}
            | {"element": 32, "target": offset_bits(self.machine)}
        )
        tags = [Signal(tag, name=f"tag_{cycle}") for cycle in range(ACCUMULATOR_CYCLE + 1)]
        for before, after in pairwise(tags):
            m.d.sync += after.eq(before)
        tap = self.taps.payload
        mask = [self.mask.payload.word_select(lane, 8) for lane in range(self.machine.lanes)]
        m.d.comb += [
            tags[0].pixel.eq(self.issued & tap.ends),
            tags[0].ends_pixel.eq(self._is_last),
            tags[0].ends_channel.eq(tap.ends_channel),
            tags[0].slice.eq(self._number),
            # An 8-bit code is above 0 if it has a bit besides the sign, and not that one.
            tags[0].open.eq(Cat(activation[:7].any() & ~activation[7] for activation in mask)),
            tags[0].element.eq(self.coefficients.payload.random + tap.random),
            tags[0].target.eq(tap.target),
        ]
        lanes = self._lanes(m, platform)
        self._gather(m, lanes, tags)
        self._add_up(m, lanes, tags)
        return m

    def _issue(self, m: Module) -> None:
        """Whether the slice at hand may go."""
        tap, arithmetic = self.taps.payload, self.arithmetic
        wanted = {
            "first": tap.inside,
            "argmax": tap.inside & self.uses_argmax,
            "second": tap.ends & self.uses_second,
            "mask": tap.ends & self.uses_mask,
        }
        here, room_here, makes, wait, inflight = Signal(), Signal(), Signal(2), Signal(2), Signal(range(2 * DEPTH))
        makes_words = tap.ends & ~arithmetic.sums
        # Slices of a word follow one another, so the first of them has asked for room.
        may_make = (self._number != 0) | ((self.room >= inflight + makes) & (wait == 0))
        has_room = Mux(arithmetic.sums, ~tap.ends_channel | self.sums_room, ~tap.ends | may_make)
        m.d.comb += [
            makes.eq(1 + arithmetic.wide + arithmetic.with_argmax),
            *(
                self.starved[index].eq(self.taps.valid & wanted[name] & ~getattr(self, name).valid)
                for index, name in enumerate(OPERANDS)
            ),
            here.eq(self.taps.valid & (self.starved == 0) & (~makes_words | self.coefficients.valid)),
            room_here.eq(has_room),
            self.issued.eq(here & room_here),
            self.blocked.eq(here & ~room_here),
            self._is_last.eq(self._number == self.slices - 1),
            self.taps.ready.eq(self.issued & self._is_last),
            *(getattr(self, name).ready.eq(self.taps.ready & wanted[name]) for name in OPERANDS),
            self.coefficients.ready.eq(self.taps.ready & makes_words & tap.ends_channel),
            self.ended.eq(self.taps.ready & tap.ends & tap.ends_all),
        ]
        if self.slices > 1:
            with m.If(self.issued):
                m.d.sync += self._number.eq(Mux(self._is_last, 0, self._number + 1))
        # A pixel's words leave one after the other before those of the next one come.
        with m.If(self.taps.ready & makes_words):
            m.d.sync += wait.eq(makes - 1)
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        promised = self.issued & makes_words & (self._number == 0)
        m.d.sync += inflight.eq(inflight + Mux(promised, makes, 0) - self.left)

    def _lanes(self, m: Module, platform: object) -> list[ElementwiseLane]:
        """The lanes with their codes and the channel's constants, each in its cycle."""
        arithmetic, tap, wide = self.arithmetic, self.taps.payload, 16
        constants = [self.coefficients.payload]
        for cycle in range(1, 4):
            later = Signal(COEFFICIENTS, name=f"constants_{cycle}")
            m.d.sync += later.eq(constants[-1])
            constants.append(later)
        number, width = self._number, self.machine.elementwise_lanes
        first, second, argmax = (Signal(bits * width, name=name) for name, bits in (("first", 16), ("second", 16), ("argmax", 8)))
        m.d.comb += [
            first.eq(slice_of(self._codes(self.first.payload, arithmetic.first_wide), number, wide * width)),
            second.eq(slice_of(self._codes(self.second.payload, arithmetic.second_wide), number, wide * width)),
            argmax.eq(slice_of(self.argmax.payload, number, 8 * width)),
        ]
        lanes = [ElementwiseLane(self.slices) for _ in range(width)]
        for index, lane in enumerate(lanes):
            m.submodules[f"lane_{index}"] = shared(lane, platform)
            of_first = first.word_select(index, CODE_BITS).as_signed()
            of_second = second.word_select(index, CODE_BITS).as_signed()
            m.d.comb += [
                lane.combine.eq(arithmetic.combine),
                lane.sums.eq(arithmetic.sums),
                lane.down.eq(arithmetic.down),
                lane.rectify.eq(arithmetic.rectify),
                lane.take.valid.eq(self.issued),
                lane.take.inside.eq(tap.inside),
                lane.take.begins.eq(tap.begins),
                lane.take.number.eq(tap.number),
                lane.take.slice.eq(number),
                lane.first.eq(of_first),
                lane.argmax.eq(argmax.word_select(index, 8)),
                lane.second.eq(Mux(arithmetic.square, of_first, Mux(self.uses_second, of_second, 0))),
                lane.a.eq(constants[1].a),
                lane.b.eq(constants[1].b),
                lane.c.eq(constants[3].c),
            ]
        return lanes

    def _codes(self, word: Signal, wide: Signal) -> Signal:
        """All codes of a word, 16 bits each."""
        return Cat(code(word, lane, wide) for lane in range(self.machine.lanes))

    def _gather(self, m: Module, lanes: list[ElementwiseLane], tags: list[data.View]) -> None:
        """Slices to whole words: of accumulators, and of the numbers of maxima."""
        now, pixel = tags[ACCUMULATOR_CYCLE], self.pixel
        whole = self._word(m, "accumulators", Cat(lane.accumulator for lane in lanes), now)
        winners = self._word(m, "winners", Cat(lane.winner for lane in lanes), tags[1])
        m.d.comb += [
            pixel.valid.eq(now.pixel & now.ends_pixel & ~self.arithmetic.sums),
            pixel.accumulators.eq(whole),
            *(pixel[name].eq(now[name]) for name in ("open", "element", "target")),
            self.winners.valid.eq(tags[1].pixel & tags[1].ends_pixel & self.arithmetic.with_argmax),
            self.winners.numbers.eq(winners),
        ]

    def _word(self, m: Module, name: str, part: Signal, tag: data.View) -> Signal:
        """A slice of this cycle behind those before it."""
        parts = []
        for index in range(self.slices - 1):
            kept = Signal(len(part), name=f"{name}_{index}")
            with m.If(tag.pixel & (tag.slice == index)):
                m.d.sync += kept.eq(part)
            parts.append(kept)
        return Cat(*parts, part)

    def _add_up(self, m: Module, lanes: list[ElementwiseLane], tags: list[data.View]) -> None:
        """First codes and products over the lanes of a slice."""
        tag, codes = tags[PRODUCT_CYCLE], []
        for index, lane in enumerate(lanes):
            value = lane.first_code
            for cycle in range(2, PRODUCT_CYCLE + 1):
                later = Signal(signed(CODE_BITS), name=f"first_{index}_{cycle}")
                m.d.sync += later.eq(value)
                value = later
            codes.append(value)
        m.d.sync += [
            self.sums.valid.eq(tag.pixel & self.arithmetic.sums),
            self.sums.ends_channel.eq(tag.ends_channel & tag.ends_pixel),
            self.sums.first.eq(sum_of(codes)),
            self.sums.product.eq(sum_of([lane.product for lane in lanes])),
        ]
