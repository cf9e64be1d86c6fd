"""The integer softmax against real numbers, and at its corners."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fixgrad.network.softmax import ERROR_FRAC, exponentials, loss_gradient, mean_loss

LOGITS = hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.integers(-32767, 32767))


def real_probabilities(logits, frac):
    rows = []
    for row in logits.tolist():
        powers = [math.exp((value - max(row)) * 2.0**-frac) for value in row]
        rows.append([power / sum(powers) for power in powers])
    return np.array(rows)


@settings(max_examples=200)
@given(LOGITS, st.integers(-4, 20))
def test_probabilities_are_within_a_thousandth(logits, frac):
    labels = np.zeros(len(logits), np.int64)
    error = loss_gradient(logits, frac, labels).astype(float)
    error[:, 0] += 1 << ERROR_FRAC
    # Half a step of 1/256 in the exponent is a factor of 2**(1/512); the clamp takes one more unit.
    allowed = real_probabilities(logits, frac) * (2 ** (1 / 256) - 1) * 2 + 2.0**-13
    assert (np.abs(error * 2.0**-ERROR_FRAC - real_probabilities(logits, frac)) <= allowed).all()


@given(LOGITS, st.integers(-40, 80))
def test_any_scale_gives_errors_of_sixteen_bits(logits, frac):
    error = loss_gradient(logits, frac, np.zeros(len(logits), np.int64))
    assert np.abs(error).max() <= 32767
    assert (error[:, 0] <= 0).all()
    assert (error[:, 1:] >= 0).all()


def test_equal_logits_share_the_probability():
    error = loss_gradient(np.full((1, 4), 77), 5, np.array([2]))
    assert error.tolist() == [[8192, 8192, -24576, 8192]]


def test_a_certain_and_right_answer_has_no_error():
    logits = np.array([[32767, -32767, -32767]])
    assert loss_gradient(logits, 8, np.array([0])).tolist() == [[0, 0, 0]]


def test_a_certain_and_wrong_answer_has_the_largest_error():
    logits = np.array([[32767, -32767, -32767]])
    assert loss_gradient(logits, 8, np.array([1])).tolist() == [[32767, -32767, 0]]


def test_one_class_is_always_right():
    assert loss_gradient(np.array([[5], [-3]]), 3, np.array([0, 0])).tolist() == [[0], [0]]


def test_the_table_starts_at_one():
    assert exponentials(np.array([[0]]), 0).tolist() == [[65536]]


def test_the_loss_is_the_mean_cross_entropy():
    logits = np.array([[64, 0], [0, 0]])
    expected = (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    assert mean_loss(logits, 6, np.array([0, 1])) == pytest.approx(expected)
