"""Number formats: the exact set of values they hold, their notation, and that nothing changes them."""

import copy
import dataclasses
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.errors import DataError, UsageError
from fixgrad.numbers import Format, Overflow, Rounding

SATURATE, WRAP = Overflow.SATURATE, Overflow.WRAP
NEAREST, STOCHASTIC = Rounding.NEAREST, Rounding.STOCHASTIC


def held_values(fmt: Format) -> set[float]:
    """What comes out when reals of 8 times the resolution and 4 times the range are brought into a format."""
    fine = np.arange(-(8 << fmt.bits) - 3, (8 << fmt.bits) + 4) / 8
    return set(fmt.decode(fmt.encode(np.ldexp(fine, -fmt.frac))).tolist())


def test_the_set_of_values_of_three_bits() -> None:
    assert held_values(Format(3, 1)) == {-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5}
    assert held_values(Format(3, 1, overflow=WRAP)) == {-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5}


def test_the_set_of_values_of_two_bits() -> None:
    assert held_values(Format(2, 0)) == {-1.0, 0.0, 1.0}
    assert held_values(Format(2, -3)) == {-8.0, 0.0, 8.0}
    assert held_values(Format(2, 5, overflow=WRAP)) == {-2 / 32, -1 / 32, 0.0, 1 / 32}


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("frac", [-2, 0, 3, 11])
def test_a_saturating_format_holds_all_codes_but_the_most_negative(bits: int, frac: int) -> None:
    limit = 2 ** (bits - 1) - 1
    assert held_values(Format(bits, frac)) == {code * 2.0**-frac for code in range(-limit, limit + 1)}


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_wrapping_format_holds_all_codes(bits: int) -> None:
    half = 2 ** (bits - 1)
    assert held_values(Format(bits, 4, overflow=WRAP)) == {code / 16 for code in range(-half, half)}


@pytest.mark.parametrize(
    ("fmt", "notation"),
    [
        (Format(8, 4), "Q3.4"),
        (Format(8, 7), "Q0.7"),
        (Format(24, 20), "Q3.20"),
        (Format(8, 12), "Q-5.12"),
        (Format(8, -3), "Q10.-3"),
        (Format(16, 15, STOCHASTIC), "Q0.15 stochastic"),
        (Format(32, 11, overflow=WRAP), "Q20.11 wrap"),
        (Format(32, 11, STOCHASTIC, WRAP), "Q20.11 wrap stochastic"),
    ],
)
def test_q_notation(fmt: Format, notation: str) -> None:
    assert str(fmt) == notation


