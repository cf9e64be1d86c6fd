"""Integers with an exponent of their own: how Adam's moments are held, element by element (NumPy int64, the definition).

A gradient's elements differ by many powers of two, and Adam divides each by its own size: with one scale for a whole tensor
the small ones would be rounded away. So a moment is a 32-bit word, mantissa * 256 + exponent field, of value
mantissa * 2**(field - MOMENT_BIAS): the mantissa is signed and has MOMENT_BITS bits of magnitude, the highest of them set. Zero is
the word 0. There are no infinities, no subnormals and no scale histories; 2**-192 to 2**64 is more than 32-bit accumulators
at any of their scales can reach.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.numbers.elementwise import Int64s, align_each, bit_lengths

#: Bits of the magnitude of a mantissa.
MOMENT_BITS = 23
#: Bits of the exponent field.
FIELD_BITS = 8
LARGEST_FIELD = (1 << FIELD_BITS) - 1
#: Subtracted from the exponent field.
MOMENT_BIAS = 192 + MOMENT_BITS - 1
#: What has no bits lies below everything else.
_NOTHING = -(1 << 20)


class Scaled(NamedTuple):
    """mantissa * 2**exponent, element by element."""

    mantissa: Int64s
    exponent: Int64s


def normalised(value: Scaled, bits: int) -> Scaled:
    """The same with mantissas of exactly `bits` bits (or 0), rounded to nearest; |mantissa| < 2**62 before."""
    shift = bit_lengths(value.mantissa) - bits
    mantissa = align_each(value.mantissa, -shift, 63)
    carried = np.abs(mantissa) >> bits  # 1 where rounding up gave 2**bits
    return Scaled(mantissa >> carried, value.exponent + shift + carried)


def added(one: Scaled, other: Scaled, bits: int) -> Scaled:
    """The sum, where each term is rounded to nearest below the lowest of `bits` bits under the highest bit of the larger one."""
    tops = [np.where(term.mantissa == 0, _NOTHING, bit_lengths(term.mantissa) + term.exponent) for term in (one, other)]
    exponent = np.maximum(*tops) - bits
    terms = [align_each(term.mantissa, term.exponent - exponent, 63) for term in (one, other)]
    return Scaled(terms[0] + terms[1], exponent)


def to_words(value: Scaled) -> NDArray[np.int32]:
    """The words of normalised mantissas of MOMENT_BITS bits: too small becomes 0, too large the largest."""
    field = value.exponent + MOMENT_BIAS
    largest = np.sign(value.mantissa) * ((1 << MOMENT_BITS) - 1)
    mantissa = np.where(field > LARGEST_FIELD, largest, value.mantissa)
    words = (mantissa << FIELD_BITS) + np.minimum(field, LARGEST_FIELD)
    return np.where((field < 0) | (mantissa == 0), 0, words).astype(np.int32)


def from_words(words: NDArray[np.integer]) -> Scaled:
    """What `to_words` wrote."""
    wide = np.asarray(words, np.int64)
    return Scaled(wide >> FIELD_BITS, (wide & LARGEST_FIELD) - MOMENT_BIAS)


def are_words(words: NDArray[np.int32]) -> bool:
    """Whether all are words that `to_words` can write."""
    mantissa = from_words(words).mantissa
    return bool(((words == 0) | (bit_lengths(mantissa) == MOMENT_BITS)).all())
