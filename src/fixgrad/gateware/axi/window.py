"""Elements of any size in bytes out of beats, and back into beats.

Arrays in memory begin at any byte and have elements of 1 to a beat's bytes (weights of 9, stored weights of 3, words of all
lanes). `ByteWindow` looks at one beat and its successor through a window that moves by an element each cycle; `BytePacker`
is its mirror.
"""

from amaranth.hdl import Cat, Const, Module, Mux, ShapeLike, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2


def element_layout(element_bytes: int, tag_bits: int = 0) -> data.StructLayout:
    """An element: `data`, first byte lowest, bytes from `count` on are 0; `last` of its transfer; the transfer's `tag`, if any."""
    tag: dict[str, ShapeLike] = {"tag": tag_bits} if tag_bits else {}
    return data.StructLayout({"data": 8 * element_bytes, "count": range(element_bytes + 1), "last": 1, **tag})


def span_layout(port_bytes: int, element_bytes: int, length_bits: int, tag_bits: int = 0) -> data.StructLayout:
    """Bytes of a transfer among beats: those to skip in the first beat, how many there are, how many make an element; its tag."""
    tag: dict[str, ShapeLike] = {"tag": tag_bits} if tag_bits else {}
    return data.StructLayout(
        {"skip": ceil_log2(port_bytes), "length": length_bits, "size": range(element_bytes + 1), **tag}
    )


def byte_mask(count: Value, total: int) -> Value:
    """A 1 for each of the first `count` of `total` bytes."""
    return Cat(*(count > index for index in range(total)))


def _masked(m: Module, value: Value, count: Value, total: int, unit: int = 1) -> Value:
    """The first `count` of `total` units of so many bytes; the others are 0."""
    # The mask is a signal of its own: Amaranth would write the comparisons anew for each of its uses.
    keep = Signal(total, name="keep")
    m.d.comb += keep.eq(byte_mask(count, total))
    return value & Cat(*(keep[index].replicate(8 * unit) for index in range(total)))


def _bits(position: Value) -> Value:
    """A position in bytes as one in bits."""
    return Cat(Const(0, 3), position)


def picked(m: Module, value: Value, at: Value, unit: int, bits: int) -> Value:
    """The `bits` bits of `value` from its unit number `at` on; a unit has `unit` bits.

    The widest step of the shift comes first, so that each one after it has less to move.
    """
    for level in reversed(range(len(at))):
        step = Signal(bits + unit * ((1 << level) - 1), name=f"shifted_{level}")
        m.d.comb += step.eq(Mux(at[level], value[unit << level :], value))
        value = step
    return value[:bits]


