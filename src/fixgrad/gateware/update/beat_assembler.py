"""Words into beats, for one lane."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import Fifo, connect_payload
from fixgrad.gateware.update.shape import TENSORS, UpdateShape

#: Blocks of a lane that wait to be assembled.
RUNS = 4


class BeatAssembler(wiring.Component):
    """A word a cycle; a beat that is complete waits beside the one at hand until the engine comes to its lane.

    Members:
        runs: in, stream: words of blocks; all of them are here.
        words: in, array, the oldest word of each tensor. pop: out, a bit for the tensor whose word is taken, or 0.
        beats: out, stream; bytes that are not the block's are any.
    """

    def __init__(self, shape: UpdateShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "runs": In(stream.Signature(shape.run())),
                "words": In(8 * shape.word_bytes).array(TENSORS),
                "pop": Out(TENSORS),
                "beats": Out(stream.Signature(8 * shape.ports.port_bytes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = self.shape
        bits = 8 * shape.word_bytes
        m.submodules.fifo = fifo = Fifo(shape.run(), RUNS)
        connect_payload(m, self.runs, fifo.i)
        beat, complete = Signal(8 * shape.ports.port_bytes), Signal()
        run, active = Signal(shape.run()), Signal()
        takes, ends, is_last, hands_over = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            hands_over.eq(complete & (~self.beats.valid | self.beats.ready)),
            takes.eq(active & (~complete | hands_over)),
            is_last.eq(run.words == 1),
            ends.eq(is_last | (run.first == shape.beat_words - 1)),
            fifo.o.ready.eq(~active | (takes & is_last)),
        ]
        with m.If(takes):
            m.d.comb += self.pop.eq(1 << run.tensor)
            m.d.sync += [
                beat.word_select(run.first, bits).eq(Array(self.words)[run.tensor]),
                run.first.eq(run.first + 1),
                run.words.eq(run.words - 1),
            ]
            if shape.beat_words == 1:
                m.d.sync += run.first.eq(0)
        with m.If(fifo.o.ready):
            m.d.sync += [run.eq(fifo.o.payload), active.eq(fifo.o.valid)]
        with m.If(hands_over):
            m.d.sync += complete.eq(0)
        with m.If(takes & ends):
            m.d.sync += complete.eq(1)
        with m.If(self.beats.ready):
            m.d.sync += self.beats.valid.eq(0)
        with m.If(hands_over):
            m.d.sync += [self.beats.valid.eq(1), self.beats.payload.eq(beat)]
        return m
