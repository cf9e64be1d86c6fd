"""The update of one parameter: momentum SGD with weight decay on stored integers (NumPy int64, the definition).

In real numbers: u <- momentum * u + rate * gradient + decay * w, then w <- w - u. The momentum u is kept in units of the
weight (the learning rate is inside), so its range does not follow the gradient's: it covers 2**-4 of the weight's range.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.network.recipe import MOMENTUM_FRAC, UpdateConstants
from fixgrad.numbers import Rounding, align, saturate, shift_round

#: The largest momentum is 2**-4 of the largest weight: a step that changes a weight by more saturates.
MOMENTUM_RANGE = 4
#: Width of each of the three terms of the momentum before they are added.
TERM_BITS = 40
#: Widest left shift of a term: beyond it the gradient's step is coarser than the whole momentum.
MAX_TERM_LEFT = 24


class ParameterFormats(NamedTuple):
    """Widths and scales of one parameter's stored value and momentum."""

    stored_bits: int
    stored_frac: int
    momentum_bits: int

    @property
    def momentum_frac(self) -> int:
        """Fractional bits of the momentum, from the range of the stored value."""
        return self.momentum_bits - self.stored_bits + self.stored_frac + MOMENTUM_RANGE


class TermShifts(NamedTuple):
    """Left shifts (negative: right) that bring the terms to momentum_frac + 8, and the momentum to the stored scale."""

    gradient: int
    decay: int
    step: int


def term_shifts(formats: ParameterFormats, gradient_frac: int, constants: UpdateConstants) -> TermShifts:
    """The shifts of one parameter in one step: the host writes them into the machine's step table."""
    target = formats.momentum_frac + MOMENTUM_FRAC
    gradient = target - gradient_frac - constants.rate.shift
    decay = target - formats.stored_frac - constants.decay.shift
    return TermShifts(
        gradient=max(min(gradient, MAX_TERM_LEFT), -62),
        decay=max(min(decay, MAX_TERM_LEFT), -62),
        step=formats.stored_frac - formats.momentum_frac,
    )


class Updated(NamedTuple):
    """Stored weights and momentum after an update, int64 codes."""

    stored: NDArray[np.int64]
    momentum: NDArray[np.int64]


def update(
    stored: NDArray[np.integer],
    momentum: NDArray[np.integer],
    gradient: NDArray[np.integer],
    formats: ParameterFormats,
    shifts: TermShifts,
    constants: UpdateConstants,
    rounding: Rounding,
    random: NDArray[np.uint32] | None = None,
) -> Updated:
    """One update of a parameter.

    Args:
        stored, momentum: codes, any one shape.
        gradient: 32-bit accumulators of the gradient summed over the batch, in that shape.
        formats: widths of the parameter.
        shifts: see `term_shifts`.
        constants: see `update_constants`.
        rounding: nearest or stochastic. Stochastic rounding takes the top 8 bits of `random` for the momentum and the
            bits below them for the step.
        random: 32 random bits for each element of the parameter (its linear index in the stream), for stochastic rounding.
    """
    kept = np.asarray(momentum, np.int64) * constants.momentum
    pulled = align(np.asarray(gradient, np.int64) * constants.rate.mantissa, shifts.gradient, TERM_BITS)
    decayed = align(np.asarray(stored, np.int64) * constants.decay.mantissa, shifts.decay, TERM_BITS)
    total = kept + pulled + decayed
    new_momentum = saturate(shift_round(total, MOMENTUM_FRAC, rounding, random), formats.momentum_bits)
    below = None if random is None else random << np.uint32(MOMENTUM_FRAC)
    left, right = max(shifts.step, 0), max(-shifts.step, 0)
    change = shift_round(new_momentum << np.int64(left), right, rounding, below)
    return Updated(saturate(np.asarray(stored, np.int64) - change, formats.stored_bits), new_momentum)
