"""Batch normalisation in integers, for each channel: moments, running statistics, and the maps of both passes.

With n elements of a channel, codes x of up to 16 bits and int64 sums, everything is exact integer arithmetic with stated
rounding. n is at most 2**24; |x| <= 2**15 - 1, error codes |e| <= 127. Mean and variance are in units of a code of x (and
its square) with 8 fractional bits. The comments give the bits of each magnitude: nothing reaches 2**63.
"""

import math
from typing import NamedTuple

import numpy as np

from fixgrad.errors import UsageError
from fixgrad.network.batch_norm import AVERAGE_FRAC, BatchNorm
from fixgrad.numbers.elementwise import Int64s, align_each, bit_lengths, divide_nearest, narrow_each, square_roots

#: Elements of a channel in a global batch, at most.
LARGEST_COUNT = 1 << 24
#: Fractional bits of mean and variance in units of a code.
MOMENT_FRAC = 8
#: Fractional bits of the running mean and of the running variance, in units of the value; both are held in 50 bits.
RUNNING_MEAN_FRAC, RUNNING_VARIANCE_FRAC, RUNNING_BITS = 24, 28, 50
#: Fractional bits of the gradient of gamma beyond those of the error.
GAMMA_GRADIENT_FRAC = 4
#: The products of a map have this many fractional bits more than its accumulators.
PRODUCT_FRAC = 8
#: Fractional bits of a map's accumulators, for values below 1: 7 bits above the largest value of the last steps, 17 below a code.
ACCUMULATOR_FRAC = 24
#: 1 / sqrt(variance) = root * 2**(half - ROOT_FRAC), with a root of 17 bits.
ROOT_FRAC = 40
_MEAN_BITS, _VARIANCE_BITS, _OFFSET_BITS, _FACTOR_BITS = 25, 41, 47, 32
#: The factor of x in NG exceeds that of the error by up to 2**7 where the deviation is a single code.
_CODE_FACTOR_BITS = 38


#: The exponent of an output of which the first measurement saw zeros alone: normalised values are of the order of 1.
OUTPUT_EXPONENT = 0


class Moments(NamedTuple):
    """Mean (25 bits) and variance (41 bits) of each channel, int64 with 8 fractional bits in units of a code."""

    mean: Int64s
    variance: Int64s


class Running(NamedTuple):
    """The running mean and variance of each channel, int64 with 24 and 28 fractional bits in units of the value."""

    mean: Int64s
    variance: Int64s


class InverseRoot(NamedTuple):
    """1 / sqrt(variance + eps) of each channel in units of 1 / code: root * 2**(half - 40), where 2**16 < root <= 2**17."""

    root: Int64s
    half: Int64s
    variance: Int64s


class ForwardMap(NamedTuple):
    """y = factor * x + offset for each channel, with `PRODUCT_FRAC` bits more than the accumulators."""

    factor: Int64s
    offset: Int64s


class BackwardMap(NamedTuple):
    """dx = by_error * e + by_code * x + offset for each channel, with `PRODUCT_FRAC` bits more than the accumulators."""

    by_error: Int64s
    by_code: Int64s
    offset: Int64s


class Coefficients(NamedTuple):
    """Stored codes of gamma and beta, and their fractional bits."""

    gamma: Int64s
    gamma_frac: int
    beta: Int64s
    beta_frac: int


def element_count(layer: BatchNorm, batch: int, pixels: int) -> int:
    """Elements of a channel in a global batch.

    Raises:
        UsageError: more than LARGEST_COUNT.
    """
    if batch * pixels > LARGEST_COUNT:
        raise UsageError(f"{layer.name} sums {batch * pixels} elements of a channel: at most {LARGEST_COUNT}; use a smaller batch")
    return batch * pixels


