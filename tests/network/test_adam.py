"""The update by Adam against an oracle in exact fractions, and against Adam in real numbers."""

from fractions import Fraction
from math import floor, isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixgrad.errors import UsageError
from fixgrad.network import Optimiser, Recipe
from fixgrad.network.adam import AdamConstants, adam_constants, adam_shifts, adam_update
from fixgrad.network.moments import are_words
from fixgrad.network.recipe import Coefficient
from fixgrad.network.update import ParameterFormats
from fixgrad.numbers import Rounding, hash32, stream_key

FORMATS = ParameterFormats(24, 24, 24)
HALF = Fraction(1, 2)


def power(exponent):
    return Fraction(2) ** exponent


def top(value):
    value = abs(Fraction(value))
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return next(exponent for exponent in (guess, guess + 1) if value < power(exponent))


def nearest(value, unit):
    return floor(value / unit + HALF) * unit


def narrowed(value, bits):
    return nearest(value, power(top(value) - bits)) if value else value


def framed(terms, bits):
    """The sum of terms, each rounded to `bits` bits under the top of the largest."""
    terms = [term for term in terms if term]
    unit = power(max(map(top, terms)) - bits) if terms else 1
    return sum((nearest(term, unit) for term in terms), Fraction(0))


def clamp(value, limit):
    return max(-limit, min(limit, value))


def held(value):
    """A moment as its word holds it: from 2**-192 to below 2**64, else 0 or the largest."""
    if value and top(value) > 64:
        return (1 if value > 0 else -1) * (2**23 - 1) * power(64 - 23)
    return value if value and top(value) > -192 else Fraction(0)


def value_of(word):
    return (word >> 8) * power((word & 255) - 214)


def aligned(value, left, bits):
    limit = 2 ** (bits - 1) - 1
    return clamp(value, limit >> left) * 2**left if left >= 0 else clamp(floor(value * power(left) + HALF), limit)


def root_of(value):
    """The floor of the root with 17 bits."""
    if not value:
        return value
    unit = power((top(value) - 33) // 2)
    return isqrt(int(value / unit**2)) * unit


def oracle(w, first, second, g, stored_frac, bits, gradient_frac, c, random):
    """One weight: its code, and both moments as fractions."""
    scaled_frac = gradient_frac + c.inverse_batch.shift
    left = max(min(scaled_frac - stored_frac - c.coupled.shift, 24), -62)
    total = g * c.inverse_batch.mantissa + aligned(w * c.coupled.mantissa, left, 40)
    g = narrowed(total * power(-scaled_frac), 16)
    b1, b2 = Fraction(c.first, 2**8), Fraction(c.second, 2**16)
    first = held(narrowed(framed([b1 * value_of(first), (1 - b1) * g], 46), 23))
    second = held(narrowed(framed([b2 * value_of(second), (1 - b2) * g * g], 46), 23))
    d = framed([root_of(second), c.epsilon.mantissa * power(-c.epsilon.shift)], 17)
    step = Fraction(0)
    if d:
        # The denominator's unit follows from the larger of its terms: its code has 17 or 18 bits.
        unit = power(max(top(term) for term in (root_of(second), c.epsilon.mantissa * power(-c.epsilon.shift)) if term) - 17)
        step = first * floor(power(34) / (d / unit) + HALF) * power(-34) / unit * c.rate.mantissa * power(-c.rate.shift)
    step = clamp(floor(step * power(stored_frac + 16) + HALF), 2**47 - 1)
    step += aligned(w * c.decay.mantissa, max(min(16 - c.decay.shift, 24), -62), 48)
    up = HALF if random is None else Fraction(random >> 16, 2**16)
    return clamp(w - floor(Fraction(step, 2**16) + up), 2 ** (bits - 1) - 1), first, second


def codes(bits):
    limit = 2 ** (bits - 1) - 1
    return st.one_of(st.integers(-limit, limit), st.sampled_from([-limit, -1, 0, 1, limit]))


def words(signed):
    fields, mantissas = st.one_of(st.integers(0, 255), st.integers(180, 235)), st.integers(2**22, 2**23 - 1)
    sign = st.sampled_from([-1, 1] if signed else [1])
    return st.one_of(st.just(0), st.builds(lambda field, mantissa, s: (s * mantissa << 8) + field, fields, mantissas, sign))


COEFFICIENTS = st.one_of(st.just(Coefficient(0, 0)), st.builds(Coefficient, st.integers(128, 255), st.integers(-10, 70)))


@settings(max_examples=400)
@given(st.data())
def test_every_update_equals_the_oracle(data):
    bits, stored_frac = data.draw(st.sampled_from([16, 24, 32])), data.draw(st.integers(5, 40))
    constants = AdamConstants(
        data.draw(st.integers(0, 255)),
        data.draw(st.integers(0, 65535)),
        data.draw(st.builds(Coefficient, st.integers(128, 255), st.integers(7, 20))),
        *(data.draw(COEFFICIENTS) for _ in range(4)),
    )
    gradient_frac = data.draw(st.integers(-10, 60))
    formats = ParameterFormats(bits, stored_frac, 24)
    shifts = adam_shifts(formats, gradient_frac, constants)
    w, first, second = data.draw(codes(bits)), data.draw(words(True)), data.draw(words(False))
    g = data.draw(st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-999, 999)))
    random = data.draw(st.one_of(st.none(), st.integers(0, 2**32 - 1)))
    rounding, drawn = (Rounding.NEAREST, None) if random is None else (Rounding.STOCHASTIC, np.array([random], np.uint32))
    got = adam_update(*(np.array([each]) for each in (w, first, second, g)), formats, shifts, constants, rounding, drawn)
    assert are_words(got.first)
    assert are_words(got.second)
    found = got.stored.item(), value_of(got.first.item()), value_of(got.second.item())
    assert found == oracle(w, first, second, g, stored_frac, bits, gradient_frac, constants, random)


