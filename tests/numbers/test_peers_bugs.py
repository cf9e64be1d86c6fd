"""Bugs found in published libraries for low-precision training, each shown on its data and shown not to be ours.

Where a test computes the wrong way as well, that proves that its data would reveal the bug.
"""

import copy
import math
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fixgrad.numbers import (
    Format,
    Overflow,
    Rounding,
    align,
    bit_length,
    conv_forward,
    gemm,
    hash32,
    magnitude_bits,
    matmul,
    requantise,
    saturate,
    shift_nearest,
    shift_round,
    shift_stochastic,
    stream_key,
)


def test_symmetric_8_bits_have_255_levels_and_never_plus_or_minus_128() -> None:
    """The bug: a range of -128 to +128, 257 levels, of which one does not fit into the byte."""
    fmt = Format(8, 0)
    wide = np.arange(-(2**16), 2**16)
    for codes in (
        fmt.fit(wide),
        fmt.encode(wide / 8),
        saturate(wide, 8),
        requantise(wide, 3),
        requantise(wide, 3, 8, Rounding.STOCHASTIC, np.full(wide.shape, 0xFFFFFFFF, np.uint32)),
        align(wide, -3, 8),
    ):
        levels = np.unique(codes)
        assert levels.tolist() == list(range(-127, 128))
        assert (levels.astype(np.int8) == levels).all()


def test_stochastic_rounding_rounds() -> None:
    """The bug: noise is added and nothing is rounded, so values off the grid leave a 'quantiser'."""
    fmt = Format(8, 4, Rounding.STOCHASTIC)
    reals = np.linspace(-9, 9, 100_001)
    codes = fmt.encode(reals, hash32(np.arange(reals.size), stream_key(0, 0, "bug")))
    values = fmt.decode(codes)
    assert set(values.tolist()) <= {code / 16 for code in range(-127, 128)}
    inside = np.abs(reals) <= 127 / 16
    assert (np.abs(values - reals)[inside] < 1 / 16).all()
    again = fmt.encode(values, hash32(np.arange(reals.size), stream_key(1, 0, "bug")))
    assert (again == codes).all()


def test_stochastic_rounding_to_24_bits_moves_no_value_on_the_grid() -> None:
    """The bug: a 24-bit code plus a float32 random number is rounded up by the addition itself."""
    count = 1 << 18
    codes = np.random.default_rng(0).integers(1 - 2**23, 2**23, count)
    words = hash32(np.arange(count), stream_key(0, 0, "bug"))
    in_float32 = np.floor(codes.astype(np.float32) + (words / 2.0**32).astype(np.float32)).astype(np.int64)
    assert 0.16 < (in_float32 != codes).mean() < 0.18

    fmt = Format(24, 20, Rounding.STOCHASTIC)
    for random in (words, np.full(count, 0xFFFFFFFF, np.uint32)):
        assert (fmt.encode(fmt.decode(codes), random) == codes).all()
        assert (shift_stochastic(codes << 16, 16, random) == codes).all()


def test_ties_go_towards_plus_infinity_wherever_they_are_rounded() -> None:
    """The bug: ties to even on the CPU, away from zero in the CUDA kernel.

    Integers, reals and accumulators share one rule here, which needs no rounding mode of any device.
    """
    ties = np.arange(-255, 256, 2)
    expected = [math.floor(Fraction(int(tie), 2) + Fraction(1, 2)) for tie in ties]
    assert shift_nearest(ties, 1).tolist() == expected
    assert Format(16, 0).encode(ties / 2).tolist() == expected
    assert Format(16, 0).encode((ties / 2).astype(np.float32)).tolist() == expected
    assert requantise(ties.astype(np.int32), 1, 16).tolist() == expected
    assert align(ties, -1, 16).tolist() == expected
    assert np.rint(ties / 2).tolist() != expected
    assert (np.sign(ties) * np.floor(np.abs(ties / 2) + 0.5)).tolist() != expected


def test_shifts_of_negatives_are_not_biased_by_a_step() -> None:
    """The bug: floor division, which moves every inexact value down, negatives away from zero."""
    for shift in range(1, 9):
        values = np.arange(-(2**12), 2**12)
        errors = shift_nearest(values, shift) * 2**shift - values
        assert np.abs(errors).max() == 2 ** (shift - 1)
        for sign in (values[values < 0], values[values >= 0]):
            mean = (shift_nearest(sign, shift) * 2**shift - sign).mean()
            assert mean == 0.5  # one tie in 2**shift values goes up by 2**(shift-1); all other errors cancel
            assert ((sign >> shift) * 2**shift - sign).mean() == -(2**shift - 1) / 2
    assert shift_nearest(np.array([-1, -3, -5, -7]), 3).tolist() == [0, 0, -1, -1]


