"""Stored weights, operands, and pruning of a state."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.errors import DataError
from fixgrad.network import Recipe, initial_state
from fixgrad.network.models import model
from fixgrad.network.state import bias_shift, new_parameter, operand_shift_for

RECIPE = Recipe()


def real_weights(network, scale=0.1):
    rng = np.random.default_rng(3)
    return {name: rng.normal(size=shape) * scale for name, shape in network.parameters.items()}


@pytest.mark.parametrize("bits", [16, 24, 32])
@given(largest=st.floats(1e-6, 1e3))
def test_a_new_weight_has_head_room_and_fills_its_operand(bits, largest):
    parameter = new_parameter(np.array([[largest, -largest / 3]]), Recipe(stored_bits=bits), is_bias=False)
    limit = 2 ** (bits - 1) - 1
    assert limit // 8 <= np.abs(parameter.stored).max() <= limit // 4 + 2
    assert 63 <= np.abs(parameter.operand()).max() <= 127
    assert abs(parameter.stored[0, 0] * 2.0**-parameter.formats.stored_frac - largest) <= 2.0**-parameter.formats.stored_frac


def test_a_tensor_of_zeros_is_a_weight_too():
    parameter = new_parameter(np.zeros((3, 2)), RECIPE, is_bias=False)
    assert parameter.operand().tolist() == [[0, 0]] * 3
    assert parameter.operand_shift == 0


def test_a_bias_may_grow_to_four():
    parameter = new_parameter(np.zeros(3), RECIPE, is_bias=True)
    assert parameter.formats.stored_frac == 21
    assert parameter.next_operand_shift == 0


def test_an_operand_saturates_symmetrically():
    parameter = new_parameter(np.array([[1.0, -1.0]]), RECIPE, is_bias=False)
    parameter.stored[...] = [[2**23 - 1, -(2**23) + 1]]
    assert parameter.operand().tolist() == [[127, -127]]


def test_operand_shifts_are_held_in_range():
    assert [operand_shift_for(bits, 24) for bits in (0, 7, 8, 23, 24)] == [0, 0, 1, 16, 16]


def test_bias_shifts_are_held_in_range():
    assert (bias_shift(100, 0), bias_shift(0, 100), bias_shift(12, 21)) == (31, -31, -9)


def test_pruning_is_for_good():
    parameter = new_parameter(np.arange(1.0, 9.0).reshape(2, 2, 1, 2), RECIPE, is_bias=False)
    parameter.momentum += 5
    parameter.prune(np.array([[True, False], [True, True]]))
    parameter.prune(np.array([[True, True], [False, True]]))
    assert parameter.mask.tolist() == [[True, False], [False, True]]
    assert (parameter.stored != 0).all(axis=(2, 3)).tolist() == [[True, False], [False, True]]
    assert (parameter.momentum == 0).all(axis=(2, 3)).tolist() == [[False, True], [True, False]]


def test_a_mask_of_another_shape_is_refused():
    parameter = new_parameter(np.ones((2, 3)), RECIPE, is_bias=False)
    with pytest.raises(DataError, match=r"the mask has shape \(3, 2\): the parameter needs \(2, 3\)"):
        parameter.prune(np.ones((3, 2), bool))


def test_missing_wrong_and_infinite_weights_are_named():
    network = model("digits")
    weights = real_weights(network)
    for name, bad, message in (
        ("conv2.weight", None, "no initial value for conv2.weight"),
        ("conv2.weight", np.zeros((2, 2)), r"the initial value of conv2.weight has shape \(2, 2\): expected \(32, 32, 3, 3\)"),
        ("conv1.bias", np.full(32, np.inf), "not finite"),
    ):
        broken = dict(weights)
        if bad is None:
            del broken[name]
        else:
            broken[name] = bad
        with pytest.raises(DataError, match=message):
            initial_state(network, broken, RECIPE)
