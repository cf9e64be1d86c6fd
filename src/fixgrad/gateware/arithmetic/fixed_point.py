"""Rounding, saturation and shifts of integers as combinational logic: `fixgrad.numbers.rounding` in gates.

All functions take and return Amaranth values. Slices and concatenations of Amaranth are unsigned and its mixed sums widen, so
every signed shift, rounding and clamp of the gateware is one of these. No shift is wider than the value that it shifts:
Amaranth's own `<<` by an n-bit amount makes a result 2**n bits wider.
"""

from collections.abc import Iterable
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Mux, Value, signed

#: Random bits that a stochastic rounding takes, and so the widest right shift plus one.
RANDOM_BITS = 32


def limit_of(bits: int) -> int:
    """The largest code of a symmetric format of `bits` bits: 127 for 8."""
    return (1 << (bits - 1)) - 1


def limit_value(bits: Value, widest: int) -> Value:
    """`limit_of` for a number of bits known at run time, 1 to `widest`; unsigned, `widest` - 1 bits."""
    return Cat(*(bits > position + 1 for position in range(widest - 1)))


def clamp(value: Value, limit: Value | int) -> Value:
    """`value` (signed) brought into -limit .. limit; signed, as wide as `limit` and its sign."""
    bound = Value.cast(limit)
    narrow = signed(len(bound) + 1)
    above, below = value > bound, value < -bound
    return Mux(above, bound, Mux(below, -bound, value))[: narrow.width].as_signed()


def saturate(value: Value, bits: int) -> Value:
    """`fixgrad.numbers.saturate`: `value` (signed) clamped to the symmetric range of `bits` bits; signed, `bits` wide."""
    return clamp(value, Const(limit_of(bits), bits - 1))


def wrap(value: Value, bits: int = 32) -> Value:
    """`value` modulo 2**bits, in two's complement."""
    return value[:bits].as_signed()


def wraps(value: Value, bits: int = 32) -> Value:
    """Whether `value` (signed, wider than `bits`) lies outside of `bits` bits: 1 bit."""
    above = value[bits - 1 :]
    return ~(above.all() | ~above.any())


def shift_left(value: Value, amount: Value, width: int) -> Value:
    """`value` * 2**amount modulo 2**width, in two's complement; `amount` is unsigned."""
    shifted = _extended(value, width)
    for stage, bit in enumerate(amount):
        places = min(1 << stage, width)
        shifted = Mux(bit, Cat(Const(0, places), shifted[: width - places]), shifted)
    return shifted.as_signed()


def shift_nearest(value: Value, shift: Value) -> Value:
    """`fixgrad.numbers.shift_nearest`: floor(value / 2**shift + 1/2), as wide as `value`; `shift` is unsigned.

    The bit below the cut is kept by one more place and decides alone: ties go up.
    """
    twice = Cat(Const(0, 1), value).as_signed()
    return ((twice >> shift) + 1)[1 : len(value) + 1].as_signed()


def shift_random(value: Value, shift: Value, random: Value) -> Value:
    """`fixgrad.numbers.shift_stochastic`: floor(value / 2**shift + r / 2**shift), r the top `shift` bits of `random`.

    As wide as `value`; `shift` is unsigned and less than the bits of `random`. See `fraction_of` for why the bits of
    `random` below its top `shift` do not count. With `half(...)` for `random` it rounds to nearest.
    """
    places = len(random)
    return (fraction_of(value, shift, places) + random)[places : places + len(value)].as_signed()


def fraction_of(value: Value, shift: Value, places: int) -> Value:
    """`value` / 2**shift in fixed point with `places` fractional bits; signed, len(value) + places wide.

    Exact for a shift of at most `places`. The lowest `places - shift` bits are then zero, so nothing that is added in them
    carries into the integer: random bits need no shift of their own.
    """
    return Cat(Const(0, places), value).as_signed() >> shift


def half(places: int) -> Const:
    """What `shift_random` adds to round to nearest: one half of the last place, for any shift (0 too)."""
    return Const(1 << (places - 1), places)


def align(value: Value, left: Value, bits: int) -> Value:
    """`fixgrad.numbers.align`: `value` * 2**left in `bits` bits; signed.

    Args:
        value: signed.
        left: signed; at most bits - 1. Negative: a right shift that rounds to nearest.
        bits: width of the result. A left shift clamps before it shifts, so no value is ever wider.
    """
    limit = limit_of(bits)
    to_left = left[:-1]
    bound = Const(limit, bits - 1) >> to_left
    raised = shift_left(clamp(value, bound), to_left, bits)
    lowered = saturate(shift_nearest(value, (-left)[: len(left)]), bits)
    return Mux(left[-1], lowered, raised).as_signed()


def product_of_words(left: Value, right: Value, width: int) -> Value:
    """left * right modulo 2**width, both unsigned, out of adders: an address is not worth a multiplier."""
    rows = (Mux(bit, Cat(Const(0, place), left), 0)[:width] for place, bit in enumerate(right) if place < width)
    return sum_of([*rows])[:width]


def sum_of(values: list[Value]) -> Value:
    """The sum of one value or more, by a tree of adders; as wide as it needs."""
    while len(values) > 1:
        values = [a + b for a, b in zip(values[::2], values[1::2], strict=False)] + values[len(values) // 2 * 2 :]
    return values[0]


def absolute(value: Value) -> Value:
    """|value| of a signed value, unsigned and as wide: the most negative one fits too."""
    return Mux(value[-1], -value, value)[: len(value)]


def joined(bits: Iterable[Value]) -> Value:
    """Bitwise OR of values. Of magnitudes, it has as many bits as the largest of them: the range detector."""
    return reduce(or_, bits)


def _extended(value: Value, width: int) -> Value:
    """`value` with its sign, cut or extended to `width` bits."""
    sign = value[-1] if value.shape().signed else Const(0, 1)
    return Cat(value, sign.replicate(max(width - len(value), 0)))[:width]