def constants_of(step=0, moment_steps=None, batch=32, **recipe):
    recipe = {"optimiser": "adam", "learning_rate": 1e-3, "weight_decay": 0.0, "schedule": "constant"} | recipe
    return adam_constants(Recipe(**recipe), step, 10**7, batch, step if moment_steps is None else moment_steps)


def run(gradients, recipe=None, stored=None, formats=FORMATS, gradient_frac=17):
    """The parameter after each of some updates by gradients [steps, elements]."""
    count = gradients.shape[1]
    w = np.zeros(count, np.int64) if stored is None else stored
    first = second = np.zeros(count, np.int32)
    for step, gradient in enumerate(gradients):
        constants = constants_of(step, **(recipe or {}))
        shifts = adam_shifts(formats, gradient_frac, constants)
        w, first, second = adam_update(w, first, second, gradient, formats, shifts, constants, Rounding.NEAREST)
        yield constants, w, first, second


def test_the_update_follows_real_adam():
    """Each step is within 2**-13 of the rate, times mean |g| over the denominator, and half a stored code: see docs/arithmetic.md.

    The gradients of an element and of different elements differ by many powers of two, and shrink as the run goes on.
    """
    rng = np.random.default_rng(4)
    sizes = 2.0 ** rng.uniform(0, 28, 1000) * 2.0 ** (-np.arange(300) / 30)[:, None]
    gradients = np.clip(np.rint(rng.normal(size=sizes.shape) * sizes), -(2**31), 2**31 - 1).astype(np.int64)
    m, v, mean_magnitude, before = np.zeros(1000), np.zeros(1000), np.zeros(1000), np.zeros(1000, np.int64)
    for (constants, w, *_), gradient in zip(run(gradients, {"batch": 37}), gradients, strict=True):
        b1, b2, g = constants.first / 256, constants.second / 65536, gradient * constants.inverse_batch.value * 2.0**-17
        m, v, mean_magnitude = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g, b1 * mean_magnitude + (1 - b1) * abs(g)
        denominator = np.sqrt(v) + constants.epsilon.value
        step = constants.rate.value * m / denominator
        bound = 2.0**-13 * constants.rate.value * mean_magnitude / denominator + (0.5 + 2.0**-10) * 2.0**-24
        assert (abs((before - w) * 2.0**-24 - step) <= bound).all()
        before = w


@pytest.mark.parametrize("size", [1, 77, 2**31 - 1])
@pytest.mark.parametrize("gradient_frac", [-5, 17, 45])
def test_the_first_step_is_the_rate_whatever_the_gradient(size, gradient_frac):
    gradients = np.array([[size, -size]])
    ((constants, w, *_),) = run(gradients, {"epsilon": 0.0}, gradient_frac=gradient_frac)
    assert constants.rate.value == pytest.approx(1e-3 * (1 - 65470 / 65536) ** 0.5 / (1 - 230 / 256), rel=2**-8)
    codes = 1e-3 * 2**24
    assert w[0] == -w[1]
    assert -codes * (1 + 2**-7) <= w[0] <= -codes * (1 - 2**-7)


def test_gradients_of_zero_move_nothing_that_never_moved():
    for _, w, first, second in run(np.zeros((3, 2), np.int64), stored=np.array([5, -(2**20)])):
        assert (w.tolist(), first.tolist(), second.tolist()) == ([5, -(2**20)], [0, 0], [0, 0])


