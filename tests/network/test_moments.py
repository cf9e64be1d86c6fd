"""Integers with an exponent of their own, against exact fractions."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.network.adam import RECIPROCAL_FRAC, ROOT_BITS, _root
from fixgrad.network.moments import (
    FIELD_BITS,
    LARGEST_FIELD,
    MOMENT_BIAS,
    MOMENT_BITS,
    Scaled,
    added,
    are_words,
    from_words,
    normalised,
    to_words,
)


def top(value):
    """2**(top - 1) <= |value| < 2**top."""
    value = abs(Fraction(value))
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return next(exponent for exponent in (guess, guess + 1) if value < Fraction(2) ** exponent)


def nearest(value, unit):
    return floor(value / unit + Fraction(1, 2)) * unit


def scaled(mantissas, exponents):
    return Scaled(np.asarray(mantissas, np.int64), np.broadcast_to(np.asarray(exponents, np.int64), np.shape(mantissas)).copy())


def fractions(value):
    return [int(m) * Fraction(2) ** int(e) for m, e in zip(value.mantissa, value.exponent, strict=True)]


@pytest.mark.parametrize("bits", [1, 2, 5, 11])
def test_normalising_every_small_mantissa(bits):
    mantissas = range(-(2**11), 2**11 + 1)
    got = normalised(scaled(mantissas, 3), bits)
    for mantissa, value, whole in zip(mantissas, fractions(got), got.mantissa, strict=True):
        exact = Fraction(mantissa * 8)
        assert value == (nearest(exact, Fraction(2) ** (top(exact) - bits)) if mantissa else 0)
        assert int(abs(whole)).bit_length() == (bits if mantissa else 0)


@pytest.mark.parametrize("bits", [4, 7])
@pytest.mark.parametrize("apart", range(-12, 13))
def test_adding_all_pairs_of_small_mantissas(bits, apart):
    pairs = np.array([(one, other) for one in range(-17, 18) for other in range(-17, 18)])
    got = fractions(added(scaled(pairs[:, 0], apart), scaled(pairs[:, 1], 0), bits))
    for (one, other), value in zip(pairs.tolist(), got, strict=True):
        terms = [term for term in (one * Fraction(2) ** apart, Fraction(other)) if term]
        unit = Fraction(2) ** (max(map(top, terms)) - bits) if terms else Fraction(1)
        assert value == sum(nearest(term, unit) for term in terms)


@given(st.integers(-(2**48), 2**48), st.integers(-(2**48), 2**48), st.integers(-400, 400), st.integers(-400, 400))
def test_wide_terms(one, other, first, second):
    """Magnitudes as wide as those of a moment's terms, wider than the frame, and any distance: nothing wraps."""
    got = fractions(added(scaled([one], first), scaled([other], second), 46))[0]
    terms = [term for term in (one * Fraction(2) ** first, other * Fraction(2) ** second) if term]
    unit = Fraction(2) ** (max(map(top, terms)) - 46) if terms else Fraction(1)
    assert got == sum(nearest(term, unit) for term in terms)


MANTISSAS = st.one_of(st.just(0), st.integers(2 ** (MOMENT_BITS - 1), 2**MOMENT_BITS - 1))


@given(MANTISSAS, st.sampled_from([-1, 1]), st.integers(-MOMENT_BIAS, LARGEST_FIELD - MOMENT_BIAS))
def test_words_hold_what_they_are_given(mantissa, sign, exponent):
    words = to_words(scaled([sign * mantissa], exponent))
    assert words.dtype == np.int32
    assert are_words(words)
    assert fractions(from_words(words)) == [sign * mantissa * Fraction(2) ** exponent]


def test_words_at_the_ends_of_the_range():
    largest = 2**MOMENT_BITS - 1
    below, above = -MOMENT_BIAS - 1, LARGEST_FIELD - MOMENT_BIAS + 1
    value = scaled([2**22, -(2**22), 2**22 + 5, -(2**22) - 5, 0], [below, below, above, above, 999])
    assert to_words(value).tolist() == [0, 0, (largest << 8) + 255, (-largest << 8) + 255, 0]
    assert not are_words(np.array([1 << FIELD_BITS], np.int32)), "a mantissa of one bit"
    assert not are_words(np.array([77], np.int32)), "an exponent without a mantissa"


def test_the_root_of_every_mantissa():
    """All 2**22 mantissas at an even and an odd exponent: the floor of the root, with 17 bits."""
    mantissas = np.arange(2 ** (MOMENT_BITS - 1), 2**MOMENT_BITS)
    for exponent in (-4, -3):
        root = _root(scaled(mantissas, exponent))
        radicand = mantissas << (exponent - 2 * root.exponent)
        assert (root.mantissa >> (ROOT_BITS - 1) == 1).all()
        assert (root.mantissa**2 <= radicand).all()
        assert (radicand < (root.mantissa + 1) ** 2).all()


def test_every_reciprocal_is_the_same_by_a_division_of_floats():
    """What the compiled update relies on: of a denominator of 17 or 18 bits, the float64 quotient has the right floor."""
    d = np.arange(2 ** (ROOT_BITS - 1), 2 ** (ROOT_BITS + 1))
    dividend = (1 << RECIPROCAL_FRAC) + d // 2
    assert np.array_equal((dividend.astype(np.float64) / d.astype(np.float64)).astype(np.int64), dividend // d)
