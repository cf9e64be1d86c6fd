"""Adam on stored integers in eager PyTorch, for any device: `fixgrad.network.adam` and `fixgrad.network.moments` on tensors."""

from typing import NamedTuple

import torch
from torch import Tensor

from fixgrad.network.adam import (
    FRAME_BITS,
    GRADIENT_BITS,
    RECIPROCAL_FRAC,
    ROOT_BITS,
    SECOND_FRAC,
    STEP_BITS,
    AdamConstants,
    AdamShifts,
)
from fixgrad.network.moments import FIELD_BITS, LARGEST_FIELD, MOMENT_BIAS, MOMENT_BITS
from fixgrad.network.recipe import MOMENTUM_FRAC, Coefficient
from fixgrad.numbers.elementwise import WIDEST_SHIFT

#: Below every exponent of something that is not 0.
_NOTHING = -(1 << 20)


class Scaled(NamedTuple):
    """mantissa * 2**exponent, int64 tensors."""

    mantissa: Tensor
    exponent: Tensor


class Moments(NamedTuple):
    """Both moments after an update, as words."""

    first: Tensor
    second: Tensor


def new_moments(gradient: Tensor, first: Tensor, second: Tensor, shifts: AdamShifts, constants: AdamConstants) -> Moments:
    """The moments' words from those before and the scaled gradient, int64 in units of 2**shifts.gradient."""
    g = _normalised(Scaled(gradient, torch.full_like(gradient, shifts.gradient)), GRADIENT_BITS)
    square = Scaled(g.mantissa * g.mantissa, 2 * g.exponent)
    return Moments(
        _moment(from_words(first), g, constants.first, MOMENTUM_FRAC),
        _moment(from_words(second), square, constants.second, SECOND_FRAC),
    )


def change(moments: Moments, shifts: AdamShifts, constants: AdamConstants) -> Tensor:
    """rate * first / (sqrt(second) + epsilon), int64 with STEP_FRAC bits behind a stored code."""
    first, second = from_words(moments.first), from_words(moments.second)
    reciprocal = _reciprocal(_root(second), constants.epsilon)
    product = first.mantissa * reciprocal.mantissa * constants.rate.mantissa
    return _align_each(product, first.exponent + reciprocal.exponent + shifts.step, STEP_BITS)


def from_words(words: Tensor) -> Scaled:
    """See `fixgrad.network.moments.from_words`."""
    wide = words.to(torch.int64)
    return Scaled(wide >> FIELD_BITS, (wide & LARGEST_FIELD) - MOMENT_BIAS)


def _moment(moment: Scaled, value: Scaled, decay: int, frac: int) -> Tensor:
    kept = Scaled(moment.mantissa * decay, moment.exponent - frac)
    pulled = Scaled(value.mantissa * ((1 << frac) - decay), value.exponent - frac)
    return _to_words(_normalised(_added(kept, pulled, FRAME_BITS), MOMENT_BITS))


def _to_words(value: Scaled) -> Tensor:
    field = value.exponent + MOMENT_BIAS
    largest = torch.sign(value.mantissa) * ((1 << MOMENT_BITS) - 1)
    mantissa = torch.where(field > LARGEST_FIELD, largest, value.mantissa)
    words = (mantissa << FIELD_BITS) + field.clamp_max(LARGEST_FIELD)
    return torch.where((field < 0) | (mantissa == 0), 0, words).to(torch.int32)


def _bit_lengths(values: Tensor) -> Tensor:
    """Bits of magnitudes below 2**53, which float64 holds as they are."""
    return torch.frexp(values.abs().to(torch.float64)).exponent.to(torch.int64)


def _align_each(values: Tensor, left: Tensor, bits: int) -> Tensor:
    limit = (1 << (bits - 1)) - 1
    shifts = left.clamp(-WIDEST_SHIFT, WIDEST_SHIFT)
    up, down = shifts.clamp_min(0), (-shifts).clamp_min(0)
    bound = limit >> up
    raised = torch.where(values.abs() > bound, torch.sign(values) * limit, torch.clamp(values, -bound, bound) << up)
    half = torch.where(down > 0, torch.ones_like(down) << (down - 1).clamp_min(0), 0)
    lowered = ((values + half) >> down).clamp(-limit, limit)
    return torch.where(shifts >= 0, raised, lowered)


def _normalised(value: Scaled, bits: int) -> Scaled:
    shift = _bit_lengths(value.mantissa) - bits
    mantissa = _align_each(value.mantissa, -shift, 63)
    carried = mantissa.abs() >> bits
    return Scaled(mantissa >> carried, value.exponent + shift + carried)


def _added(one: Scaled, other: Scaled, bits: int) -> Scaled:
    tops = [torch.where(term.mantissa == 0, _NOTHING, _bit_lengths(term.mantissa) + term.exponent) for term in (one, other)]
    exponent = torch.maximum(*tops) - bits
    terms = [_align_each(term.mantissa, term.exponent - exponent, 63) for term in (one, other)]
    return Scaled(terms[0] + terms[1], exponent)


def _root(value: Scaled) -> Scaled:
    left = 2 * ROOT_BITS - 1 - MOMENT_BITS + (value.exponent & 1)
    root = torch.sqrt((value.mantissa << left).to(torch.float64)).to(torch.int64)
    return Scaled(root, (value.exponent - left) >> 1)


def _reciprocal(root: Scaled, epsilon: Coefficient) -> Scaled:
    constant = Scaled(torch.full_like(root.mantissa, epsilon.mantissa), torch.full_like(root.exponent, -epsilon.shift))
    d = _added(root, constant, ROOT_BITS)
    divisor = d.mantissa.clamp_min(1)
    quotient = ((1 << RECIPROCAL_FRAC) + divisor // 2) // divisor
    return Scaled(torch.where(d.mantissa == 0, 0, quotient), -d.exponent)