def moments(total: Int64s, squares: Int64s, count: int) -> Moments:
    """Mean and (biased) variance from the sums of x and of x**2 over `count` elements."""
    mean = divide_nearest(total << MOMENT_FRAC, count)  # 39 + 8 bits
    middle = divide_nearest(total, count)
    rest = total - count * middle  # at most count / 2
    centred = squares - 2 * middle * total + count * middle * middle  # below 2**54: the sum of (x - middle)**2
    spread = (centred << MOMENT_FRAC) - (rest * rest << MOMENT_FRAC) // count  # below 2**62 + 2**53
    return Moments(mean, np.maximum(spread, 0) // count)


def epsilon_code(layer: BatchNorm, x_frac: int) -> int:
    """eps in units of a squared code with 8 fractional bits, 1 to 2**40."""
    exponent = min(2 * x_frac + MOMENT_FRAC, 200)
    return min(max(math.floor(min(math.ldexp(layer.eps, exponent), 2.0**41) + 0.5), 1), 1 << 40)


def inverse_root(variance: Int64s, epsilon: int) -> InverseRoot:
    """The inverse square root: integer root of a number of 47 or 48 bits, then a rounded division."""
    total = variance + epsilon  # 1 to 2**41 + 2**40
    shift = 48 - bit_lengths(total)
    shift -= shift & 1
    root = square_roots(total << shift)  # 24 bits
    return InverseRoot(divide_nearest(np.full_like(root, 1 << 40), root), (shift >> 1) + MOMENT_FRAC // 2, total)


def forward_map(coefficients: Coefficients, seen: Moments, inverse: InverseRoot, frac: int) -> ForwardMap:
    """The map of FF to accumulators with `frac` fractional bits: gamma / sqrt(variance + eps) * (x - mean) + beta."""
    product = coefficients.gamma * inverse.root  # 31 + 17 bits
    factor = align_each(product, frac + PRODUCT_FRAC - coefficients.gamma_frac + inverse.half - ROOT_FRAC, _FACTOR_BITS)
    beta = align_each(coefficients.beta, frac + PRODUCT_FRAC - coefficients.beta_frac, _OFFSET_BITS)
    return ForwardMap(factor, beta - align_each(factor * seen.mean, -MOMENT_FRAC, 63))  # 31 + 24 bits


class ErrorSums(NamedTuple):
    """The sums of e, and of e * x, over the elements of each channel."""

    error: Int64s
    product: Int64s


def centred_product(sums: ErrorSums, seen: Moments) -> Int64s:
    """The sum of e * (x - mean), with 8 fractional bits: 55 bits."""
    return (sums.product << MOMENT_FRAC) - seen.mean * sums.error


def backward_map(
    coefficients: Coefficients, seen: Moments, inverse: InverseRoot, sums: ErrorSums, count: int, left: int
) -> BackwardMap:
    """The map of NG: with a = gamma / sqrt(variance + eps) and e^ the normalised codes,

        dx = a * (e - sum(e) / n - (x - mean) / (variance + eps) * sum(e * (x - mean)) / n)

    Args:
        left: fractional bits of the accumulators, plus those of x, less those of the error.
    """
    product = coefficients.gamma * inverse.root
    shift = left + PRODUCT_FRAC - coefficients.gamma_frac + inverse.half - ROOT_FRAC
    by_error = align_each(product, shift, _FACTOR_BITS)
    centred, lowered = narrow_each(centred_product(sums, seen), 53)
    mean_product = divide_nearest(centred << 8, count)  # 61 bits / n; 16 fractional bits, and Cauchy holds it in 38 bits
    raised = 60 - bit_lengths(mean_product)
    ratio, dropped = narrow_each((mean_product << raised) // inverse.variance, 30)
    # by_error * ratio: 31 + 30 bits. `ratio` has 16 + raised - dropped - lowered fractional bits, the variance 8.
    by_code = -align_each(by_error * ratio, lowered + dropped - raised - (16 - MOMENT_FRAC), _CODE_FACTOR_BITS)
    # by_code * mean: 37 + 24 bits.
    offset = -divide_nearest(by_error * sums.error, count) - align_each(by_code * seen.mean, -MOMENT_FRAC, 63)
    return BackwardMap(by_error, by_code, offset)


def gamma_gradient(seen: Moments, inverse: InverseRoot, sums: ErrorSums) -> Int64s:
    """The sum of e times the normalised x, with GAMMA_GRADIENT_FRAC bits more than the error, held in 32 bits."""
    centred, lowered = narrow_each(centred_product(sums, seen), 44)
    left = inverse.half - ROOT_FRAC - MOMENT_FRAC + GAMMA_GRADIENT_FRAC + lowered
    return align_each(centred * inverse.root, left, 32)  # 44 + 17 bits


def averaged(layer: BatchNorm, running: Running, seen: Moments, count: int, x_frac: int) -> Running:
    """The running statistics after a batch: each moves by `momentum` of the distance, rounded to nearest.

    The variance that counts is the unbiased one, as in PyTorch.
    """
    return moved(running, seen, count, layer.average_factor, running_shifts(x_frac))


class RunningShifts(NamedTuple):
    """Left shifts from mean and variance to the running ones."""

    mean: int
    variance: int

    def back(self) -> "RunningShifts":
        """The shifts of the other direction."""
        return RunningShifts(-self.mean, -self.variance)


def running_shifts(x_frac: int) -> RunningShifts:
    """The shifts for codes with `x_frac` fractional bits."""
    return RunningShifts(RUNNING_MEAN_FRAC - MOMENT_FRAC - x_frac, RUNNING_VARIANCE_FRAC - MOMENT_FRAC - 2 * x_frac)


def moved(running: Running, seen: Moments, count: int, average_factor: int, left: RunningShifts) -> Running:
    """See `averaged`; `average_factor` is the momentum with AVERAGE_FRAC fractional bits."""
    unbiased = seen.variance * count // max(count - 1, 1)  # 38 + 24 bits
    mean, variance = align_each(seen.mean, left.mean, RUNNING_BITS), align_each(unbiased, left.variance, RUNNING_BITS)
    return Running(_towards(running.mean, mean, average_factor), _towards(running.variance, variance, average_factor))


def _towards(running: Int64s, target: Int64s, average_factor: int) -> Int64s:
    return running + align_each((target - running) * average_factor, -AVERAGE_FRAC, 63)  # 50 + 12 bits


def running_moments(running: Running, x_frac: int) -> Moments:
    """What evaluation takes for the moments of a batch."""
    return moments_of(running, running_shifts(x_frac).back())


def moments_of(running: Running, left: RunningShifts) -> Moments:
    """Running statistics as moments of codes; `left` are the shifts to them."""
    return Moments(align_each(running.mean, left.mean, _MEAN_BITS), align_each(running.variance, left.variance, _VARIANCE_BITS))


def first_forward_exponent(coefficients: Coefficients, magnitudes: tuple[int, int], count: int) -> int:
    """A bound on the exponent of the result before anything was measured: |x - mean| <= sqrt(n - 1) * sqrt(variance).

    Args:
        magnitudes: bits of the largest stored gamma and beta.
    """
    by_gamma = magnitudes[0] - coefficients.gamma_frac + (count.bit_length() + 1) // 2
    return max(by_gamma, magnitudes[1] - coefficients.beta_frac) + 1


def same_error_exponent(error_frac: int) -> int:
    """The exponent of an error of which the first measurement saw zeros alone: that of the error from which it is made."""
    return 7 - error_frac


def first_error_exponent(coefficients: Coefficients, inverse: InverseRoot, x_frac: int, error_frac: int) -> int:
    """An estimate of the exponent of NG's result before anything was measured: that of the largest a * e."""
    bits = bit_lengths(coefficients.gamma * inverse.root) + inverse.half
    return int(bits.max()) - coefficients.gamma_frac - ROOT_FRAC + x_frac + 7 - error_frac + 1


def apply_forward(mapped: ForwardMap, x: Int64s) -> Int64s:
    """32-bit accumulators of the codes x [batch, channels, ...]."""
    return _cut(_each(mapped.factor, x) * x + _each(mapped.offset, x))


def apply_backward(mapped: BackwardMap, error: Int64s, x: Int64s) -> Int64s:
    """32-bit accumulators of the error of x, from the error codes of the result."""
    return _cut(_each(mapped.by_error, x) * error + _each(mapped.by_code, x) * x + _each(mapped.offset, x))


def channel_sums(values: Int64s) -> Int64s:
    """Sums over all but the channels of [batch, channels, ...]."""
    total: Int64s = values.sum(axis=(0, *range(2, values.ndim)))
    return total


def _cut(products: Int64s) -> Int64s:
    return align_each(products, -PRODUCT_FRAC, 32)


def _each(channels: Int64s, x: Int64s) -> Int64s:
    return channels.reshape(1, -1, *(1,) * (x.ndim - 2))
