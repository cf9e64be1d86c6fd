"""A state as arrays and JSON values: whole, and refused where it is not."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fixgrad.errors import DataError
from fixgrad.network import Optimiser, Recipe, State, initial_state
from fixgrad.network.models import model
from fixgrad.network.scaling import ScaleHistory
from fixgrad.network.state_arrays import StateArrays, state_from_arrays, state_to_arrays
from fixgrad.network.update_rules import use_optimiser

NETWORK = model("digits")


@pytest.fixture
def state() -> State:
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=shape) for name, shape in NETWORK.parameters.items()}
    made = initial_state(NETWORK, weights, Recipe(stored_bits=16))
    made.step, made.overflows = 7, {"conv2/wg", "conv1/ff"}
    made.activation_scales["conv1"] = ScaleHistory((3, -2))
    made.error_scales["dense5"] = ScaleHistory((-9,))
    made.parameters["conv2.weight"].momentum[...] = random.integers(-99, 99, (32, 32, 3, 3))
    made.parameters["conv2.weight"].prune(random.random((32, 32)) < 0.5)
    made.parameters["dense4.weight"].prune(random.random((64, 256)) < 0.1)
    return made


@pytest.fixture
def saved(state: State) -> StateArrays:
    arrays, values = state_to_arrays(state)
    return StateArrays(arrays, json.loads(json.dumps(values)))


def test_a_state_comes_back_whole(state: State, saved: StateArrays) -> None:
    again = state_from_arrays(NETWORK, saved.arrays, saved.values)
    assert (again.step, again.overflows) == (7, {"conv1/ff", "conv2/wg"})
    assert again.activation_scales == state.activation_scales
    assert again.error_scales == state.error_scales
    assert list(again.parameters) == list(state.parameters)
    for name, parameter in state.parameters.items():
        other = again.parameters[name]
        assert (other.formats, other.operand_shift, other.magnitude) == (
            parameter.formats,
            parameter.operand_shift,
            parameter.magnitude,
        )
        for ours, theirs in ((parameter.stored, other.stored), (parameter.momentum, other.momentum)):
            assert theirs.dtype == np.int32
            assert np.array_equal(ours, theirs)
        assert (parameter.mask is None) == (other.mask is None)
        assert parameter.mask is None or np.array_equal(parameter.mask, other.mask)


def test_arrays_are_copied(state: State, saved: StateArrays) -> None:
    again = state_from_arrays(NETWORK, saved.arrays, saved.values)
    saved.arrays["stored/conv1.weight"][...] = 0
    assert again.parameters["conv1.weight"].stored.any()


def test_only_what_is_pruned_has_a_mask(saved: StateArrays) -> None:
    masks = {name for name in saved.arrays if name.startswith("mask/")}
    assert masks == {"mask/conv2.weight", "mask/dense4.weight"}


def _set(path: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Change one value, by its path in the JSON."""

    def change(_arrays: dict[str, Any], values: dict[str, Any]) -> None:
        *folders, name = path.split("/")
        for folder in folders:
            values = values[folder]
        values[name] = value

    return change


