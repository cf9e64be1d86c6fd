"""The update against an oracle in Python's unbounded integers."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixgrad.errors import UsageError
from fixgrad.network.recipe import Coefficient, Recipe, Schedule, UpdateConstants, quantise_coefficient, update_constants
from fixgrad.network.update import ParameterFormats, TermShifts, term_shifts, update
from fixgrad.numbers import Rounding


def clamp(value, limit):
    return max(-limit, min(limit, value))


def aligned(value, left):
    limit = 2**39 - 1
    if left >= 0:
        return clamp(value, limit >> left) * 2**left
    return clamp(floor(Fraction(value, 2**-left) + Fraction(1, 2)), limit)


def oracle(w, u, g, formats, shifts, constants, random):
    """One weight; `random` is None for nearest rounding."""
    total = u * constants.momentum + aligned(g * constants.rate.mantissa, shifts.gradient)
    total += aligned(w * constants.decay.mantissa, shifts.decay)
    half, below = (Fraction(1, 2), None) if random is None else (Fraction(random >> 24, 256), (random << 8) & 0xFFFFFFFF)
    u = clamp(floor(Fraction(total, 256) + half), 2 ** (formats.momentum_bits - 1) - 1)
    if shifts.step >= 0:
        step = u << shifts.step
    else:
        cut = -shifts.step
        half = Fraction(1, 2) if below is None else Fraction(below >> (32 - cut), 2**cut)
        step = floor(Fraction(u, 2**cut) + half)
    return clamp(w - step, 2 ** (formats.stored_bits - 1) - 1), u


def codes(bits):
    limit = 2 ** (bits - 1) - 1
    return st.one_of(st.integers(-limit, limit), st.sampled_from([-limit, -1, 0, 1, limit]))


@settings(max_examples=300)
@given(st.data())
def test_every_update_equals_the_oracle(data):
    stored_bits, momentum_bits = data.draw(st.sampled_from([16, 24, 32])), data.draw(st.integers(16, 32))
    formats = ParameterFormats(stored_bits, data.draw(st.integers(5, 40)), momentum_bits)
    constants = UpdateConstants(
        data.draw(st.integers(0, 255)),
        Coefficient(data.draw(st.integers(0, 255)), data.draw(st.integers(0, 40))),
        Coefficient(data.draw(st.integers(0, 255)), data.draw(st.integers(0, 40))),
    )
    shifts = term_shifts(formats, data.draw(st.integers(-10, 60)), constants)
    w, u = data.draw(codes(formats.stored_bits)), data.draw(codes(formats.momentum_bits))
    g = data.draw(st.integers(-(2**31), 2**31 - 1))
    random = data.draw(st.one_of(st.none(), st.integers(0, 2**32 - 1)))
    rounding = Rounding.NEAREST if random is None else Rounding.STOCHASTIC
    bits = None if random is None else np.array([random], np.uint32)
    got = update(np.array([w]), np.array([u]), np.array([g]), formats, shifts, constants, rounding, bits)
    assert (got.stored.item(), got.momentum.item()) == oracle(w, u, g, formats, shifts, constants, random)


@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 24, 32]))
def test_a_dead_weight_stays_dead_whatever_the_random_bits(random, bits):
    formats = ParameterFormats(bits, 20, 24)
    constants = UpdateConstants(230, Coefficient(200, 19), Coefficient(131, 23))
    shifts = term_shifts(formats, 30, constants)
    zero = np.zeros(1, np.int64)
    got = update(zero, zero, zero, formats, shifts, constants, Rounding.STOCHASTIC, np.array([random], np.uint32))
    assert (got.stored.item(), got.momentum.item()) == (0, 0)


def test_the_update_follows_real_momentum_sgd():
    """Stored and momentum codes stay within a few steps of the same recursion in real numbers."""
    formats = ParameterFormats(24, 22, 24)
    recipe = Recipe(learning_rate=0.02, momentum=0.8984375, weight_decay=5e-4)
    constants = update_constants(recipe, 0, 10**9, 128)
    gradient_frac = 15
    shifts = term_shifts(formats, gradient_frac, constants)
    rng = np.random.default_rng(1)
    w, u = np.array([1 << 20, -(1 << 19)]), np.zeros(2, np.int64)
    real_w, real_u = w * 2.0**-22, np.zeros(2)
    for _ in range(200):
        g = rng.integers(-(10**6), 10**6, 2)
        w, u = update(w, u, g, formats, shifts, constants, Rounding.NEAREST)
        real_u = 0.8984375 * real_u + constants.rate.value * g * 2.0**-gradient_frac + constants.decay.value * real_w
        real_w = real_w - real_u
    assert np.abs(w * 2.0**-22 - real_w).max() < 200 * 2.0**-22


@given(st.floats(1e-12, 1e6))
def test_coefficients_are_within_a_256th(value):
    coefficient = quantise_coefficient(value)
    assert 128 <= coefficient.mantissa <= 255
    assert abs(coefficient.value - value) <= value / 256


def test_a_coefficient_of_zero_is_zero():
    assert quantise_coefficient(0.0) == (0, 0)


def test_term_shifts_are_held_in_the_machines_range():
    constants = UpdateConstants(0, Coefficient(128, 0), Coefficient(128, 0))
    assert term_shifts(ParameterFormats(24, 22, 24), -100, constants).gradient == 24
    assert term_shifts(ParameterFormats(24, 22, 24), 300, constants).gradient == -62
    # 16 stored bits at frac 14 and 24 momentum bits: the momentum has 26 fractional bits, a term 34.
    assert term_shifts(ParameterFormats(16, 14, 24), 20, constants) == TermShifts(14, 20, -12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stored_bits": 20}, "stored_bits is 20: choose 16, 24 or 32"),
        ({"momentum_bits": 8}, "momentum_bits is 8"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
    ],
)
def test_impossible_recipes_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Recipe(**changes)


def test_schedules_warm_up_and_fall():
    linear = Recipe(learning_rate=1.0, warmup_steps=4, schedule=Schedule.LINEAR)
    assert [linear.rate_at(step, 8) for step in range(9)] == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    step = Recipe(learning_rate=1.0, schedule=Schedule.STEP)
    assert [step.rate_at(at, 100) for at in (0, 9, 10, 25, 99)] == [1.0, 1.0, 0.5, 0.25, 2.0**-9]


def test_recipes_survive_a_dictionary():
    recipe = Recipe(stored_bits=16, update_rounding=Rounding.STOCHASTIC, schedule=Schedule.STEP)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
