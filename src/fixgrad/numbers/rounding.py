"""Rounding and saturation of integers: the NumPy int64 definition that every executor must equal.

Shifts are to the right by `shift` >= 0 bits. Nearest rounding breaks ties towards plus infinity ("half up"):
one adder in hardware, and the same on every device. Stochastic rounding adds random bits below the cut, so
that the expectation of the result is the exact quotient and a value that is already on the grid never moves.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError, UsageError

#: Widest right shift of a rounded 32-bit value; wider ones would need more random bits than the hash has.
MAX_SHIFT = 31
_NEEDS_RANDOM = "stochastic rounding needs the random bits of its stream: pass random=hash32(elements, key)"


class Rounding(StrEnum):
    """How a value between two codes is rounded."""

    NEAREST = "nearest"  #: to the nearest code, ties towards plus infinity
    STOCHASTIC = "stochastic"  #: up with the probability of the fraction


def shift_nearest(values: NDArray[np.integer], shift: int) -> NDArray[np.int64]:
    """floor(values / 2**shift + 1/2), int64. `shift` is 0 to 62 and |values| < 2**62."""
    if not 0 <= shift <= 62:
        raise UsageError(f"shift is {shift}: a value of 62 bits can be shifted by 0 to 62")
    wide = np.asarray(values, np.int64)
    if shift == 0:
        return wide.copy()
    return (wide + np.int64(1 << (shift - 1))) >> np.int64(shift)


def shift_stochastic(values: NDArray[np.integer], shift: int, random: NDArray[np.uint32]) -> NDArray[np.int64]:
    """floor(values / 2**shift + r / 2**shift), int64, where r is the top `shift` bits of `random`; `shift` is
    0 to 31."""
    wide = np.asarray(values, np.int64)
    if shift == 0:
        return wide.copy()
    if not 0 < shift <= MAX_SHIFT:
        raise UsageError(f"stochastic shift is {shift}: the hash has bits for 0 to {MAX_SHIFT}")
    return (wide + (random.astype(np.int64) >> np.int64(32 - shift))) >> np.int64(shift)


def shift_round(
    values: NDArray[np.integer], shift: int, rounding: Rounding, random: NDArray[np.uint32] | None = None
) -> NDArray[np.int64]:
    """`shift_nearest` or `shift_stochastic`, as `rounding` says."""
    if Rounding(rounding) is Rounding.NEAREST or shift == 0:
        return shift_nearest(values, shift)
    if random is None:
        raise UsageError(_NEEDS_RANDOM)
    return shift_stochastic(values, shift, random)


def saturate(values: NDArray[np.integer], bits: int) -> NDArray[np.int64]:
    """Values clamped to the symmetric range of `bits` bits: 8 bits hold -127..127."""
    limit = (1 << (bits - 1)) - 1
    return np.clip(np.asarray(values, np.int64), -limit, limit)


def requantise(
    accumulators: NDArray[np.integer],
    shift: int,
    bits: int = 8,
    rounding: Rounding = Rounding.NEAREST,
    random: NDArray[np.uint32] | None = None,
) -> NDArray[np.int64]:
    """Accumulators shifted right by `shift` (0 to 31), rounded, and saturated to `bits` bits; int64."""
    return saturate(shift_round(accumulators, shift, rounding, random), bits)


def align(values: NDArray[np.integer], left: int, bits: int) -> NDArray[np.int64]:
    """values * 2**left in `bits` bits: clamped before a left shift, rounded to nearest in a right shift (left
    < 0).

    The clamp comes first, at ((2**(bits-1) - 1) >> left), so that hardware needs no wide shifter: the result
    is saturated to the largest multiple of 2**left that fits.

    Args:
        values: |values| < 2**62.
        left: -62 to bits - 1.
        bits: width of the result, up to 63.
    """
    limit = (1 << (bits - 1)) - 1
    if left >= 0:
        bound = limit >> left
        return np.clip(np.asarray(values, np.int64), -bound, bound) << np.int64(left)
    return np.clip(shift_nearest(values, -left), -limit, limit)


def bit_length(maximum: int) -> int:
    """Bits of a non-negative integer: 0 for 0, 8 for 128 to 255. |v| <= maximum implies |v| <
    2**bit_length(maximum).

    This is exact, unlike ceil(log2(maximum)), for which a maximum of exactly 128 would claim 7 bits.
    """
    return int(maximum).bit_length()


def round_real(
    values: NDArray[np.float64], frac: int, rounding: Rounding, random: NDArray[np.uint32] | None = None
) -> NDArray[np.int64]:
    """values * 2**frac rounded to integers by the same rules as the shifts; magnitudes are clamped to 2**62.

    Raises:
        DataError: a value is not finite.
    """
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(np.atleast_1d(values)))[0].tolist()
        raise DataError(f"the value at {where} is not finite: only finite numbers have a fixed-point code")
    limit = float(1 << 62)
    with np.errstate(over="ignore"):  # a value that outgrows float64 is clamped like any other large one
        scaled = np.clip(np.ldexp(values, frac), -limit, limit)
    low = np.floor(scaled)
    fraction = scaled - low
    if Rounding(rounding) is Rounding.NEAREST:
        up = fraction >= 0.5
    elif random is None:
        raise UsageError(_NEEDS_RANDOM)
    else:
        # The fraction has up to 53 bits and the hash 32: the value rounds up with probability ceil(f * 2**32)
        # / 2**32, never when f is 0.
        up = random.astype(np.float64) < fraction * 2.0**32
    rounded: NDArray[np.int64] = (low + up).astype(np.int64)
    return rounded
