"""Integer functions with a shift for every element, against Python's integers."""

import math

import numpy as np
import pytest

from fixgrad.numbers import align
from fixgrad.numbers.elementwise import align_each, bit_lengths, divide_nearest, narrow_each, square_roots


def edges(bits: int) -> np.ndarray:
    """0, powers of two and their neighbours, of either sign, below 2**bits."""
    powers = [1 << shift for shift in range(bits)]
    values = sorted({0, *(sign * (power + step) for power in powers for step in (-1, 0, 1) for sign in (-1, 1))})
    return np.array([value for value in values if abs(value) < 1 << bits], np.int64)


def test_bit_lengths():
    values = edges(63)
    assert bit_lengths(values).tolist() == [abs(int(value)).bit_length() for value in values]


@pytest.mark.parametrize("bits", [8, 32, 63])
def test_alignment_is_exact_and_saturates(bits):
    limit = (1 << (bits - 1)) - 1
    values = edges(62)
    for left in (-70, -62, -33, -1, 0, 1, 7, 31, 45, 62, 70):
        shift = min(max(left, -62), 62)
        exact = [int(v) << shift if shift >= 0 else (int(v) + ((1 << -shift) >> 1)) >> -shift for v in values]
        assert align_each(values, left, bits).tolist() == [min(max(value, -limit), limit) for value in exact]
    lefts = np.resize(np.arange(-62, 63), values.shape)
    one_by_one = [int(align_each(values[i : i + 1], int(lefts[i]), bits)[0]) for i in range(len(values))]
    assert align_each(values, lefts, bits).tolist() == one_by_one


def test_right_shifts_are_those_of_align():
    values = edges(40)
    for left in (-40, -9, -1, 0):
        assert np.array_equal(align_each(values, left, 32), align(values, left, 32))


def test_narrowing_keeps_the_leading_bits():
    values = edges(62)
    mantissas, shifts = narrow_each(values, 20)
    assert (np.abs(mantissas) <= 1 << 20).all()
    for value, mantissa, shift in zip(values.tolist(), mantissas.tolist(), shifts.tolist(), strict=True):
        assert shift == max(abs(value).bit_length() - 20, 0)
        assert 2 * abs(value - (mantissa << shift)) <= 1 << shift


def test_division_rounds_half_up():
    values = np.arange(-50, 51)
    for divisor in (1, 2, 3, 7, 10):
        assert divide_nearest(values, divisor).tolist() == [math.floor(value / divisor + 0.5) for value in range(-50, 51)]


def test_square_roots_are_exact():
    roots = np.concatenate([np.arange(2000), (1 << 26) - np.arange(1, 2000)])
    for step in (-1, 0, 1):
        values = np.clip(roots * roots + step, 0, (1 << 52) - 1)
        assert square_roots(values).tolist() == [math.isqrt(int(value)) for value in values]
