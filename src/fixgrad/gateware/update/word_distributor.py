"""Beats into words, for one lane."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.update.shape import TENSORS, UpdateShape


class WordDistributor(wiring.Component):
    """A word a cycle; a beat waits behind the one at hand, so the engine goes on to other lanes.

    Members:
        beats: in, stream.
        word: out. valid: out, a bit for the tensor that the word is of, or 0. Whoever asked for the beat has room.
    """

    def __init__(self, shape: UpdateShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "beats": In(stream.Signature(shape.beat())),
                "word": Out(8 * shape.word_bytes),
                "valid": Out(TENSORS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        now, following = Signal(self.shape.beat()), Signal(self.shape.beat())
        has_now, has_following, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            self.beats.ready.eq(~has_following),
            self.word.eq(now.data.word_select(now.first, 8 * self.shape.word_bytes)),
            self.valid.eq(Mux(has_now, 1 << now.tensor, 0)),
            ends.eq(now.first == now.last),
        ]
        with m.If(has_now & ~ends):
            m.d.sync += now.first.eq(now.first + 1)
        with m.Else():
            m.d.sync += [now.eq(following), has_now.eq(has_following), has_following.eq(0)]
        with m.If(self.beats.valid & self.beats.ready):
            m.d.sync += [following.eq(self.beats.payload), has_following.eq(1)]
        return m
