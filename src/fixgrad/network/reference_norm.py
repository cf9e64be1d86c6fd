"""Batch normalisation in the reference executor: what it remembers between FF and NG of one step."""

from typing import NamedTuple

import numpy as np

from fixgrad.network.batch_norm import BatchNorm
from fixgrad.network.normalisation import (
    ACCUMULATOR_FRAC,
    Coefficients,
    ErrorSums,
    InverseRoot,
    Moments,
    apply_backward,
    apply_forward,
    averaged,
    backward_map,
    channel_sums,
    element_count,
    epsilon_code,
    first_error_exponent,
    first_forward_exponent,
    forward_map,
    gamma_gradient,
    inverse_root,
    moments,
    running_moments,
)
from fixgrad.network.operations import Codes
from fixgrad.network.state import State
from fixgrad.numbers.elementwise import Int64s


class Normalised(NamedTuple):
    """What FF of one layer found: moments of the batch (or running ones) and inverse roots of each channel."""

    x_frac: int
    elements: int
    seen: Moments
    inverse: InverseRoot


def coefficients_of(layer: BatchNorm, state: State) -> Coefficients:
    """Stored gamma and beta."""
    gamma, beta = state.parameters[layer.gamma], state.parameters[layer.beta]
    return Coefficients(
        gamma.stored.astype(np.int64), gamma.formats.stored_frac, beta.stored.astype(np.int64), beta.formats.stored_frac
    )


def normalised(layer: BatchNorm, x: Codes, x_frac: int, state: State, training: bool) -> Normalised:
    """The statistics of x [batch, channels, ...]: its own, or the running ones in evaluation."""
    wide = np.asarray(x, np.int64)
    count = element_count(layer, len(x), int(np.prod(x.shape[2:])))
    if training:
        seen = moments(channel_sums(wide), channel_sums(wide * wide), count)
    else:
        seen = running_moments(state.running[layer.name], x_frac)
    return Normalised(x_frac, count, seen, inverse_root(seen.variance, epsilon_code(layer, x_frac)))


def normalise(layer: BatchNorm, x: Codes, found: Normalised, state: State) -> tuple[Int64s, int]:
    """FF: 32-bit accumulators and their fractional bits."""
    coefficients = coefficients_of(layer, state)
    frac = ACCUMULATOR_FRAC - forward_exponent(layer, coefficients, found.elements, state)
    return apply_forward(forward_map(coefficients, found.seen, found.inverse, frac), np.asarray(x, np.int64)), frac


def forward_exponent(layer: BatchNorm, coefficients: Coefficients, count: int, state: State) -> int:
    """The exponent in force, or before the first measurement a bound."""
    if layer.name in state.activation_scales:
        return state.activation_scales[layer.name].exponent
    magnitudes = state.parameters[layer.gamma].magnitude, state.parameters[layer.beta].magnitude
    return first_forward_exponent(coefficients, magnitudes, count)


def error_exponent(
    coefficients: Coefficients, found: Normalised, error: str, error_frac: int, state: State
) -> int:
    """The exponent in force of the error of that name, or before the first measurement an estimate."""
    if error in state.error_scales:
        return state.error_scales[error].exponent
    return first_error_exponent(coefficients, found.inverse, found.x_frac, error_frac)


def error_sums(error: Codes, x: Codes) -> ErrorSums:
    """The sums over each channel that NG and the gradients need."""
    wide = np.asarray(error, np.int64)
    return ErrorSums(channel_sums(wide), channel_sums(wide * x))


def denormalise(
    layer: BatchNorm, x: Codes, dy: Codes, dy_frac: int, found: Normalised, error: str, state: State
) -> tuple[Int64s, int]:
    """NG: 32-bit accumulators of the error of x, and their fractional bits."""
    coefficients, sums = coefficients_of(layer, state), error_sums(dy, x)
    frac = ACCUMULATOR_FRAC - error_exponent(coefficients, found, error, dy_frac, state)
    left = frac + found.x_frac - dy_frac
    mapped = backward_map(coefficients, found.seen, found.inverse, sums, found.elements, left)
    return apply_backward(mapped, np.asarray(dy, np.int64), np.asarray(x, np.int64)), frac


def gradients(layer: BatchNorm, x: Codes, dy: Codes, found: Normalised) -> dict[str, Int64s]:
    """WG: the gradients of gamma and beta, 32-bit accumulators."""
    sums = error_sums(dy, x)
    return {layer.gamma: gamma_gradient(found.seen, found.inverse, sums), layer.beta: sums.error}


def average(layer: BatchNorm, found: Normalised, state: State) -> None:
    """Move the running statistics on."""
    state.running[layer.name] = averaged(layer, state.running[layer.name], found.seen, found.elements, found.x_frac)
