"""Delayed scaling at the places where range estimates go wrong."""

from hypothesis import given
from hypothesis import strategies as st

from fixgrad.network.scaling import WINDOW, ScaleHistory, output_frac
from fixgrad.numbers import MAX_SHIFT, bit_length, requantise


def test_the_largest_of_the_window_rules():
    history = ScaleHistory()
    for bits in (10, 14, 11):
        history = history.after(bits, frac=8)
    assert history.exponents == (2, 6, 3)
    assert history.exponent == 6


def test_the_window_forgets():
    history = ScaleHistory().after(20, 8)
    for _ in range(WINDOW):
        history = history.after(9, 8)
    assert history.exponent == 1
    assert len(history.exponents) == WINDOW


def test_a_tensor_of_zeros_keeps_the_scale_that_it_had():
    history = ScaleHistory().after(12, 8)
    assert history.after(0, 30) == history
    assert ScaleHistory().after(0, 5).exponent == -5


@given(st.integers(1, 2**31 - 1), st.integers(-10, 40))
def test_the_maximum_never_leaves_the_codes(maximum, frac):
    """A maximum of exactly 128 needs 8 bits; a range estimate by ceil(log2) would let it wrap to -128."""
    exponent = ScaleHistory().after(bit_length(maximum), frac).exponent
    shift = frac - output_frac(exponent, frac, 8)
    assert 0 <= shift <= MAX_SHIFT
    assert (maximum >> shift) < 128
    assert requantise([maximum], shift).item() in (maximum >> shift, (maximum >> shift) + 1, 127)


@given(st.integers(-100, 100), st.integers(-60, 60), st.sampled_from([8, 16]))
def test_the_shift_stays_in_the_machines_range(exponent, frac, bits):
    result = output_frac(exponent, frac, bits)
    assert 0 <= frac - result <= MAX_SHIFT
    if 0 <= frac - (bits - 1 - exponent) <= MAX_SHIFT:
        assert result == bits - 1 - exponent