def test_gradients_of_zero_let_the_moments_fade_away():
    """The first moment goes on moving the weight for a while, until its word ends at 0; the second goes by 0.001 a step."""
    gradients = np.zeros((1400, 1), np.int64)
    gradients[0] = 1 << 20
    found = [(w.item(), first.item(), second.item()) for _, w, first, second in run(gradients, {"epsilon": 0.0})]
    assert found[-1][1] == 0
    assert found[1][0] < found[0][0] < 0
    assert found[-1][0] == found[-200][0]
    second = value_of(found[0][2])
    assert abs(float(value_of(found[-1][2]) / second) / (65470 / 65536) ** 1399 - 1) < 1e-4


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
@given(random=st.integers(0, 2**32 - 1))
def test_a_dead_weight_stays_dead_whatever_the_random_bits(optimiser, random):
    constants = constants_of(7, optimiser=optimiser, weight_decay=0.1)
    zero, shifts = np.zeros(1, np.int64), adam_shifts(FORMATS, 30, constants)
    bits = np.array([random], np.uint32)
    got = adam_update(zero, zero, zero, zero, FORMATS, shifts, constants, Rounding.STOCHASTIC, bits)
    assert (got.stored.item(), got.first.item(), got.second.item()) == (0, 0, 0)


def test_weights_saturate():
    limit = 2**23 - 1
    for _, w, _, _ in run(np.array([[-9, 9]]), {"learning_rate": 100.0}, stored=np.array([limit - 3, 3 - limit])):
        assert w.tolist() == [limit, -limit]


def test_decoupled_decay_is_beside_the_step():
    constants = constants_of(optimiser="adamw", weight_decay=0.5, learning_rate=0.25)
    assert (constants.coupled.mantissa, constants.decay.value) == (0, 0.125)
    zero, shifts = np.zeros(2, np.int64), adam_shifts(FORMATS, 17, constants)
    got = adam_update(np.array([800, -805]), zero, zero, zero, FORMATS, shifts, constants, Rounding.NEAREST)
    assert got.stored.tolist() == [700, -704]  # 805 / 8 = 100.625
    assert got.first.tolist() == [0, 0]


def test_coupled_decay_is_a_gradient():
    """A weight alone, without a gradient, moves by the whole rate: Adam normalises its decay too."""
    constants = constants_of(weight_decay=0.001)
    zero, shifts = np.zeros(1, np.int64), adam_shifts(FORMATS, 17, constants)
    got = adam_update(np.array([1 << 20]), zero, zero, zero, FORMATS, shifts, constants, Rounding.NEAREST)
    assert (1 << 20) - got.stored.item() == pytest.approx(1e-3 * 2**24, rel=2**-7)


def test_stochastic_rounding_keeps_steps_below_a_code():
    """16-bit weights and a rate of a hundredth of a code: to nearest nothing moves, at random a hundredth of the weights does."""
    formats, count = ParameterFormats(16, 14, 24), 20_000
    constants = constants_of(learning_rate=0.01 * 2**-14)
    zero, shifts = np.zeros(count, np.int64), adam_shifts(formats, 17, constants)
    random = hash32(np.arange(count), stream_key(1, 2, "update/w"))
    arguments = zero, zero, zero, np.full(count, -500), formats, shifts, constants
    assert not adam_update(*arguments, Rounding.NEAREST).stored.any()
    moved = adam_update(*arguments, Rounding.STOCHASTIC, random).stored
    assert set(moved.tolist()) == {0, 1}
    assert 0.008 < moved.mean() < 0.012


@given(st.integers(0, 10**7), st.integers(1, 4096))
def test_constants_have_the_bias_corrected(moment_steps, batch):
    constants = constants_of(0, moment_steps, batch, momentum=0.8984375)
    seen = -np.expm1((moment_steps + 1) * np.log1p(-66 / 65536))
    rate = 1e-3 * np.sqrt(seen) / (1 - 0.8984375 ** (moment_steps + 1))
    assert constants.rate.value == pytest.approx(rate, rel=2**-8)
    assert constants.epsilon.value == pytest.approx(1e-8 * np.sqrt(seen), rel=2**-8)
    assert constants.inverse_batch.value == pytest.approx(1 / batch, rel=2**-8)
    assert (constants.first, constants.second) == (230, 65470)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta2": 1.0}, r"beta2 is 1\.0: choose a number from 0 to below 1"),
        ({"epsilon": -1e-8}, "epsilon is -1e-08"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
    ],
)
def test_impossible_recipes_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Recipe(**changes)


def test_recipes_survive_a_dictionary_and_sgd_says_nothing_of_adam():
    adam = Recipe(optimiser=Optimiser.ADAMW, beta2=0.99, epsilon=1e-6)
    assert Recipe.from_dict(adam.to_dict()) == adam
    assert not {"optimiser", "beta2", "epsilon"} & Recipe().to_dict().keys()
    assert Recipe.from_dict(Recipe().to_dict()) == Recipe()
