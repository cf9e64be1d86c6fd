"""32-bit accumulators: wrapped values, and a flag that is raised exactly when a sum does not fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.numbers import ACCUMULATOR_BITS, magnitude_bits, wrap32


def wrapped(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


@pytest.mark.parametrize(
    ("exact", "value", "overflow"),
    [
        (2**31 - 1, 2**31 - 1, False),
        (2**31, -(2**31), True),
        (-(2**31), -(2**31), False),
        (-(2**31) - 1, 2**31 - 1, True),
        (2**32, 0, True),
        (2**62 + 5, 5, True),
        (0, 0, False),
    ],
)
def test_the_ends_of_the_range(exact: int, value: int, overflow: bool) -> None:
    accumulated = wrap32(np.array([exact]))
    assert accumulated.values.tolist() == [value]
    assert accumulated.overflow is overflow
    assert accumulated.values.dtype == np.int32


@given(st.lists(st.integers(-(2**62), 2**62), max_size=8))
def test_wrap_is_modulo_2_to_32(exact: list[int]) -> None:
    accumulated = wrap32(np.array(exact, np.int64))
    assert accumulated.values.tolist() == [wrapped(value) for value in exact]
    assert accumulated.overflow is any(not -(2**31) <= value < 2**31 for value in exact)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=12), st.randoms())
def test_wrapped_partial_sums_add_up_in_any_order(terms: list[int], shuffle: object) -> None:
    exact = wrapped(sum(terms))
    shuffle.shuffle(terms)  # type: ignore[attr-defined]
    partial = 0
    for term in terms:
        partial = int(wrap32(np.array([partial + term])).values[0])
    assert partial == exact


def test_one_sum_out_of_range_among_many_raises_the_flag() -> None:
    sums = np.zeros((50, 7), np.int64)
    assert wrap32(sums).overflow is False
    sums[31, 4] = -(2**31) - 1
    assert wrap32(sums).overflow is True


def test_empty_tensors_have_no_overflow_and_no_magnitude() -> None:
    assert wrap32(np.zeros((0, 3), np.int64)).overflow is False
    assert magnitude_bits(np.zeros((0, 3), np.int32)) == 0


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_magnitude_bits_counts_the_most_negative_code(dtype: type[np.signedinteger]) -> None:
    limits = np.iinfo(dtype)
    assert magnitude_bits(np.array([limits.min, 0], dtype)) == limits.bits
    assert magnitude_bits(np.array([limits.max, 0], dtype)) == limits.bits - 1


def test_magnitude_bits_is_the_least_width_that_holds_all() -> None:
    for code in range(-600, 601):
        bits = magnitude_bits(np.array([0, code]))
        assert abs(code) < 2**bits
        assert code == 0 or abs(code) >= 2 ** (bits - 1)


def test_an_accumulator_is_32_bits_wide() -> None:
    assert ACCUMULATOR_BITS == 32
