"""The combinational arithmetic equals fixgrad.numbers: every value at small widths, corners and random ones at full width."""

from collections.abc import Callable, Iterator
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Signal, Value, signed, unsigned

from fixgrad import numbers
from fixgrad.gateware.arithmetic import fixed_point as gates

Evaluate = Callable[..., list[int]]


def codes(bits: int) -> range:
    """All values of a signed number."""
    return range(-(1 << (bits - 1)), 1 << (bits - 1))


def wide_codes(bits: int, count: int, seed: int) -> list[int]:
    """Corners of a signed number, and random ones of every magnitude."""
    random = Random(seed)
    corners = [sign * (1 << place) + off for place in range(bits - 1) for sign in (1, -1) for off in (-1, 0, 1)]
    spread = [random.choice((1, -1)) * random.getrandbits(random.randint(1, bits - 1)) for _ in range(count)]
    return [value for value in (*corners, *spread, -(1 << (bits - 1))) if value in codes(bits)]


def ints(values: Any) -> list[int]:
    return np.asarray(values).ravel().tolist()


def test_saturate_every_value_of_seven_bits(evaluate: Evaluate) -> None:
    for bits in range(2, 9):
        found = evaluate(lambda v, bits=bits: gates.saturate(v, bits), [signed(7)], ((v,) for v in codes(7)))
        assert found == ints(numbers.saturate(np.array(codes(7)), bits))


def test_clamp_to_a_width_known_at_run_time(evaluate: Evaluate) -> None:
    def build(value: Value, bits: Value) -> Value:
        return gates.clamp(value, gates.limit_value(bits, 6))

    for bits in range(2, 7):
        found = evaluate(build, [signed(8), unsigned(3)], ((v, bits) for v in codes(8)))
        assert found == ints(numbers.saturate(np.array(codes(8)), bits))


def test_wrap_and_its_flag(evaluate: Evaluate) -> None:
    values = np.array(codes(8))
    found = evaluate(lambda v: gates.wrap(v, 5), [signed(8)], ((v,) for v in codes(8)))
    expected = (values + 16) % 32 - 16
    assert found == ints(expected)
    flags = evaluate(lambda v: gates.wraps(v, 5), [signed(8)], ((v,) for v in codes(8)))
    assert flags == ints(expected != values)


def test_the_flag_of_32_bits_is_that_of_the_accumulators(evaluate: Evaluate) -> None:
    values = wide_codes(36, 200, seed=1)
    flags = evaluate(lambda v: gates.wraps(v), [signed(36)], ((v,) for v in values))
    assert flags == [numbers.wrap32(np.array([v])).overflow for v in values]
    wrapped = evaluate(lambda v: gates.wrap(v), [signed(36)], ((v,) for v in values))
    assert wrapped == ints(numbers.wrap32(np.array(values)).values)


def test_shift_left_every_value(evaluate: Evaluate) -> None:
    for width in (3, 5, 9):
        cases = list(product(codes(5), range(8)))
        found = evaluate(lambda v, s, width=width: gates.shift_left(v, s, width), [signed(5), unsigned(3)], cases)
        half, full = 1 << (width - 1), 1 << width
        assert found == [((v << s) + half) % full - half for v, s in cases]


def test_shift_left_of_an_unsigned_value_adds_no_sign(evaluate: Evaluate) -> None:
    found = evaluate(lambda v, s: gates.shift_left(v, s, 8), [unsigned(3), unsigned(2)], product(range(8), range(4)))
    assert found == [v << s for v, s in product(range(8), range(4))]


def test_shift_nearest_every_value(evaluate: Evaluate) -> None:
    cases = list(product(range(16), codes(7)))
    found = evaluate(lambda v, s: gates.shift_nearest(v, s), [signed(7), unsigned(4)], ((v, s) for s, v in cases))
    assert found == [value for shift in range(16) for value in ints(numbers.shift_nearest(np.array(codes(7)), shift))]


def test_shift_nearest_of_32_bits(evaluate: Evaluate) -> None:
    values = wide_codes(32, 50, seed=2)
    cases = ((v, shift) for shift in range(32) for v in values)
    found = evaluate(lambda v, s: gates.shift_nearest(v, s), [signed(32), unsigned(5)], cases)
    assert found == [value for shift in range(32) for value in ints(numbers.shift_nearest(np.array(values), shift))]