class ByteWindow(wiring.Component):
    """Beats in, elements out: one element a cycle, whatever its size and position.

    Args:
        port_bytes: bytes of a beat, a power of two. element_bytes: the largest element, at most a beat.
        granule: bytes, a power of two, of which element sizes and lengths are multiples. Transfers begin at the granule that
            `skip` is in.
        tag_bits: width of a tag that a transfer's elements carry.

    Members:
        beats: the beats that a transfer touches, first to last; those of the next transfer follow.
        spans: what to take of them.
        o: elements; the last one of a transfer holds what is left of it.
    """

    def __init__(
        self, port_bytes: int, element_bytes: int, length_bits: int, *, granule: int = 1, tag_bits: int = 0
    ) -> None:
        if not 1 <= element_bytes <= port_bytes:
            raise ValueError(f"element_bytes is {element_bytes}: choose 1 to the port's {port_bytes}")
        if granule < 1 or port_bytes % granule or element_bytes % granule:
            raise ValueError(f"granule is {granule}: choose a divisor of the port's {port_bytes} and of {element_bytes}")
        self.port_bytes, self.element_bytes, self.length_bits = port_bytes, element_bytes, length_bits
        self.granule, self.tag_bits = granule, tag_bits
        super().__init__(
            {
                "beats": In(stream.Signature(8 * port_bytes)),
                "spans": In(stream.Signature(span_layout(port_bytes, element_bytes, length_bits, tag_bits))),
                "o": Out(stream.Signature(element_layout(element_bytes, tag_bits))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        granule, low = self.granule, ceil_log2(self.granule)
        port, element = self.port_bytes // granule, self.element_bytes // granule
        beat, full = Signal(8 * self.port_bytes), Signal()
        # Positions, sizes and lengths are in granules.
        at, left, size, active = (
            Signal(ceil_log2(port)),
            Signal(self.length_bits - low),
            Signal(range(element + 1)),
            Signal(),
        )
        count, after = Signal(range(element + 1)), Signal(range(2 * port + 1))
        is_last, has_all, fire, crosses = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            is_last.eq(left <= size),
            count.eq(Mux(is_last, left, size)),
            after.eq(at + count),
            crosses.eq(after > port),
            has_all.eq(active & full & (~crosses | self.beats.valid)),
            fire.eq(has_all & (~self.o.valid | self.o.ready)),
        ]
        window = picked(m, Cat(beat, self.beats.payload), at, 8 * granule, 8 * self.element_bytes)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(fire):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.payload.data.eq(_masked(m, window, count, element, granule)),
                self.o.payload.count.eq(count << low),
                self.o.payload.last.eq(is_last),
                left.eq(left - count),
                at.eq(after),
            ]

        ends, wants = Signal(), Signal()
        m.d.comb += [
            ends.eq(fire & is_last),
            self.spans.ready.eq(~active | ends),
            # The beat in hand is used up, or there is none: take the next one, if it belongs to a transfer that has begun.
            wants.eq(Mux(fire, Mux(is_last, crosses | self.spans.valid, after >= port), active & ~full)),
            self.beats.ready.eq(wants),
        ]
        with m.If(wants):
            # The beat that ends a transfer holds nothing of the next one.
            m.d.sync += [beat.eq(self.beats.payload), full.eq(self.beats.valid & ~(ends & crosses))]
        with m.Elif(ends):
            m.d.sync += full.eq(0)
        with m.If(self.spans.ready):
            span = self.spans.payload
            m.d.sync += [
                active.eq(self.spans.valid),
                left.eq(span.length >> low),
                size.eq(span.size >> low),
                at.eq(span.skip >> low),
            ]
        _carry_tag(m, self, fire)
        return m


class WordWindow(wiring.Component):
    """Beats in, aligned words out: a `ByteWindow` whose elements are its granules, and need no byte moved.

    Args:
        port_bytes: bytes of a beat. element_bytes: of a word; a divisor. tag_bits: see `ByteWindow`.

    Members:
        beats, spans, o: see `ByteWindow`; `size` is taken to be a word.
    """

    def __init__(self, port_bytes: int, element_bytes: int, length_bits: int, *, tag_bits: int = 0) -> None:
        if element_bytes < 1 or port_bytes % element_bytes or element_bytes & (element_bytes - 1):
            raise ValueError(f"element_bytes is {element_bytes}: choose a power of two up to the port's {port_bytes}")
        self.port_bytes, self.element_bytes, self.tag_bits = port_bytes, element_bytes, tag_bits
        self.length_bits = length_bits
        super().__init__(
            {
                "beats": In(stream.Signature(8 * port_bytes)),
                "spans": In(stream.Signature(span_layout(port_bytes, element_bytes, length_bits, tag_bits))),
                "o": Out(stream.Signature(element_layout(element_bytes, tag_bits))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        low, words = ceil_log2(self.element_bytes), self.port_bytes // self.element_bytes
        at, left, active = Signal(ceil_log2(words)), Signal(self.length_bits - low), Signal()
        is_last, fire = Signal(), Signal()
        m.d.comb += [
            is_last.eq(left <= 1),
            fire.eq(active & self.beats.valid & (~self.o.valid | self.o.ready)),
            self.beats.ready.eq(fire & (is_last | (at == words - 1))),
            self.spans.ready.eq(~active | (fire & is_last)),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(fire):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.payload.data.eq(picked(m, self.beats.payload, at, 8 * self.element_bytes, 8 * self.element_bytes)),
                self.o.payload.count.eq(self.element_bytes),
                self.o.payload.last.eq(is_last),
                left.eq(left - 1),
                at.eq(at + 1),
            ]
        with m.If(self.spans.ready):
            span = self.spans.payload
            m.d.sync += [active.eq(self.spans.valid), left.eq(span.length >> low), at.eq(span.skip >> low)]
        _carry_tag(m, self, fire)
        return m


def _carry_tag(m: Module, window: ByteWindow | WordWindow, fire: Value) -> None:
    """The tag of the transfer at hand goes with its elements."""
    if not window.tag_bits:
        return
    tag = Signal(window.tag_bits)
    with m.If(window.spans.ready):
        m.d.sync += tag.eq(window.spans.payload.tag)
    with m.If(fire):
        m.d.sync += window.o.payload.tag.eq(tag)


class BytePacker(wiring.Component):
    """Elements in, beats out, with a strobe for each byte: one element a cycle, and one more cycle where the last one spills.

    Members:
        i: elements; of each, the first `size` bytes of its transfer's span count, and of the last what is left.
        spans: where they lie among beats.
        o: beats and their strobes.
    """

    def __init__(self, port_bytes: int, element_bytes: int, length_bits: int) -> None:
        if not 1 <= element_bytes <= port_bytes:
            raise ValueError(f"element_bytes is {element_bytes}: choose 1 to the port's {port_bytes}")
        self.port_bytes, self.element_bytes, self.length_bits = port_bytes, element_bytes, length_bits
        super().__init__(
            {
                "i": In(stream.Signature(8 * element_bytes)),
                "spans": In(stream.Signature(span_layout(port_bytes, element_bytes, length_bits))),
                "o": Out(stream.Signature(data.StructLayout({"data": 8 * port_bytes, "strobe": port_bytes}))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        port, element = self.port_bytes, self.element_bytes
        held, held_strobe, spills = Signal(8 * port), Signal(port), Signal()
        at, left, size, active = (
            Signal(ceil_log2(port)),
            Signal(self.length_bits),
            Signal(range(element + 1)),
            Signal(),
        )
        count, after = Signal(range(element + 1)), Signal(range(2 * port + 1))
        is_last, can_emit, fire, fills = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            is_last.eq(left <= size),
            count.eq(Mux(is_last, left, size)),
            after.eq(at + count),
            can_emit.eq(~self.o.valid | self.o.ready),
            fills.eq((after >= port) | is_last),
            self.i.ready.eq(active & ~spills & (can_emit | ~fills)),
            fire.eq(self.i.valid & self.i.ready),
        ]
        shifted, strobes = Signal(8 * (port + element)), Signal(port + element)
        m.d.comb += [
            shifted.eq(_masked(m, self.i.payload, count, element) << _bits(at)),
            strobes.eq(byte_mask(count, element) << at),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(spills & can_emit):
            m.d.sync += [self.o.valid.eq(1), self.o.payload.data.eq(held), self.o.payload.strobe.eq(held_strobe)]
            m.d.sync += [spills.eq(0), held.eq(0), held_strobe.eq(0)]
        with m.If(fire):
            m.d.sync += [left.eq(left - count), at.eq(after)]
            with m.If(fills):
                m.d.sync += [
                    self.o.valid.eq(1),
                    self.o.payload.data.eq(held | shifted[: 8 * port]),
                    self.o.payload.strobe.eq(held_strobe | strobes[:port]),
                    held.eq(shifted[8 * port :]),
                    held_strobe.eq(strobes[port:]),
                    spills.eq(is_last & (after > port)),
                ]
            with m.Else():
                m.d.sync += [held.eq(held | shifted[: 8 * port]), held_strobe.eq(held_strobe | strobes[:port])]

        m.d.comb += self.spans.ready.eq(~active | (fire & is_last))
        with m.If(self.spans.ready):
            span = self.spans.payload
            m.d.sync += [active.eq(self.spans.valid), left.eq(span.length), size.eq(span.size), at.eq(span.skip)]
        return m