def test_limits_and_step() -> None:
    fmt = Format(8, 4)
    assert (fmt.min_code, fmt.max_code, fmt.step) == (-127, 127, 1 / 16)
    wrapping = Format(32, -1, overflow=WRAP)
    assert (wrapping.min_code, wrapping.max_code, wrapping.step) == (-(2**31), 2**31 - 1, 2.0)


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("overflow", Overflow)
@pytest.mark.parametrize("random", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_every_code_survives_decode_and_encode(rounding: Rounding, overflow: Overflow, random: int) -> None:
    for bits, frac in ((2, 0), (8, 4), (8, -9), (12, 30)):
        fmt = Format(bits, frac, rounding, overflow)
        codes = np.arange(fmt.min_code, fmt.max_code + 1)
        bits_drawn = np.full(codes.shape, random, np.uint32)
        assert (fmt.encode(fmt.decode(codes), bits_drawn) == codes).all()


@given(st.floats(-1e6, 1e6), st.integers(-8, 24))
def test_encode_is_half_up_of_the_exact_quotient(value: float, frac: int) -> None:
    exact = math.floor(Fraction(value) * Fraction(2) ** frac + Fraction(1, 2))
    assert Format(32, frac).encode(np.array([value])) == max(-(2**31 - 1), min(2**31 - 1, exact))


@given(st.integers(-(2**40), 2**40), st.integers(2, 32))
def test_fit_saturates_or_wraps(code: int, bits: int) -> None:
    half = 2 ** (bits - 1)
    assert Format(bits, 0).fit(np.array([code])) == max(1 - half, min(half - 1, code))
    wrapped = Format(bits, 0, overflow=WRAP).fit(np.array([code]))
    assert -half <= wrapped < half
    assert (wrapped - code) % (2 * half) == 0


def test_values_too_large_for_a_double_after_scaling_saturate() -> None:
    assert Format(8, 2000).encode(np.array([1.0, -1.0, 0.0])).tolist() == [127, -127, 0]
    assert Format(8, 0).encode(np.array([1e308, -1e308])).tolist() == [127, -127]


def test_values_too_small_for_a_double_after_scaling_are_zero() -> None:
    assert Format(8, -2000).encode(np.array([1e300, -1e300])).tolist() == [0, 0]


def test_encode_keeps_the_shape() -> None:
    assert Format(8, 0).encode(np.zeros((0, 3))).shape == (0, 3)
    assert Format(8, 0).encode(np.float64(3.0)).shape == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_encode_refuses_what_is_not_finite_and_names_its_place(value: float) -> None:
    with pytest.raises(DataError, match=r"the value at \[1, 2\] is not finite"):
        Format(8, 0).encode(np.array([[0.0, 1.0, 2.0], [3.0, 4.0, value]]))


def test_stochastic_encode_needs_random_bits() -> None:
    with pytest.raises(UsageError, match="stochastic rounding needs the random bits of its stream"):
        Format(8, 0, STOCHASTIC).encode(np.array([0.5]))


@pytest.mark.parametrize("field", ["bits", "frac", "rounding", "overflow", "other"])
def test_a_format_cannot_be_changed(field: str) -> None:
    fmt = Format(8, 4)
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        setattr(fmt, field, 3)
    assert fmt == Format(8, 4)
    assert not hasattr(fmt, "__dict__")


def every_kind() -> list[Format]:
    return [Format(bits, 5, r, o) for bits in (2, 8, 32) for r in Rounding for o in Overflow]


@pytest.mark.parametrize("fmt", every_kind(), ids=str)
def test_copies_are_the_same_format(fmt: Format) -> None:
    copies = [copy.copy(fmt), copy.deepcopy(fmt), Format(**dataclasses.asdict(fmt)), dataclasses.replace(fmt)]
    copies += [pickle.loads(pickle.dumps(fmt, protocol)) for protocol in range(2, 6)]
    for other in copies:
        assert other == fmt
        assert hash(other) == hash(fmt)
        assert (type(other.rounding), type(other.overflow)) == (Rounding, Overflow)


def test_formats_that_differ_in_any_field_are_not_equal() -> None:
    formats = [*every_kind(), Format(8, 6)]
    assert len(set(formats)) == len(formats)


def test_with_frac_changes_nothing_else() -> None:
    fmt = Format(8, 4, STOCHASTIC, WRAP)
    assert fmt.with_frac(-7) == Format(8, -7, STOCHASTIC, WRAP)


def test_modes_may_be_given_by_name() -> None:
    assert Format(8, 4, "stochastic", "wrap") == Format(8, 4, STOCHASTIC, WRAP)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0), "format bits is 1: choose a width from 2 to 32"),
        ((33, 0), "format bits is 33: choose a width from 2 to 32"),
        ((8.0, 0), "format bits is 8.0: it must be an integer"),
        ((True, 0), "format bits is True: it must be an integer"),
        ((8, 0.5), "format frac is 0.5: it must be an integer"),
        ((8, None), "format frac is None: it must be an integer"),
        ((8, 0, "up"), "format rounding is 'up': choose nearest or stochastic"),
        ((8, 0, "nearest", "clip"), "format overflow is 'clip': choose saturate or wrap"),
    ],
)
def test_bad_fields_are_named(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Format(*arguments)  # type: ignore[arg-type]
    assert str(error.value) == message
