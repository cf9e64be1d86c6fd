"""Batch normalisation in integers: against exact fractions at the bounds, and against float on data."""

from fractions import Fraction

import numpy as np
import pytest

from fixgrad.errors import UsageError
from fixgrad.network import BatchNorm
from fixgrad.network.normalisation import (
    ACCUMULATOR_FRAC,
    GAMMA_GRADIENT_FRAC,
    LARGEST_COUNT,
    RUNNING_MEAN_FRAC,
    RUNNING_VARIANCE_FRAC,
    Coefficients,
    ErrorSums,
    Moments,
    Running,
    apply_backward,
    apply_forward,
    averaged,
    backward_map,
    channel_sums,
    element_count,
    epsilon_code,
    forward_map,
    gamma_gradient,
    inverse_root,
    moments,
    running_moments,
)

LARGEST = (1 << 15) - 1
LAYER = BatchNorm(name="bn", inputs=("x",), channels=1)
#: Value -> how many elements have it: the widest sums, no spread at all, and a single element that differs.
POPULATIONS = [
    {LARGEST: LARGEST_COUNT},
    {-LARGEST: LARGEST_COUNT},
    {LARGEST: LARGEST_COUNT // 2, -LARGEST: LARGEST_COUNT // 2},
    {LARGEST: LARGEST_COUNT - 1, -LARGEST: 1},
    {LARGEST: LARGEST_COUNT // 2 + 1, LARGEST - 1: LARGEST_COUNT // 2 - 1},
    {0: LARGEST_COUNT - 1, 1: 1},
    {0: 1},
    {LARGEST: 1},
    {-3: 5, 4: 2},
]


def sums(population):
    total = sum(value * many for value, many in population.items())
    squares = sum(value * value * many for value, many in population.items())
    return np.array([total]), np.array([squares]), sum(population.values())


@pytest.mark.parametrize("population", POPULATIONS)
def test_moments_are_those_of_fractions(population):
    total, squares, count = sums(population)
    mean = Fraction(int(total[0]), count)
    variance = Fraction(int(squares[0]), count) - mean * mean
    seen = moments(total, squares, count)
    assert abs(Fraction(int(seen.mean[0]), 256) - mean) <= Fraction(1, 512)
    assert -Fraction(1, 128) <= Fraction(int(seen.variance[0]), 256) - variance <= Fraction(1, 128)
    assert seen.variance[0] >= 0


def test_the_largest_sums_do_not_wrap():
    for population in POPULATIONS:
        total, squares, count = sums(population)
        seen = moments(total, squares, count)
        for epsilon in (1, 1 << 40):
            inverse = inverse_root(seen.variance, epsilon)
            assert (inverse.root > 1 << 16).all()
            assert (inverse.root <= 1 << 17).all()
            coefficients = Coefficients(np.array([(1 << 31) - 1]), 0, np.array([-(1 << 31)]), 0)
            for frac in (-40, 0, 60):
                mapped = forward_map(coefficients, seen, inverse, frac)
                for code in (-LARGEST, LARGEST):
                    product = int(mapped.factor[0]) * code + int(mapped.offset[0])
                    assert abs(product) < 1 << 62
            for error in (-127, 127):
                e = ErrorSums(np.array([error * count]), error * total)
                mapped = backward_map(coefficients, seen, inverse, e, count, 40)
                worst = 127 * abs(int(mapped.by_error[0])) + LARGEST * abs(int(mapped.by_code[0])) + abs(int(mapped.offset[0]))
                assert worst < 1 << 62
                assert abs(int(gamma_gradient(seen, inverse, e)[0])) < 1 << 31


@pytest.mark.parametrize("bits", [range(1, 41)])
def test_the_inverse_root_keeps_sixteen_bits(bits):
    values = np.array([(1 << shift) + step for shift in bits for step in (0, (1 << shift) // 3)])
    inverse = inverse_root(values - 1, 1)
    found = inverse.root * np.exp2(inverse.half - 40.0)
    assert np.abs(found * np.sqrt(values / 256) - 1).max() < 2.0**-17


def test_eps_in_units_of_a_code():
    layer = BatchNorm(name="bn", inputs=("x",), channels=1, eps=1e-5)
    assert epsilon_code(layer, 10) == round(1e-5 * 2**28)
    assert epsilon_code(layer, -30) == 1
    assert epsilon_code(layer, 99) == 1 << 40


def test_too_many_elements_are_refused():
    assert element_count(LAYER, 1 << 10, 1 << 14) == LARGEST_COUNT
    with pytest.raises(UsageError, match="bn sums 16777217 elements of a channel: at most 16777216"):
        element_count(LAYER, LARGEST_COUNT + 1, 1)


def reference(x, e, gamma, beta, eps):
    """Float batch normalisation of [batch, channels] and its gradients."""
    mean, deviation = x.mean(axis=0), np.sqrt(x.var(axis=0) + eps)
    normal = (x - mean) / deviation
    dx = gamma / deviation * (e - e.mean(axis=0) - normal * (e * normal).mean(axis=0))
    return gamma * normal + beta, dx, (e * normal).sum(axis=0)


@pytest.mark.parametrize("spread", [3, 200, 8000])
@pytest.mark.parametrize("count", [2, 50, 4096])
def test_both_passes_are_close_to_float(spread, count):
    rng = np.random.default_rng(spread + count)
    x = np.clip(rng.normal(rng.integers(-9, 9), spread, (count, 3)), -LARGEST, LARGEST).astype(np.int64)
    e = rng.integers(-127, 128, (count, 3))
    x_frac, e_frac, frac = 9, 12, 20
    gamma, beta = np.array([1.5, -0.25, 0.01]), np.array([0.5, -3, 0])
    coefficients = Coefficients((gamma * 2**20).astype(np.int64), 20, (beta * 2**18).astype(np.int64), 18)
    seen = moments(channel_sums(x), channel_sums(x * x), count)
    inverse = inverse_root(seen.variance, epsilon_code(LAYER, x_frac))
    y, dx, dgamma = reference(np.ldexp(x, -x_frac), np.ldexp(e, -e_frac), gamma, beta, LAYER.eps)
    found = np.ldexp(apply_forward(forward_map(coefficients, seen, inverse, frac), x), -frac)
    assert np.abs(found - y).max() < 2e-3 * np.abs(y).max()
    totals = ErrorSums(channel_sums(e), channel_sums(e * x))
    # Of two elements nothing but eps is left of an error: the scale follows from what cancels.
    plain = np.abs(np.ldexp(e, -e_frac) * gamma / np.ldexp(x, -x_frac).std(axis=0)).max()
    frac = ACCUMULATOR_FRAC - int(np.ceil(np.log2(max(np.abs(dx).max(), plain / 16))))
    mapped = backward_map(coefficients, seen, inverse, totals, count, frac + x_frac - e_frac)
    back = np.ldexp(apply_backward(mapped, e, x), -frac)
    assert np.abs(back - dx).max() < 2e-3 * np.abs(dx).max() + 1e-3 * plain
    gradient = np.ldexp(gamma_gradient(seen, inverse, totals), -e_frac - GAMMA_GRADIENT_FRAC)
    assert np.abs(gradient - dgamma).max() < 2e-3 * np.abs(dgamma).max() + 2.0 ** (-e_frac)


def test_running_statistics_follow_at_any_scale():
    layer = BatchNorm(name="bn", inputs=("x",), channels=2, momentum=0.25)
    running = Running(np.zeros(2, np.int64), np.full(2, 1 << RUNNING_VARIANCE_FRAC))
    for x_frac in (4, 9, 12):
        seen = Moments(np.array([3, -5]) << (8 + x_frac), np.array([2, 1]) << (8 + 2 * x_frac))
        expected = [0.75 * value for value in (*np.ldexp(running.mean, -24), *np.ldexp(running.variance, -28))]
        running = averaged(layer, running, seen, 101, x_frac)
        targets = (3, -5, 2 * 1.01, 1.01)
        found = (*np.ldexp(running.mean, -RUNNING_MEAN_FRAC), *np.ldexp(running.variance, -RUNNING_VARIANCE_FRAC))
        assert np.allclose(found, [old + 0.25 * target for old, target in zip(expected, targets, strict=True)], atol=1e-6)
    again = running_moments(running, 9)
    assert np.allclose(np.ldexp(again.mean, -8 - 9), np.ldexp(running.mean, -24), atol=2.0**-17)
    assert np.allclose(np.ldexp(again.variance, -8 - 18), np.ldexp(running.variance, -28), atol=2.0**-26)
