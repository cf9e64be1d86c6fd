"""Cuts the transfers of many streams into blocks, in turn."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import RoundRobin
from fixgrad.gateware.update.shape import LENGTH_BITS, UpdateShape


class BlockCutter(wiring.Component):
    """A block a cycle, round robin over the streams (of a stream one every other cycle). Where each transfer stands lies in one
    small memory, so a stream costs a few bits.

    A block never crosses a multiple of `shape.block_bytes`, so it is a burst.

    Members:
        open: in, stream: transfers; one of a stream is taken when all blocks of that before are out: when its bit of `free` (out)
            is set. Whoever merges transfers offers no others, lest one that waits hold up those of other lanes.
        may: in, a bit for each stream: it has room for a block (read), or a block's data are here (write).
        o: out, stream: blocks. cut: out: a block is cut in this cycle: `stream`, `words`; `may` is looked at again after that.
    """

    def __init__(self, shape: UpdateShape) -> None:
        self.shape = shape
        block = shape.block()
        cut = data.StructLayout({name: block[name].shape for name in ("stream", "words")} | {"valid": 1})
        super().__init__(
            {
                "open": In(stream.Signature(shape.transfer())),
                "free": Out(shape.streams),
                "may": In(shape.streams),
                "o": Out(stream.Signature(block)),
                "cut": Out(cut),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = self.shape
        names = ("address", "length", "index")
        place = data.StructLayout({name: shape.transfer()[name].shape for name in names})
        m.submodules.places = places = Memory(shape=place, depth=shape.streams, init=[])
        read, write = places.read_port(domain="comb"), places.write_port()
        m.submodules.turn = turn = RoundRobin(shape.streams)
        active, chosen, has_chosen = Signal(shape.streams), Signal(shape.stream_bits), Signal()
        opens, cuts = Signal(), Signal()
        m.d.comb += [
            self.free.eq(~active),
            self.open.ready.eq(~active.bit_select(self.open.payload.stream, 1)),
            opens.eq(self.open.valid & self.open.ready),
            # The stream that was chosen is being cut; nothing is known yet of what comes behind its block.
            turn.requests.eq(active & self.may & ~Mux(has_chosen, Value.cast(1) << chosen, 0)),
            turn.take.eq(turn.any & (~has_chosen | cuts)),
            cuts.eq(has_chosen & ~opens & (~self.o.valid | self.o.ready)),
            read.addr.eq(chosen),
        ]
        with m.If(~has_chosen | cuts):
            m.d.sync += [has_chosen.eq(turn.any), chosen.eq(turn.choice)]

        here = read.data
        offset, room = here.address[: shape.block_bits], Signal(range(shape.block_bytes + 1))
        is_last, length = Signal(), Signal(range(shape.block_bytes + 1))
        words = Signal(range(shape.block_words + 1))
        low = (shape.word_bytes - 1).bit_length()
        m.d.comb += [
            room.eq(shape.block_bytes - offset),
            is_last.eq(here.length <= room),
            length.eq(Mux(is_last, here.length, room)),
            words.eq((offset[:low] + length + shape.word_bytes - 1) >> low),
            self.cut.valid.eq(cuts),
            self.cut.stream.eq(chosen),
            self.cut.words.eq(words),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(cuts):
            out = self.o.payload
            m.d.sync += [self.o.valid.eq(1), out.stream.eq(chosen), out.address.eq(here.address), out.index.eq(here.index)]
            m.d.sync += [out.length.eq(length), out.words.eq(words), out.last.eq(is_last)]
            m.d.sync += active.bit_select(chosen, 1).eq(~is_last)
        with m.If(opens):
            m.d.sync += active.bit_select(self.open.payload.stream, 1).eq(1)
        following = here.address[shape.block_bits :] + 1
        left = Signal(LENGTH_BITS)
        m.d.comb += [
            left.eq(here.length - length),
            write.en.eq(opens | cuts),
            write.addr.eq(Mux(opens, self.open.payload.stream, chosen)),
            write.data.address.eq(Mux(opens, self.open.payload.address, following << shape.block_bits)),
            write.data.length.eq(Mux(opens, self.open.payload.length, left)),
            write.data.index.eq(Mux(opens, self.open.payload.index, here.index)),
        ]
        return m
