"""32-bit accumulators: they wrap, and a sticky flag tells that they did.

Addition modulo 2**32 is associative, so order, tiling, sparsity and the number of workers cannot change the
bits.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.numbers.rounding import bit_length

ACCUMULATOR_BITS = 32


class Accumulated(NamedTuple):
    """Accumulators after a sum of products.

    `overflow` is true when an exact sum lies outside of 32 bits. (Hardware, which sees partial sums, may also
    raise its flag for a sum that leaves the range and comes back; the wrapped value is right even then.)
    """

    values: NDArray[np.int32]
    overflow: bool


def wrap32(exact: NDArray[np.int64]) -> Accumulated:
    """Exact int64 sums taken modulo 2**32, as two's complement int32, with the overflow flag."""
    wrapped = exact.astype(np.int32)
    return Accumulated(wrapped, bool((wrapped != exact).any()))


def magnitude_bits(codes: NDArray[np.integer]) -> int:
    """Bits of the largest magnitude: the post-processor's range detector. 0 for no or only zero codes."""
    if codes.size == 0:
        return 0
    return bit_length(max(int(codes.max()), -int(codes.min())))
