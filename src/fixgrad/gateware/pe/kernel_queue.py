"""The kernel queue of a PE: coordinates in a FIFO, weights in a memory beside it that is read at any tap."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.pe.shape import PeShape


class KernelQueue(wiring.Component):
    """A queue of kernels, `kernel_words` words together.

    A kernel shows at the head when its last word has come. Taken off the head (`head.ready`) it still holds its words,
    which taps on their way read; `release` gives them back.

    Members:
        entries: in, stream of words (`PeShape.kernel`).
        head: out, stream: the kernel whose turn it is, or an end mark.
        release: in, words to give back in this cycle; those of the oldest kernels.
        read_address: in, word of weights; `weights` (out) are its 9 weights one cycle later.
    """

    def __init__(self, shape: PeShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "entries": In(stream.Signature(shape.kernel())),
                "head": Out(stream.Signature(shape.head())),
                "release": In(5),
                "read_address": In(shape.kernel_bits),
                "weights": Out(shape.weights_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words = self.shape.kernel_words
        entry, push = self.entries.payload, Signal()
        level = Signal(range(words + 1))
        first_word, count = Signal(self.shape.kernel_bits), Signal(5)
        m.d.comb += [self.entries.ready.eq(level != words), push.eq(self.entries.valid & self.entries.ready)]
        m.d.sync += level.eq(level + push - self.release)

        m.submodules.weights = memory = Memory(shape=self.shape.weights_bits, depth=words, init=[])
        write, read = memory.write_port(), memory.read_port()
        address = Signal(self.shape.kernel_bits)
        m.d.comb += [
            address.eq(first_word + count),
            write.addr.eq(address),
            write.data.eq(entry.weights),
            write.en.eq(push),
            read.addr.eq(self.read_address),
            read.en.eq(1),
            self.weights.eq(read.data),
        ]
        complete = Signal()
        m.d.comb += complete.eq(push & (entry.last | entry.end))
        with m.If(complete):
            m.d.sync += [first_word.eq(address + 1), count.eq(0)]
        with m.Elif(push):
            m.d.sync += count.eq(count + 1)

        # Every entry takes a word of its own, so this FIFO never fills before the weights do.
        m.submodules.heads = heads = SyncFIFOBuffered(width=self.shape.head().size, depth=words)
        pushed = data.View(self.shape.head(), heads.w_data)
        m.d.comb += [
            Cat(pushed.out, pushed.in_, pushed.end, pushed.first_word, pushed.words).eq(
                Cat(entry.out, entry.in_, entry.end, first_word, (count + 1)[:5])
            ),
            heads.w_en.eq(complete),
            self.head.payload.eq(heads.r_data),
            self.head.valid.eq(heads.r_rdy),
            heads.r_en.eq(self.head.ready),
        ]
        return m