def _array(name: str, array: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Change one array; None takes it away."""

    def change(arrays: dict[str, Any], _values: dict[str, Any]) -> None:
        if array is None:
            del arrays[name]
        else:
            arrays[name] = array

    return change


def _adam_arrays(arrays: dict[str, Any], _values: dict[str, Any]) -> None:
    """Give every parameter a second moment."""
    for name in [name for name in arrays if name.startswith("momentum/")]:
        arrays[name] = np.zeros_like(arrays[name])
        arrays[f"second_moment/{name.partition('/')[2]}"] = np.zeros_like(arrays[name])


def test_moments_of_adam_come_back_whole(state: State) -> None:
    use_optimiser(state, Optimiser.ADAM)
    state.moment_steps = 5
    parameter = state.parameters["conv2.weight"]
    assert parameter.second_moment is not None
    assert not parameter.momentum.any()
    parameter.momentum[...] = (-(2**22) - 5) * 256 + 17
    parameter.second_moment[...] = (2**23 - 1) * 256 + 255
    arrays, values = state_to_arrays(state)
    again = state_from_arrays(NETWORK, arrays, json.loads(json.dumps(values)))
    other = again.parameters["conv2.weight"].second_moment
    assert again.moment_steps == 5
    assert other is not None
    assert other is not parameter.second_moment
    assert np.array_equal(other, parameter.second_moment)
    assert np.array_equal(again.parameters["conv2.weight"].momentum, parameter.momentum)


def test_sgd_says_nothing_of_moments(state: State) -> None:
    state.moment_steps = 5
    arrays, values = state_to_arrays(state)
    assert "moment_steps" not in values
    assert not any(name.startswith("second_moment/") for name in arrays)


WORDS = {
    "some second moments": (_array("second_moment/conv1.bias", None), "some parameters have a second moment and others have none"),
    "no number of updates": (lambda arrays, values: values.pop("moment_steps"), "lacks 'moment_steps'"),
    "a negative number of updates": (_set("moment_steps", -1), "moment_steps is -1: expected 0 or more"),
    "a negative second moment": (
        _array("second_moment/conv1.bias", np.full(32, -(2**22) * 256, np.int32)),
        "second_moment/conv1.bias holds a word that no moment has",
    ),
    "a code of SGD": (_array("momentum/conv1.bias", np.full(32, 77, np.int32)), "momentum/conv1.bias holds a word that no moment has"),
    "a shape": (_array("second_moment/conv1.bias", np.zeros(31, np.int32)), r"is int32 \[31\]: expected int32 \[32\]"),
    "a foreign moment": (_array("second_moment/conv9.weight", np.zeros(1, np.int32)), "belongs to no parameter of digits"),
}


@pytest.mark.parametrize("what", WORDS)
def test_what_no_state_of_adam_can_have_is_refused(saved: StateArrays, what: str) -> None:
    _adam_arrays(saved.arrays, saved.values)
    saved.values["moment_steps"] = 5
    assert state_from_arrays(NETWORK, saved.arrays, saved.values).moment_steps == 5
    change, message = WORDS[what]
    change(saved.arrays, saved.values)
    with pytest.raises(DataError, match=message):
        state_from_arrays(NETWORK, saved.arrays, saved.values)


DAMAGED = {
    "no weights": (_array("stored/conv1.weight", None), "lacks 'stored/conv1.weight'"),
    "no momentum": (_array("momentum/dense5.bias", None), "lacks 'momentum/dense5.bias'"),
    "floats": (_array("stored/conv1.bias", np.zeros(32)), r"stored/conv1\.bias is float64 \[32\]: expected int32 \[32\]"),
    "a shape": (_array("stored/conv1.bias", np.zeros(31, np.int32)), r"is int32 \[31\]: expected int32 \[32\]"),
    "a wide code": (_array("stored/conv1.bias", np.full(32, 1 << 15, np.int32)), "magnitude 32768: 16 bits hold at most 32767"),
    "the smallest integer": (_array("stored/conv1.bias", np.full(32, -(1 << 31), np.int32)), "magnitude 2147483648"),
    "a mask's shape": (_array("mask/conv2.weight", np.ones((32, 31), np.bool_)), r"expected bool \[32, 32\]"),
    "a mask's type": (_array("mask/conv2.weight", np.ones((32, 32), np.int8)), r"is int8 \[32, 32\]: expected bool"),
    "a foreign array": (_array("stored/conv9.weight", np.zeros(1, np.int32)), "belongs to no parameter of digits"),
    "a foreign mask": (_array("mask/conv9.weight", np.ones((1, 1), np.bool_)), "'mask/conv9.weight' belongs to no parameter"),
    "a text for a step": (_set("step", "7"), "step is '7': expected an integer"),
    "a negative step": (_set("step", -1), "step is -1: expected 0 or more"),
    "a truth for a step": (_set("step", True), "step is True"),
    "many bits": (_set("parameters/conv1.bias/stored_bits", 64), "said to have 64 bits"),
    "a fraction": (_set("parameters/conv1.bias/stored_frac", 1.5), "stored_frac is 1.5: expected an integer"),
    "no parameter": (_set("parameters", {}), r"lacks 'conv1\.weight'"),
    "parameters of another kind": (_set("parameters", 3), "wrong kind"),
    "an empty history": (_set("error_scales/dense5", []), r"the error scale of dense5 is \[\]: expected 1 to 16"),
    "a long history": (_set("error_scales/dense5", [0] * 17), "expected 1 to 16 exponents"),
    "a text in a history": (_set("activation_scales/conv1", ["3"]), "activation scale of conv1 is '3'"),
    "histories of another kind": (_set("activation_scales", [1]), "wrong kind"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_no_state_can_have_is_refused(saved: StateArrays, what: str) -> None:
    change, message = DAMAGED[what]
    change(saved.arrays, saved.values)
    with pytest.raises(DataError, match=message):
        state_from_arrays(NETWORK, saved.arrays, saved.values)
