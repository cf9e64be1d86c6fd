"""From the codes of the post-processor to words with addresses: codes (two words if they are wide), then the maxima's taps."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import Fifo
from fixgrad.gateware.elementwise.plan import TAP_BITS
from fixgrad.gateware.post.output import addressed_word
from fixgrad.gateware.post.plan import lane_shift, offset_bits
from fixgrad.gateware.post.post_lane import CODE_BITS
from fixgrad.gateware.post.post_processor import POST_LATENCY
from fixgrad.machine import Machine
from fixgrad.machine.instructions import ADDRESS_BITS

#: Pixels between their maxima and their codes.
_PIXELS = 32


class Output(wiring.Component):
    """Two registers behind the codes.

    Members:
        valid, target: in, a pixel enters the post-processor, and where it goes, in words of the map. codes: in, of the pixel of
            `POST_LATENCY` cycles before. winners: in, {valid, numbers}: of each pixel, before its codes.
        base, argmax: in, addresses, steady. wide, with_argmax: in, steady.
        word: out, see `addressed_word`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, lanes = machine, machine.lanes
        super().__init__(
            {
                "valid": In(1),
                "target": In(offset_bits(machine)),
                "codes": In(CODE_BITS * lanes),
                "winners": In(data.StructLayout({"valid": 1, "numbers": TAP_BITS * lanes})),
                "base": In(ADDRESS_BITS),
                "argmax": In(ADDRESS_BITS),
                "wide": In(1),
                "with_argmax": In(1),
                "word": Out(addressed_word(machine)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, shift, word = self.machine.lanes, lane_shift(self.machine), self.word
        tag = data.StructLayout({"valid": 1, "target": offset_bits(self.machine)})
        tags = [Signal(tag, name=f"tag_{cycle}") for cycle in range(POST_LATENCY + 1)]
        m.d.comb += [tags[0].valid.eq(self.valid), tags[0].target.eq(self.target)]
        for before, after in pairwise(tags):
            m.d.sync += after.eq(before)
        m.submodules.winners = winners = Fifo(TAP_BITS * lanes, _PIXELS)
        m.d.comb += [winners.i.valid.eq(self.winners.valid), winners.i.payload.eq(self.winners.numbers)]

        # What is still to leave of the pixel whose codes came last.
        now, upper, target = tags[-1], Signal(8 * lanes), Signal(offset_bits(self.machine))
        has_upper, has_winners = Signal(), Signal()
        narrow = Cat(self.codes.word_select(lane, CODE_BITS)[:8] for lane in range(lanes))
        address = (self.base + (Mux(self.wide, now.target << 1, now.target) << shift))[:ADDRESS_BITS]
        m.d.sync += word.valid.eq(now.valid | has_upper | has_winners)
        with m.If(now.valid):
            m.d.sync += [
                word.address.eq(address),
                word.data.eq(Mux(self.wide, self.codes[: 8 * lanes], narrow)),
                upper.eq(self.codes[8 * lanes :]),
                target.eq(now.target),
                has_upper.eq(self.wide),
                has_winners.eq(self.with_argmax),
            ]
        with m.Elif(has_upper):
            m.d.sync += [word.address.eq(word.address + lanes), word.data.eq(upper), has_upper.eq(0)]
        with m.Elif(has_winners):
            m.d.sync += [word.address.eq(self.argmax + (target << shift)), word.data.eq(winners.o.payload), has_winners.eq(0)]
            m.d.comb += winners.o.ready.eq(1)
        return m
