"""The integer loss against real numbers, at its corners, and as a sum that has no order."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fixgrad.network.cross_entropy import LOSS_FRAC, loss_sum, mean_of_loss_sum

LOGITS = hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.integers(-32767, 32767))


def real_loss(row, frac, label):
    values = [math.ldexp(value - max(row), -frac) for value in row]
    return math.log(sum(math.exp(value) for value in values)) - values[label]


@given(LOGITS, st.integers(-4, 40))
def test_it_is_the_cross_entropy(logits, frac):
    labels = np.arange(len(logits)) % logits.shape[1]
    expected = sum(real_loss(row, frac, label) for row, label in zip(logits.tolist(), labels.tolist(), strict=True))
    assert math.ldexp(loss_sum(logits, frac, labels), -LOSS_FRAC) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(LOGITS, st.integers(-60, 80))
def test_it_is_the_sum_over_the_images_at_any_scale(logits, frac):
    labels = np.zeros(len(logits), np.int64)
    parts = [loss_sum(logits[image : image + 1], frac, labels[:1]) for image in range(len(logits))]
    assert loss_sum(logits, frac, labels) == sum(parts)
    assert all(part >= 0 for part in parts)


def test_a_hopeless_image_counts_as_2_to_the_20_nats():
    assert loss_sum(np.array([[32767, -32767]]), -30, np.array([1])) == 1 << (20 + LOSS_FRAC)


def test_many_equal_classes():
    assert loss_sum(np.zeros((1, 1000), np.int64), 3, np.array([7])) == round(math.log(1000) * (1 << LOSS_FRAC))


def test_a_right_and_certain_answer_costs_nothing():
    assert loss_sum(np.array([[32767, -32767]]), 8, np.array([0])) == 0


def test_no_images_cost_nothing():
    assert loss_sum(np.zeros((0, 3), np.int64), 8, np.zeros(0, np.int64)) == 0


def test_the_mean_is_in_nats():
    assert mean_of_loss_sum(3 << LOSS_FRAC, 2) == 1.5
