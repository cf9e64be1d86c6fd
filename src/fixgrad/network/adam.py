"""The update of one parameter by Adam on stored integers (NumPy int64, the definition).

In real numbers, with the mean gradient g and after t updates (Kingma and Ba, ICLR 2015; adamw: Loshchilov and Hutter, ICLR 2019):

    m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g**2
    w <- w - rate (m / (1 - b1**t)) / (sqrt(v / (1 - b2**t)) + epsilon) - rate decay w

where adam adds decay * w to g instead. The host puts both corrections of the bias into the constants of a step:
rate sqrt(1 - b2**t) / (1 - b1**t) and epsilon sqrt(1 - b2**t). Moments are words with an exponent of their own (`moments`).
The comments give the bits of each magnitude: nothing reaches 2**63.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.network.moments import MOMENT_BITS, Scaled, added, from_words, normalised, to_words
from fixgrad.network.recipe import MOMENTUM_FRAC, Coefficient, Optimiser, Recipe, quantise_coefficient
from fixgrad.network.update import MAX_TERM_LEFT, TERM_BITS, ParameterFormats
from fixgrad.numbers import Rounding, align, saturate, shift_round
from fixgrad.numbers.elementwise import Int64s, align_each, divide_nearest, square_roots

#: Fractional bits of the decay of the second moment.
SECOND_FRAC = 16
#: Bits of a gradient that enters the moments: its square and each product then fit 48 bits.
GRADIENT_BITS = 16
#: Bits of the frame in which the two terms of a moment are added: the sum fits the 48 bits of a common DSP slice.
FRAME_BITS = 46
#: Bits of the root of the second moment: of a radicand of 33 or 34 bits.
ROOT_BITS = 17
#: 1 / d = reciprocal * 2**-34 for a denominator 2**16 <= d < 2**18, so 2**16 < reciprocal <= 2**18.
RECIPROCAL_FRAC = 2 * ROOT_BITS
#: Fractional bits, and bits in all, of the change of a stored code before it is rounded.
STEP_FRAC, STEP_BITS = 16, 48


class AdamConstants(NamedTuple):
    """The constants of one step's update: the same for every weight.

    Attributes:
        first, second: decays b1 and b2 of the moments, mantissas with 8 and 16 fractional bits.
        inverse_batch: 1 / images of the batch: the moments are those of the mean gradient.
        rate, epsilon: learning rate and epsilon, with the corrections of the bias.
        coupled: weight decay that is added to the gradient (adam).
        decay: learning rate * weight decay that is subtracted from the weight (adamw).
    """

    first: int
    second: int
    inverse_batch: Coefficient
    rate: Coefficient
    epsilon: Coefficient
    coupled: Coefficient
    decay: Coefficient


class AdamShifts(NamedTuple):
    """Of one parameter in one step.

    Attributes:
        gradient: a unit of the scaled gradient is 2**gradient.
        coupled: left shift (negative: right) of the weight's term in the gradient.
        step: of mantissa * reciprocal * rate to STEP_FRAC bits behind a stored code, but for the exponents of the element.
        decay: of the weight's own decay to that scale.
    """

    gradient: int
    coupled: int
    step: int
    decay: int


def adam_constants(recipe: Recipe, step: int, total_steps: int, batch: int, moment_steps: int) -> AdamConstants:
    """The constants of step `step` for a (global) batch of `batch` images, with moments that hold `moment_steps` updates."""
    rate = recipe.rate_at(step, total_steps)
    first = _quantised_decay(recipe.momentum, MOMENTUM_FRAC)
    second = _quantised_decay(recipe.beta2, SECOND_FRAC)
    seen_first = 1.0 - _power(math.ldexp(first, -MOMENTUM_FRAC), moment_steps + 1)
    seen_second = math.sqrt(1.0 - _power(math.ldexp(second, -SECOND_FRAC), moment_steps + 1))
    decoupled = recipe.optimiser is Optimiser.ADAMW
    return AdamConstants(
        first=first,
        second=second,
        inverse_batch=quantise_coefficient(1.0 / batch),
        rate=quantise_coefficient(rate * seen_second / seen_first),
        epsilon=quantise_coefficient(recipe.epsilon * seen_second),
        coupled=quantise_coefficient(0.0 if decoupled else recipe.weight_decay),
        decay=quantise_coefficient(rate * recipe.weight_decay if decoupled else 0.0),
    )


def _quantised_decay(value: float, frac: int) -> int:
    return min(math.floor(math.ldexp(value, frac) + 0.5), (1 << frac) - 1)


def _power(base: float, exponent: int) -> float:
    """base**exponent by squaring: multiplications, which IEEE 754 rounds in one way only, and not a platform's `pow`."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base, exponent = base * base, exponent >> 1
    return result


