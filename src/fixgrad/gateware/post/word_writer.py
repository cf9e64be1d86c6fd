"""Writes words of feature maps to memory: words with addresses in, bursts out, acknowledgements counted.

Words that follow one another in a beat and beats that follow one another in a burst are put together as they come, so any
shape (rows of a rectangle, whole channels, the rows of pooling windows) makes the longest bursts that its order allows, and
nobody has to know them in advance. A word lies at a multiple of its size, so nothing is shifted.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.axi.burst import FAULT, FaultKind, MemoryPorts
from fixgrad.gateware.axi.client import WritePort
from fixgrad.gateware.axi.streams import Fifo
from fixgrad.gateware.post.burst_sender import PairedBurstSender, beat_layout, sent_burst_layout

#: Beats, and bursts, that wait to be sent. A burst may be one word, so there are as many of one as of the other.
DEPTH = 64
_KEPT = 4


class WordWriter(wiring.Component):
    """Takes a word a cycle as long as there is room. Words belong to one of two instructions, told apart by a bit.

    Args:
        ports: the memory. word_bytes: of a word, a power of two; its address is a multiple of it.

    Members:
        word: in, {valid, address, data}. room: out, words that may come without waiting for anything.
        end: in, the words of instruction `of` (in; steady for three cycles more) have all come; never with a word.
        close: in, what waits for further words to make a longer burst is not to wait any more.
        completed: out, a bit for each instruction: it has ended and all its words are acknowledged; until `forget` (in).
        base, limit, stop, fault, quiet, port: see `fixgrad.gateware.axi.writer.Writer`. fault_of: out, with `fault`: the
            instruction.
    """

    def __init__(self, ports: MemoryPorts, word_bytes: int) -> None:
        self.memory, self.word_bytes = ports, word_bytes
        super().__init__(
            {
                "word": In(data.StructLayout({"valid": 1, "address": ports.address_bits, "data": 8 * word_bytes})),
                "room": Out(range(DEPTH + 1)),
                "end": In(1),
                "of": In(1),
                "close": In(1),
                "completed": Out(2),
                "forget": In(2),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "fault": Out(stream.Signature(FAULT, always_ready=True)),
                "fault_of": Out(1),
                "quiet": Out(1),
                "port": Out(WritePort(ports)).array(ports.channels),
            }
        )

    @property
    def piece_bytes(self) -> int:
        """What is written at once: a word, or a beat of it."""
        return min(self.word_bytes, self.memory.port_bytes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sender = sender = PairedBurstSender(self.memory, self.piece_bytes)
        m.submodules.beats = beats = Fifo(beat_layout(self.memory, self.piece_bytes), DEPTH, patient=True)
        m.submodules.bursts = bursts = Fifo(sent_burst_layout(self.memory), DEPTH, patient=True)
        for mine, inner in zip(self.port, sender.port, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)
        for fifo, to in ((beats, sender.beats), (bursts, sender.bursts)):
            m.d.comb += [Value.cast(to.payload).eq(Value.cast(fifo.o.payload)), to.valid.eq(fifo.o.valid)]
            m.d.comb += fifo.o.ready.eq(to.ready)
        ending = Signal(2)
        piece, end, close, of = self._pieces(m, beats, ending)
        outside = Signal()
        m.d.comb += [
            outside.eq((piece.address < self.base) | (piece.address + self.piece_bytes > self.limit)),
            sender.stop.eq(self.stop),
            sender.forget.eq(self.forget),
            self.completed.eq(sender.completed),
            self.quiet.eq(sender.quiet),
            self.fault.valid.eq((piece.valid & outside) | sender.failed),
            self.fault.payload.kind.eq(Mux(sender.failed, FaultKind.WRITE, FaultKind.OUTSIDE)),
            self.fault.payload.address.eq(Mux(sender.failed, sender.failed_address, piece.address)),
            self.fault_of.eq(Mux(sender.failed, sender.failed_of, of)),
        ]
        self._assemble(m, piece, piece.valid & ~outside, end, close, of, ending, beats, bursts)
        return m

    def _pieces(self, m: Module, beats: Fifo, ending: Value) -> tuple[data.View, Value, Value, Value]:
        """Words, or the beats that a word makes one after the other."""
        count = self.word_bytes // self.piece_bytes
        if count == 1:
            m.d.comb += self.room.eq(_room(beats))
            return self.word, self.end, self.close, self.of
        layout = data.StructLayout({"address": self.memory.address_bits, "data": 8 * self.word_bytes, "end": 1, "of": 1})
        m.submodules.words = words = Fifo(layout, DEPTH)
        place, moves, latest = Signal(range(count)), Signal(), Signal()
        piece = Signal(data.StructLayout({"valid": 1, "address": self.memory.address_bits, "data": 8 * self.piece_bytes}))
        head = words.o.payload
        m.d.comb += [
            self.room.eq(_room(words)),
            words.i.valid.eq(self.word.valid | self.end),
            words.i.payload.address.eq(self.word.address),
            words.i.payload.data.eq(self.word.data),
            words.i.payload.end.eq(self.end),
            words.i.payload.of.eq(self.of),
            moves.eq(words.o.valid & (beats.level < DEPTH - 2) & (ending == 0)),
            piece.valid.eq(moves & ~head.end),
            piece.address.eq(head.address | place * self.piece_bytes),
            piece.data.eq(head.data.word_select(place, 8 * self.piece_bytes)),
            words.o.ready.eq(moves & (head.end | (place == count - 1))),
        ]
        with m.If(piece.valid):
            m.d.sync += place.eq(place + 1)
        with m.If(moves):
            m.d.sync += latest.eq(head.of)
        return piece, moves & head.end, (self.close | (beats.level >= DEPTH - 2)) & ~moves, Mux(moves, head.of, latest)

    def _assemble(
        self,
        m: Module,
        piece: data.View,
        takes: Value,
        end: Value,
        close: Value,
        of: Value,
        ending: Signal,
        beats: Fifo,
        bursts: Fifo,
    ) -> None:
        """Pieces into a beat, beats into a burst. An end takes three cycles: the beat, its burst, the end itself."""
        ports, size = self.memory, self.piece_bytes
        places = ports.port_bytes // size
        beat, has_beat, address = Signal(beats.i.payload.shape()), Signal(), Signal(ports.address_bits - ports.offset_bits)
        longest = ports.burst_bytes // ports.port_bytes
        first, count, next_address = Signal.like(address), Signal(range(longest + 1)), Signal.like(address)
        burst_places = ceil_log2(longest)
        to_beat = piece.address[ports.offset_bits :]
        joins, pushes, goes_on, ends = (Signal(name=name) for name in ("joins", "pushes", "goes_on", "ends"))
        m.d.comb += [
            joins.eq(has_beat & (to_beat == address)),
            # A beat that is full does not wait: the words behind it may be far.
            pushes.eq(has_beat & ((takes & ~joins) | end | beat.strobe.all())),
            goes_on.eq((count != 0) & (address == next_address) & (address[:burst_places] != 0)),
            beats.i.valid.eq(pushes),
            Value.cast(beats.i.payload).eq(Value.cast(beat)),
            ends.eq((count != 0) & ((pushes & ~goes_on) | (ending != 0) | (close & ~pushes & (bursts.level == 0)))),
        ]
        place = piece.address[ceil_log2(size) : ports.offset_bits]
        for index in range(places):
            mine = takes & (place == index) if places > 1 else takes
            with m.If(mine):
                m.d.sync += [beat.data.word_select(index, 8 * size).eq(piece.data), beat.strobe[index].eq(1)]
            with m.Elif(pushes):
                m.d.sync += beat.strobe[index].eq(0)
        with m.If(takes):
            m.d.sync += [has_beat.eq(1), address.eq(to_beat)]
        with m.Elif(pushes):
            m.d.sync += has_beat.eq(0)
        with m.If(pushes):
            m.d.sync += [count.eq(Mux(goes_on, count + 1, 1)), next_address.eq(address + 1)]
            with m.If(~goes_on):
                m.d.sync += first.eq(address)
        with m.Elif(ends):
            m.d.sync += count.eq(0)
        m.d.sync += ending.eq(Cat(end, ending[0]))
        m.d.comb += [
            bursts.i.valid.eq(ends | ending[1]),
            bursts.i.payload.address.eq(Cat(Const(0, ports.offset_bits), first)),
            bursts.i.payload.beats.eq(count - 1),
            bursts.i.payload.of.eq(of),
            bursts.i.payload.end.eq(ending[1]),
        ]


def _room(fifo: Fifo) -> Value:
    """Places for words: those of the beat that is being put together and of two ends of instructions are kept."""
    return Mux(fifo.level > DEPTH - _KEPT, 0, DEPTH - _KEPT - fifo.level)