def test_a_maximum_of_exactly_128_does_not_wrap() -> None:
    """The bug: ceil(log2(128)) = 7 bits, so 128 is stored as -128."""
    for maximum in (2**k for k in range(31)):
        accumulators = np.array([maximum, -maximum, 0])
        bits = magnitude_bits(accumulators)
        assert bits == bit_length(maximum) == int(maximum).bit_length()
        assert maximum < 2**bits
        codes = requantise(accumulators, max(0, bits - 7))
        assert codes[0] > 0 > codes[1]
        assert codes[0] == -codes[1]
        assert np.abs(codes).max() <= 127
    assert math.ceil(math.log2(128)) == 7
    assert bit_length(128) == 8


@pytest.mark.parametrize(("depth", "lost"), [(1040, 0), (1041, 1), (4608, 3568)])
def test_float32_accumulators_do_not_lose_products(depth: int, lost: int) -> None:
    """The bug: float32 as an integer unit beyond 2**24 = 1,040 products of +-127; random data never shows it."""
    exact = 127 * 127 * depth
    in_float32 = np.add.accumulate(np.full(depth, 127 * 127, np.float32))[-1]
    assert exact - int(in_float32) == lost
    ones = np.full((1, depth), 127, np.int8)
    for left, right, sign in ((ones, ones.T, 1), (-ones, ones.T, -1), (-ones, -ones.T, 1)):
        assert matmul(left, right) == (np.array([[sign * exact]]), False)
    assert conv_forward(ones[:, :, None, None], ones[:, :, None, None]).values.item() == exact


def test_a_gemm_that_saturates_in_16_bits_is_found_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: without VNNI, pairs of int8 products are added in 16 bits and clamped, on some CPUs alone.

    The float units of the machine are tested before they are first used; where they fail the next path is taken.
    """
    numpy_matmul = np.matmul

    def saturating(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        if a.dtype == np.int64 or a.shape[-1] < 2:
            exact: NDArray[Any] = numpy_matmul(a, b)
            return exact
        even = a.shape[1] // 2 * 2
        pairs = a[:, 0:even:2, None] * b[0:even:2] + a[:, 1:even:2, None] * b[1:even:2]
        total: NDArray[Any] = np.clip(pairs, -32768, 32767).sum(axis=1) + a[:, even:] @ b[even:]
        return total

    codes = np.full((1, 4), -128, np.int8)
    assert saturating(codes.astype(np.float32), codes.T.astype(np.float32)) == 2 * 32767
    for dtype in (np.float32, np.float64):
        assert gemm.is_exact(np.dtype(dtype))
        assert not gemm.is_exact(np.dtype(dtype), saturating)
    self_test = gemm.is_exact
    monkeypatch.setattr(gemm, "is_exact", lambda dtype: self_test(dtype, saturating))
    monkeypatch.setattr(np, "matmul", saturating)
    assert matmul(codes, codes.T) == (np.array([[4 * 2**14]]), False)


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("overflow", Overflow)
def test_formats_keep_their_rounding_mode_through_every_copy(rounding: Rounding, overflow: Overflow) -> None:
    """The bug: a format that passes through a transformation comes out with the default mode.

    Equality is not trusted here: what the copies do to codes is compared.
    """
    fmt = Format(8, 4, rounding, overflow)
    reals = np.linspace(-20, 20, 999)
    random = hash32(np.arange(reals.size), stream_key(0, 0, "bug"))
    expected = fmt.encode(reals, random)
    copies = {
        "copy": copy.copy(fmt),
        "deepcopy in a container": copy.deepcopy({"a": [fmt]})["a"][0],
        "pickle": pickle.loads(pickle.dumps(fmt)),
        "rescaled and back": fmt.with_frac(9).with_frac(4),
        "as text": Format(8, 4, Rounding(str(fmt.rounding)), Overflow(str(fmt.overflow))),
    }
    for name, other in copies.items():
        assert (other.encode(reals, random) == expected).all(), name
    others = [Format(8, 4, r, o) for r in Rounding for o in Overflow if (r, o) != (rounding, overflow)]
    assert all((other.encode(reals, random) != expected).any() for other in others)


def test_a_rounding_mode_given_as_text_is_not_taken_for_the_other() -> None:
    """`shift_round` compares modes: the name of a mode must do what the mode does, not silently something else."""
    values, random = np.arange(-99, 99), hash32(np.arange(198), stream_key(0, 0, "bug"))
    for mode in Rounding:
        by_name = shift_round(values, 3, mode.value, random)  # type: ignore[arg-type]
        assert (by_name == shift_round(values, 3, mode, random)).all()
