"""Integer functions with a shift or a divisor of its own for every element: what normalisation needs once a channel.

All values are int64; each function states the magnitudes for which nothing wraps.
"""

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]

#: Widest shift of `align_each`.
WIDEST_SHIFT = 62
_LOW_BITS = 32


def bit_lengths(values: Int64s) -> Int64s:
    """Bits of each magnitude: 0 for 0, 8 for 128 to 255; |values| < 2**63."""
    magnitudes = np.abs(values)
    high = magnitudes >> _LOW_BITS
    # Halves below 2**32 are exact in float64, whose exponent is then the bit length.
    low_bits = np.frexp((magnitudes & ((1 << _LOW_BITS) - 1)).astype(np.float64))[1]
    high_bits = np.frexp(high.astype(np.float64))[1] + _LOW_BITS
    return np.where(high > 0, high_bits, low_bits).astype(np.int64)


def align_each(values: Int64s, left: Int64s | int, bits: int) -> Int64s:
    """values * 2**left, rounded to nearest and saturated to `bits` bits, with a shift for every element.

    Unlike `fixgrad.numbers.align`, what does not fit becomes the largest code of all, also where the shift is wider than that:
    a value that is too large is never taken for zero.

    Args:
        values: |values| < 2**62.
        left: shift to the left, to the right where negative; taken into -62 .. 62.
        bits: width of the result, up to 63.
    """
    limit = np.int64((1 << (bits - 1)) - 1)
    if isinstance(left, int):
        shift = max(-WIDEST_SHIFT, min(left, WIDEST_SHIFT))
        return _raised(values, np.int64(shift), limit) if shift >= 0 else _lowered(values, np.int64(-shift), limit)
    shifts = _clipped(np.asarray(left, np.int64), np.int64(WIDEST_SHIFT))
    raised, lowered = _raised(values, np.maximum(shifts, 0), limit), _lowered(values, np.maximum(-shifts, 0), limit)
    return np.where(shifts >= 0, raised, lowered)


def _clipped(values: Int64s, bound: Int64s | np.int64) -> Int64s:
    """As `np.clip`, which takes several times as long for the few channels of a layer."""
    clipped: Int64s = np.minimum(np.maximum(values, -bound), bound)
    return clipped


def _raised(values: Int64s, up: Int64s | np.int64, limit: np.int64) -> Int64s:
    bound = limit >> up
    return np.where(np.abs(values) > bound, np.sign(values) * limit, _clipped(values, bound) << up)


def _lowered(values: Int64s, down: Int64s | np.int64, limit: np.int64) -> Int64s:
    half = (np.int64(1) << down) >> np.int64(1)  # 0 where nothing is cut off
    return _clipped((values + half) >> down, limit)


def narrow_each(values: Int64s, bits: int) -> tuple[Int64s, Int64s]:
    """Each value as mantissa * 2**shift with |mantissa| <= 2**bits, rounded to nearest; shifts are 0 where it fits as it is.

    |values| < 2**62.
    """
    shifts = np.maximum(bit_lengths(values) - bits, 0)
    return align_each(values, -shifts, 63), shifts


def divide_nearest(values: Int64s, divisor: Int64s | int) -> Int64s:
    """floor(values / divisor + 1/2) for positive divisors; |values| < 2**62, divisor < 2**62."""
    wide = np.asarray(divisor, np.int64)
    quotient: Int64s = (values + wide // 2) // wide
    return quotient


def square_roots(values: Int64s) -> Int64s:
    """floor(sqrt(values)) for 0 <= values < 2**52.

    The float64 root of such an integer is correctly rounded (IEEE 754) and cannot reach the next integer: below a square
    m**2 < 2**52 it is at least 2**-27 away from m, and the spacing of float64 there is 2**-27 at most.
    """
    return np.sqrt(values.astype(np.float64)).astype(np.int64)
