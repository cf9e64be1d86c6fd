"""Which words of a memory have been written since a clear, where a clear takes one cycle.

A block memory cannot be cleared in a cycle. Its reader takes 0 for a word that is not marked here.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class WrittenWords(wiring.Component):
    """A mark for each word of a memory of `words` words, a power of two of at least 4.

    The marks are rows in LUT RAM with a valid bit each, so a clear resets only the valid bits of a half: 512 words
    cost 32 registers and not 512. Rows are about as long as there are rows.

    Members:
        clear: in, a bit for each half: forgets all marks of the half. What else happens in the same cycle comes after it.
        address: in, word that the others mean.
        mark, unmark: in, sets or resets the mark; it shows from the next cycle on. Not both.
        marked: out, combinational, whether the word was marked.
    """

    def __init__(self, words: int) -> None:
        if words < 4 or words & (words - 1):
            raise ValueError(f"words is {words}: choose a power of two from 4")
        self.words = words
        address = (words - 1).bit_length()
        super().__init__(
            {
                "clear": In(2),
                "address": In(address),
                "mark": In(1),
                "unmark": In(1),
                "marked": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row_bits = 1 << (self.words - 1).bit_length() // 2
        rows, place_bits = self.words // row_bits, (row_bits - 1).bit_length()
        m.submodules.rows = memory = Memory(shape=row_bits, depth=rows, init=[])
        read, write = memory.read_port(domain="comb"), memory.write_port()
        valid = Signal(rows)
        cleared = Cat(self.clear[0].replicate(rows // 2), self.clear[1].replicate(rows // 2))
        still_valid = Signal(rows)
        m.d.comb += still_valid.eq(valid & ~cleared)

        place, row = self.address[:place_bits], self.address[place_bits:]
        marks, bit = Signal(row_bits), Signal(row_bits)
        m.d.comb += [
            read.addr.eq(row),
            marks.eq(Mux(still_valid.bit_select(row, 1), read.data, 0)),
            bit.eq(Const(1, 1) << place),
            self.marked.eq((marks & bit).any()),
            write.addr.eq(row),
            write.en.eq(self.mark | self.unmark),
            write.data.eq(Mux(self.mark, marks | bit, marks & ~bit)),
        ]
        m.d.sync += valid.eq(still_valid)
        with m.If(self.mark | self.unmark):
            m.d.sync += valid.bit_select(row, 1).eq(1)
        return m