def adam_shifts(formats: ParameterFormats, gradient_frac: int, constants: AdamConstants) -> AdamShifts:
    """The shifts of one parameter in one step."""
    scaled_frac = gradient_frac + constants.inverse_batch.shift
    coupled = scaled_frac - formats.stored_frac - constants.coupled.shift
    return AdamShifts(
        gradient=-scaled_frac,
        coupled=max(min(coupled, MAX_TERM_LEFT), -62),
        step=formats.stored_frac + STEP_FRAC - constants.rate.shift - RECIPROCAL_FRAC,
        decay=max(min(STEP_FRAC - constants.decay.shift, MAX_TERM_LEFT), -62),
    )


class AdamUpdated(NamedTuple):
    """After an update: stored weights, int64 codes, and both moments, int32 words."""

    stored: NDArray[np.int64]
    first: NDArray[np.int32]
    second: NDArray[np.int32]


def adam_update(
    stored: NDArray[np.integer],
    first: NDArray[np.integer],
    second: NDArray[np.integer],
    gradient: NDArray[np.integer],
    formats: ParameterFormats,
    shifts: AdamShifts,
    constants: AdamConstants,
    rounding: Rounding,
    random: NDArray[np.uint32] | None = None,
) -> AdamUpdated:
    """One update of a parameter.

    Args:
        stored: codes, any one shape.
        first, second: words of the moments, in that shape.
        gradient: 32-bit accumulators of the gradient summed over the batch, in that shape.
        formats: widths of the parameter.
        shifts: see `adam_shifts`.
        constants: see `adam_constants`.
        rounding: of the stored weight, nearest or stochastic, which takes the top 16 bits of `random`. Moments are rounded to
            nearest.
        random: 32 random bits for each element of the parameter (its linear index in the stream), for stochastic rounding.
    """
    wide = np.asarray(stored, np.int64)
    scaled = np.asarray(gradient, np.int64) * constants.inverse_batch.mantissa  # 39 bits
    scaled = scaled + align(wide * constants.coupled.mantissa, shifts.coupled, TERM_BITS)  # 40 bits
    g = normalised(Scaled(scaled, np.full_like(scaled, shifts.gradient)), GRADIENT_BITS)
    square = Scaled(g.mantissa * g.mantissa, 2 * g.exponent)
    new_first = _moment(from_words(first), g, constants.first, MOMENTUM_FRAC)
    new_second = _moment(from_words(second), square, constants.second, SECOND_FRAC)
    change = _change(from_words(new_first), from_words(new_second), shifts, constants)
    total = change + align(wide * constants.decay.mantissa, shifts.decay, STEP_BITS)
    moved = wide - shift_round(total, STEP_FRAC, rounding, random)
    return AdamUpdated(saturate(moved, formats.stored_bits), new_first, new_second)


def _moment(moment: Scaled, value: Scaled, decay: int, frac: int) -> NDArray[np.int32]:
    """decay * moment + (1 - decay) * value, with `frac` fractional bits of the decay."""
    kept = Scaled(moment.mantissa * decay, moment.exponent - frac)  # 23 + 16 bits
    pulled = Scaled(value.mantissa * ((1 << frac) - decay), value.exponent - frac)  # 32 + 16 bits
    return to_words(normalised(added(kept, pulled, FRAME_BITS), MOMENT_BITS))


def _change(first: Scaled, second: Scaled, shifts: AdamShifts, constants: AdamConstants) -> Int64s:
    """rate * first / (sqrt(second) + epsilon) with STEP_FRAC bits behind a stored code."""
    reciprocal = _reciprocal(_root(second), constants.epsilon)
    product = first.mantissa * reciprocal.mantissa * constants.rate.mantissa  # 23 + 19 + 8 bits
    return align_each(product, first.exponent + reciprocal.exponent + shifts.step, STEP_BITS)


def _root(value: Scaled) -> Scaled:
    """The square root (floor) with ROOT_BITS bits: the radicand is brought to 33 or 34 bits, whichever makes its exponent even."""
    left = 2 * ROOT_BITS - 1 - MOMENT_BITS + (value.exponent & 1)
    return Scaled(square_roots(value.mantissa << left), (value.exponent - left) >> 1)


def _reciprocal(root: Scaled, epsilon: Coefficient) -> Scaled:
    """1 / (root + epsilon) without its factor 2**-RECIPROCAL_FRAC; 0 where both are 0."""
    constant = Scaled(np.full_like(root.mantissa, epsilon.mantissa), np.full_like(root.exponent, -epsilon.shift))
    d = added(root, constant, ROOT_BITS)  # 17 or 18 bits
    quotient = divide_nearest(np.full_like(d.mantissa, 1 << RECIPROCAL_FRAC), np.maximum(d.mantissa, 1))
    return Scaled(np.where(d.mantissa == 0, 0, quotient), -d.exponent)