def test_shift_random_every_value(evaluate: Evaluate) -> None:
    """With 4 random bits, which stand for the top 4 of 32: shifts 0 to 4, every value, every random number."""
    cases = list(product(range(5), codes(6), range(16)))

    def build(value: Value, shift: Value, random: Value) -> Value:
        return gates.shift_random(value, shift, random)

    found = evaluate(build, [signed(6), unsigned(3), unsigned(4)], ((v, s, r) for s, v, r in cases))
    expected = [
        int(numbers.shift_stochastic(np.array([value]), shift, np.array([random << 28], np.uint32))[0])
        for shift, value, random in cases
    ]
    assert found == expected


@pytest.mark.parametrize("rounding", numbers.Rounding)
def test_shift_random_of_32_bits(evaluate: Evaluate, rounding: numbers.Rounding) -> None:
    """The 32 bits of the hash decide; with one half in their place it is the rounding to nearest."""
    random = Random(3)
    values = wide_codes(32, 40, seed=4)
    for shift in range(32):
        bits = np.array([random.getrandbits(32) for _ in values], np.uint32)
        given = bits if rounding is numbers.Rounding.STOCHASTIC else np.full(len(values), 1 << 31, np.uint32)
        found = evaluate(
            lambda v, s, r: gates.shift_random(v, s, r),
            [signed(32), unsigned(5), unsigned(32)],
            ((v, shift, int(r)) for v, r in zip(values, given, strict=True)),
        )
        assert found == ints(numbers.shift_round(np.array(values), shift, rounding, bits))


def test_half_is_the_constant_that_rounds_to_nearest() -> None:
    assert gates.half(32).value == 1 << 31
    assert len(gates.half(32)) == gates.RANDOM_BITS == 32


def test_align_every_value(evaluate: Evaluate) -> None:
    """7-bit values into 3 to 8 bits, left shifts from -8 to bits - 1."""
    for bits in range(3, 9):
        lefts = range(-8, min(bits, 8))
        cases = list(product(lefts, codes(7)))
        found = evaluate(
            lambda v, left, bits=bits: gates.align(v, left, bits), [signed(7), signed(4)], ((v, left) for left, v in cases)
        )
        assert found == [value for left in lefts for value in ints(numbers.align(np.array(codes(7)), left, bits))]


def test_align_of_the_bias(evaluate: Evaluate) -> None:
    values, lefts = wide_codes(32, 30, seed=5), range(-31, 32)
    cases = ((v, left) for left in lefts for v in values)
    found = evaluate(lambda v, left: gates.align(v, left, 32), [signed(32), signed(6)], cases)
    assert found == [value for left in lefts for value in ints(numbers.align(np.array(values), left, 32))]


def test_align_of_a_term_of_the_update(evaluate: Evaluate) -> None:
    values, lefts = wide_codes(41, 30, seed=6), range(-62, 25)
    cases = ((v, left) for left in lefts for v in values)
    found = evaluate(lambda v, left: gates.align(v, left, 40), [signed(41), signed(7)], cases)
    assert found == [value for left in lefts for value in ints(numbers.align(np.array(values), left, 40))]


def test_range_detector(evaluate: Evaluate) -> None:
    """The OR of magnitudes has the bits of the largest one, for -2**(n-1) and exact powers of two as well."""

    def build(*values: Value) -> Value:
        return gates.joined(gates.absolute(value) for value in values)

    cases = list(product(codes(4), repeat=3))
    found = evaluate(build, [signed(4)] * 3, cases)
    assert found == [abs(a) | abs(b) | abs(c) for a, b, c in cases]
    assert [value.bit_length() for value in found] == [numbers.magnitude_bits(np.array(case)) for case in cases]


def test_no_shift_widens_its_value() -> None:
    def shapes() -> Iterator[tuple[int, int]]:
        value, amount = Signal(signed(32)), Signal(5)
        yield len(gates.shift_left(value, amount, 32)), 32
        yield len(gates.shift_nearest(value, amount)), 32
        yield len(gates.shift_random(value, amount, Signal(32))), 32
        yield len(gates.align(value, Signal(signed(7)), 40)), 40
        yield len(gates.fraction_of(value, amount, 32)), 64

    for found, expected in shapes():
        assert found == expected


def test_product_of_words_every_value(evaluate: Evaluate) -> None:
    for width in (3, 4, 8, 9):
        cases = list(product(range(16), range(16)))
        found = evaluate(lambda a, b, width=width: gates.product_of_words(a, b, width), [unsigned(4), unsigned(4)], cases)
        assert found == [a * b % (1 << width) for a, b in cases]
