"""Brings what each channel needs: a, b, c of its record, and its first random element, ahead of the taps."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import Fifo
from fixgrad.gateware.axi.window import element_layout
from fixgrad.gateware.elementwise.plan import CHANNEL_BITS
from fixgrad.gateware.post.narrow_engines import ELEMENT_BYTES, TRANSFER
from fixgrad.machine.elementwise_instructions import RECORD, RECORD_BYTES
from fixgrad.machine.instructions import ADDRESS_BITS

#: Bits of a, b and c: those that their record says.
FACTOR_BITS, OTHER_FACTOR_BITS, OFFSET_BITS = 32, 38, 56
#: The values of a channel. `random`: its first random element.
COEFFICIENTS = data.StructLayout(
    {"a": signed(FACTOR_BITS), "b": signed(OTHER_FACTOR_BITS), "c": signed(OFFSET_BITS), "random": 32}
)
_PLACES = {item.name: item.offset for item in RECORD}
_FIRST, _WORDS = _PLACES["a"], (_PLACES["c"] + 8 - _PLACES["a"]) // ELEMENT_BYTES
#: Channels that are here ahead.
_CHANNELS = 4


class Coefficients(wiring.Component):
    """The channels of one instruction after another.

    Members:
        begin: in, a pulse. channels: in, of them, steady. constants: in, what holds for all channels where it is not read.
        per_channel, record: in, records are read, from here on. stochastic, element: in, random elements are read.
        reads: out, stream of transfers. values: in, stream of their elements.
        o: out, stream of `COEFFICIENTS`, one for each channel.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "begin": In(1),
                "channels": In(CHANNEL_BITS),
                "constants": In(COEFFICIENTS),
                "per_channel": In(1),
                "record": In(ADDRESS_BITS),
                "stochastic": In(1),
                "element": In(ADDRESS_BITS),
                "reads": Out(stream.Signature(TRANSFER)),
                "values": In(stream.Signature(element_layout(ELEMENT_BYTES))),
                "o": Out(stream.Signature(COEFFICIENTS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._ask(m)
        m.submodules.queue = queue = Fifo(COEFFICIENTS, _CHANNELS)
        m.d.comb += [self.o.payload.eq(queue.o.payload), self.o.valid.eq(queue.o.valid), queue.o.ready.eq(self.o.ready)]
        # Words of a record, then one of a random element, as they arrive; the last one goes to the queue with the others.
        left, place, words = Signal(CHANNEL_BITS), Signal(range(_WORDS + 1)), Signal(data.ArrayLayout(32, _WORDS))
        takes, is_last, moves = Signal(), Signal(), Signal()
        value, given = self.values.payload.data, Signal(data.ArrayLayout(32, _WORDS))
        first, last = Mux(self.per_channel, 0, _WORDS), Mux(self.stochastic, _WORDS, _WORDS - 1)
        reads_any = self.per_channel | self.stochastic
        record = Cat(given[index] for index in range(_WORDS))
        m.d.comb += [
            is_last.eq(place == last),
            takes.eq((left != 0) & (~reads_any | self.values.valid)),
            moves.eq(takes & (~is_last | queue.i.ready | ~reads_any) & (reads_any | queue.i.ready)),
            self.values.ready.eq(moves & reads_any),
            queue.i.valid.eq(takes & (is_last | ~reads_any)),
            *(given[index].eq(Mux(place == index, value, words[index])) for index in range(_WORDS)),
        ]
        out = queue.i.payload
        m.d.comb += out.random.eq(Mux(self.stochastic, value, 0))
        with m.If(self.per_channel):
            for name, shape in (("a", FACTOR_BITS), ("b", OTHER_FACTOR_BITS), ("c", OFFSET_BITS)):
                low = 8 * (_PLACES[name] - _FIRST)
                m.d.comb += out[name].eq(record[low : low + shape])
        with m.Else():
            m.d.comb += [out[name].eq(self.constants[name]) for name in ("a", "b", "c")]
        with m.If(self.begin):
            m.d.sync += [left.eq(self.channels), place.eq(first)]
        with m.Elif(moves):
            m.d.sync += place.eq(Mux(is_last | ~reads_any, first, place + 1))
            m.d.sync += left.eq(left - (is_last | ~reads_any))
            with m.If(place != _WORDS):
                m.d.sync += Array(list(words))[place].eq(value)
        return m

    def _ask(self, m: Module) -> None:
        """Transfers of one channel after the other: its record, its random element."""
        left, is_element = Signal(CHANNEL_BITS, name="unasked"), Signal()
        record, element = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        wants = Mux(is_element, self.stochastic, self.per_channel)
        ends = Signal(name="asked")
        m.d.comb += [
            self.reads.valid.eq((left != 0) & wants),
            self.reads.payload.address.eq(Mux(is_element, element, record)),
            self.reads.payload.length.eq(Mux(is_element, ELEMENT_BYTES, ELEMENT_BYTES * _WORDS)),
            ends.eq((left != 0) & (~wants | self.reads.ready)),
        ]
        with m.If(self.begin):
            m.d.sync += [left.eq(self.channels), is_element.eq(0), record.eq(self.record + _FIRST), element.eq(self.element)]
        with m.Elif(ends):
            m.d.sync += is_element.eq(~is_element)
            with m.If(is_element):
                m.d.sync += [left.eq(left - 1), record.eq(record + RECORD_BYTES), element.eq(element + ELEMENT_BYTES)]
