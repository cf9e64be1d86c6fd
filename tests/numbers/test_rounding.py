"""Rounding and saturation against exact fractions and Python's unbounded integers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.errors import UsageError
from fixgrad.numbers import (
    MAX_SHIFT,
    Rounding,
    align,
    bit_length,
    hash32,
    requantise,
    saturate,
    shift_nearest,
    shift_round,
    shift_stochastic,
    stream_key,
)

#: A statistic further from its expectation than this many standard deviations fails: one in 1.7 million.
SIGMAS = 5.0


def half_up(value: int, shift: int) -> int:
    return math.floor(Fraction(value, 2**shift) + Fraction(1, 2))


def clamp(value: int, limit: int) -> int:
    return max(-limit, min(limit, value))


@pytest.mark.parametrize("shift", range(12))
def test_nearest_is_half_up_for_every_12_bit_value(shift: int) -> None:
    values = np.arange(-2048, 2048)
    assert shift_nearest(values, shift).tolist() == [half_up(value, shift) for value in range(-2048, 2048)]


@given(st.integers(1 - 2**62, 2**62 - 1), st.integers(0, 62))
def test_nearest_is_half_up_up_to_62_bits(value: int, shift: int) -> None:
    assert shift_nearest(np.array([value]), shift) == half_up(value, shift)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_narrow_codes_do_not_overflow_while_they_are_rounded(dtype: type[np.signedinteger]) -> None:
    limits = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    assert shift_nearest(limits, 1).tolist() == [half_up(int(limit), 1) for limit in limits]
    full = np.full(2, 0xFFFFFFFF, np.uint32)
    ceilings = [math.ceil(Fraction(int(limit), 2)) for limit in limits]
    assert shift_stochastic(limits, 1, full).tolist() == ceilings


@pytest.mark.parametrize("shift", range(1, 8))
def test_stochastic_over_all_random_patterns_is_exactly_unbiased(shift: int) -> None:
    """Each pattern of the top bits once: the mean is the quotient itself, and all results are neighbours."""
    values = np.arange(-300, 300)
    patterns = np.arange(2**shift, dtype=np.uint32) << np.uint32(32 - shift)
    results = np.stack([shift_stochastic(values, shift, np.full(600, pattern)) for pattern in patterns])
    assert (results.sum(axis=0) == values).all()
    assert (results.min(axis=0) == [math.floor(Fraction(int(v), 2**shift)) for v in values]).all()
    assert (results.max(axis=0) == [math.ceil(Fraction(int(v), 2**shift)) for v in values]).all()


@pytest.mark.parametrize("shift", [1, 7, 16, 31])
def test_stochastic_uses_the_top_bits_alone(shift: int) -> None:
    values = np.arange(-1000, 1000) * 12345
    random = hash32(np.arange(2000), stream_key(0, 0, "top bits"))
    lower_bits = np.uint32((1 << (32 - shift)) - 1)
    rounded = shift_stochastic(values, shift, random)
    assert (rounded == shift_stochastic(values, shift, random & ~lower_bits)).all()
    assert (rounded == shift_stochastic(values, shift, random | lower_bits)).all()


@pytest.mark.parametrize("shift", range(MAX_SHIFT + 1))
@pytest.mark.parametrize("random", [0, 1, 0x80000000, 0xFFFFFFFF])
def test_values_on_the_grid_never_move(shift: int, random: int) -> None:
    codes = np.array([-(2**31 - 1), -128, -127, -3, -1, 0, 1, 2, 127, 2**31 - 1])
    assert (shift_stochastic(codes << shift, shift, np.full(10, random, np.uint32)) == codes).all()
    assert (shift_nearest(codes << shift, shift) == codes).all()


@pytest.mark.parametrize(("value", "shift"), [(1, 1), (5, 4), (-5, 4), (-1, 8), (255, 8), (12345, 16), (3 << 20, 31)])
def test_stochastic_with_hashed_bits_is_unbiased_within_5_sigma(value: int, shift: int) -> None:
    count = 1 << 18
    random = hash32(np.arange(count), stream_key(7, shift, "unbiased"))
    ups = shift_stochastic(np.full(count, value), shift, random) - (value >> shift)
    probability = (value % 2**shift) / 2**shift
    deviation = math.sqrt(count * probability * (1 - probability))
    assert set(ups.tolist()) <= {0, 1}
    assert abs(int(ups.sum()) - count * probability) <= SIGMAS * deviation


def test_stochastic_errors_of_neighbours_are_uncorrelated_within_5_sigma() -> None:
    count, shift = 1 << 18, 8
    key = stream_key(3, 1, "neighbours")
    errors = shift_stochastic(np.full(count, 77), shift, hash32(np.arange(count), key)) - 77 / 256
    variance = 77 / 256 * (1 - 77 / 256)
    for lag in (1, 2, 32, 1024):
        assert abs((errors[lag:] * errors[:-lag]).mean()) <= SIGMAS * variance / math.sqrt(count - lag)


@pytest.mark.parametrize("bits", range(2, 9))
def test_saturate_every_10_bit_value(bits: int) -> None:
    limit = 2 ** (bits - 1) - 1
    values = np.arange(-512, 512)
    assert saturate(values, bits).tolist() == [clamp(value, limit) for value in range(-512, 512)]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shift", range(11))
def test_requantise_every_11_bit_accumulator(bits: int, shift: int) -> None:
    limit = 2 ** (bits - 1) - 1
    accumulators = np.arange(-1024, 1024)
    expected = [clamp(half_up(value, shift), limit) for value in range(-1024, 1024)]
    assert requantise(accumulators, shift, bits).tolist() == expected
    random = hash32(accumulators, stream_key(0, 0, "requantise"))
    drawn = [int(word) >> (32 - shift) if shift else 0 for word in random]
    stochastic = [clamp((v + r) >> shift, limit) for v, r in zip(range(-1024, 1024), drawn, strict=True)]
    assert requantise(accumulators, shift, bits, Rounding.STOCHASTIC, random).tolist() == stochastic


def test_requantise_the_ends_of_an_accumulator() -> None:
    ends = np.array([-(2**31), 2**31 - 1], np.int32)
    assert requantise(ends, 0).tolist() == [-127, 127]
    assert requantise(ends, 31).tolist() == [-1, 1]
    assert requantise(ends, 24, 24).tolist() == [-128, 128]


@pytest.mark.parametrize("bits", range(2, 9))
def test_align_every_10_bit_value(bits: int) -> None:
    limit = 2 ** (bits - 1) - 1
    for left in range(-12, bits):
        if left >= 0:
            largest = limit // 2**left * 2**left
            expected = [clamp(value * 2**left, largest) for value in range(-512, 512)]
        else:
            expected = [clamp(half_up(value, -left), limit) for value in range(-512, 512)]
        assert align(np.arange(-512, 512), left, bits).tolist() == expected


@given(st.integers(1 - 2**62, 2**62 - 1), st.integers(2, 63), st.integers(-62, 62))
def test_align_wide_values(value: int, bits: int, left: int) -> None:
    left = min(left, bits - 1)
    limit = 2 ** (bits - 1) - 1
    up = clamp(value << max(left, 0), limit >> max(left, 0) << max(left, 0))
    expected = up if left >= 0 else clamp(half_up(value, -left), limit)
    assert align(np.array([value]), left, bits) == expected


def test_bit_length_bounds_the_magnitude() -> None:
    assert bit_length(0) == 0
    for maximum in [*range(1, 2050), 2**31 - 1, 2**31, 2**62]:
        assert 2 ** (bit_length(maximum) - 1) <= maximum < 2 ** bit_length(maximum)


@pytest.mark.parametrize("shift", [-1, 63])
def test_a_shift_out_of_range_is_named(shift: int) -> None:
    with pytest.raises(UsageError, match=f"shift is {shift}: a value of 62 bits can be shifted by 0 to 62"):
        shift_nearest(np.array([1]), shift)


@pytest.mark.parametrize("shift", [-1, 32])
def test_a_stochastic_shift_out_of_range_is_named(shift: int) -> None:
    with pytest.raises(UsageError, match=f"stochastic shift is {shift}: the hash has bits for 0 to 31"):
        shift_stochastic(np.array([1]), shift, np.zeros(1, np.uint32))


def test_stochastic_rounding_needs_random_bits_unless_nothing_is_cut() -> None:
    assert shift_round(np.array([5]), 0, Rounding.STOCHASTIC) == 5
    with pytest.raises(UsageError, match="needs the random bits of its stream"):
        shift_round(np.array([5]), 1, Rounding.STOCHASTIC)


def test_results_are_new_arrays() -> None:
    values = np.array([1, 2, 3])
    no_bits = np.zeros(3, np.uint32)
    for result in (shift_nearest(values, 0), shift_stochastic(values, 0, no_bits), saturate(values, 8)):
        assert not np.shares_memory(result, values)
        assert result.dtype == np.int64
