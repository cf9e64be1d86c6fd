"""Delayed scaling: the exponent of a tensor is chosen from the maxima of past steps.

Hardware must know the shift of a requantisation before the pass whose maximum it would need, so a step uses what the steps
before it measured. A value that outgrows the window saturates, is counted, and widens the window's exponent for the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fixgrad.numbers import MAX_SHIFT

#: Steps over which the largest exponent is kept.
WINDOW = 16


@dataclass(frozen=True, slots=True)
class ScaleHistory:
    """Exponents measured for one tensor in the last steps, oldest first.

    An exponent E says that every value of the tensor was below 2**E in magnitude.
    """

    exponents: tuple[int, ...] = ()

    @property
    def exponent(self) -> int:
        """The exponent in force; raises ValueError before the first measurement (see `calibrate`)."""
        return max(self.exponents)

    def after(self, magnitude_bits: int, frac: int, window: int = WINDOW) -> "ScaleHistory":
        """The history after a step whose largest accumulator had `magnitude_bits` bits at `frac` fractional bits.

        A tensor of zeros says nothing about its scale and leaves the history as it is, unless there is none.
        """
        if magnitude_bits == 0 and self.exponents:
            return self
        return replace(self, exponents=(*self.exponents, magnitude_bits - frac)[-window:])


def first_history(magnitude_bits: int, frac: int, otherwise: int) -> ScaleHistory:
    """The history after the first measurement, or with the exponent `otherwise` where that saw zeros alone.

    A normalisation whose factors begin at zero gives zeros: that says nothing of what it will give once they have grown.
    """
    return ScaleHistory((magnitude_bits - frac if magnitude_bits else otherwise,))


def output_frac(exponent: int, accumulator_frac: int, bits: int) -> int:
    """Fractional bits of codes of `bits` bits for values below 2**exponent, made from accumulators.

    The right shift, accumulator_frac - result, is held within 0..31: codes are never finer than the accumulators.
    """
    wanted = bits - 1 - exponent
    return min(max(wanted, accumulator_frac - MAX_SHIFT), accumulator_frac)


def common_frac(fracs: Sequence[int], widest: int) -> int:
    """Fractional bits to which tensors are aligned for a sum: the finest, but at most `widest` finer than the coarsest."""
    return min(max(fracs), min(fracs) + widest)
