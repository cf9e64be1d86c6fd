"""A `State` as named arrays and JSON values, and back: what a checkpoint or another program needs to hold of a run.

The arrays are ``stored/NAME`` and ``momentum/NAME`` (int32, the parameter's shape), under Adam ``second_moment/NAME`` too, and
``mask/NAME`` (bool [out, in], once the parameter is pruned), and ``running_mean/NAME`` and ``running_variance/NAME`` (int64
[channels]) of each batch normalisation. Everything else is small and goes into the JSON values.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError
from fixgrad.network.batch_norm import BatchNorm
from fixgrad.network.graph import Network
from fixgrad.network.moments import MOMENT_BITS, are_words
from fixgrad.network.normalisation import RUNNING_BITS, Running
from fixgrad.network.recipe import Optimiser
from fixgrad.network.scaling import WINDOW, ScaleHistory
from fixgrad.network.state import Parameter, State
from fixgrad.network.update import ParameterFormats

Arrays = dict[str, NDArray[Any]]


class StateArrays(NamedTuple):
    """What `state_to_arrays` returns: arrays by name, and a dictionary of JSON values."""

    arrays: Arrays
    values: dict[str, Any]


def state_to_arrays(state: State) -> StateArrays:
    """The whole of `state`; the arrays are its own, not copies."""
    arrays: Arrays = {}
    for name, parameter in state.parameters.items():
        arrays[f"stored/{name}"] = parameter.stored
        arrays[f"momentum/{name}"] = parameter.momentum
        if parameter.second_moment is not None:
            arrays[f"second_moment/{name}"] = parameter.second_moment
        if parameter.mask is not None:
            arrays[f"mask/{name}"] = parameter.mask
    for name, running in state.running.items():
        arrays |= dict(zip(_running_names(name), running, strict=True))
    values = {
        "step": state.step,
        "parameters": {name: _parameter_values(parameter) for name, parameter in state.parameters.items()},
        "activation_scales": _exponents(state.activation_scales),
        "error_scales": _exponents(state.error_scales),
        "overflows": sorted(state.overflows),
    }
    if any(parameter.second_moment is not None for parameter in state.parameters.values()):
        values["moment_steps"] = state.moment_steps
    return StateArrays(arrays, values)


def state_from_arrays(network: Network, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> State:
    """The state that `state_to_arrays` took apart. The arrays are copied.

    Raises:
        DataError: an array or a value is missing, or is none that a state of `network` can have.
    """
    try:
        parameters = {
            name: _parameter(name, shape, arrays, values["parameters"][name]) for name, shape in network.parameters.items()
        }
        running = {layer.name: _running(layer, arrays) for layer in network.batch_norms}
        known = {key for name in parameters for key in _array_names(name)}
        unknown = sorted(set(arrays) - known - {key for name in running for key in _running_names(name)})
        if unknown:
            raise DataError(f"array {unknown[0]!r} belongs to no parameter of {network.name}")
        return State(
            step=_count("step", values["step"]),
            parameters=parameters,
            activation_scales=_histories("activation", values["activation_scales"]),
            error_scales=_histories("error", values["error_scales"]),
            overflows=set(map(str, values["overflows"])),
            running=running,
            moment_steps=_moment_steps(parameters, values),
        )
    except KeyError as missing:
        raise DataError(f"the state lacks {missing}") from None
    except (TypeError, AttributeError) as problem:
        raise DataError(f"the values of the state are of the wrong kind: {problem}") from None


def with_moments_of(optimiser: Optimiser, saved: StateArrays) -> StateArrays:
    """The same for an optimiser: with the moments that are there where it keeps such ones, else with zeros. Also of float states."""
    if any(name.startswith("second_moment/") for name in saved.arrays) == optimiser.is_adaptive:
        return saved
    arrays = {name: array for name, array in saved.arrays.items() if not name.startswith("second_moment/")}
    values = {name: value for name, value in saved.values.items() if name != "moment_steps"}
    for name, array in saved.arrays.items():
        if name.startswith("momentum/"):
            arrays[name] = np.zeros_like(array)
            if optimiser.is_adaptive:
                arrays[f"second_moment/{name.removeprefix('momentum/')}"] = np.zeros_like(array)
    return StateArrays(arrays, values | ({"moment_steps": 0} if optimiser.is_adaptive else {}))


def _array_names(parameter: str) -> tuple[str, str, str, str]:
    return f"stored/{parameter}", f"momentum/{parameter}", f"second_moment/{parameter}", f"mask/{parameter}"


def _running_names(layer: str) -> tuple[str, str]:
    return f"running_mean/{layer}", f"running_variance/{layer}"


def _running(layer: BatchNorm, arrays: Mapping[str, NDArray[Any]]) -> Running:
    return Running(*(_statistic(name, arrays[name], layer.channels) for name in _running_names(layer.name)))


def _statistic(name: str, array: NDArray[Any], channels: int) -> NDArray[np.int64]:
    if array.dtype != np.int64 or array.shape != (channels,):
        raise DataError(f"{name} is {array.dtype} {list(array.shape)}: expected int64 [{channels}]")
    limit = (1 << (RUNNING_BITS - 1)) - 1
    least = 0 if name.startswith("running_variance/") else -limit
    if channels and not least <= int(array.min()) <= int(array.max()) <= limit:
        raise DataError(f"{name} holds codes of {array.min()} to {array.max()}: expected {least} to {limit}")
    return array.copy()


def _parameter_values(parameter: Parameter) -> dict[str, int]:
    return {
        **parameter.formats._asdict(),
        "operand_shift": parameter.operand_shift,
        "magnitude": parameter.magnitude,
    }


def _parameter(name: str, shape: tuple[int, ...], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> Parameter:
    stored, momentum, second, mask = _array_names(name)
    formats = ParameterFormats(*(_integer(f"{name}: {field}", values[field]) for field in ParameterFormats._fields))
    adaptive = second in arrays
    return Parameter(
        formats=formats,
        stored=_codes(stored, arrays[stored], shape, formats.stored_bits),
        momentum=(
            _words(momentum, arrays[momentum], shape) if adaptive else _codes(momentum, arrays[momentum], shape, formats.momentum_bits)
        ),
        operand_shift=_count(f"{name}: operand_shift", values["operand_shift"]),
        magnitude=_count(f"{name}: magnitude", values["magnitude"]),
        mask=_mask(mask, arrays[mask], shape) if mask in arrays else None,
        second_moment=_words(second, arrays[second], shape, least=0) if adaptive else None,
    )


def _moment_steps(parameters: Mapping[str, Parameter], values: Mapping[str, Any]) -> int:
    adaptive = {parameter.second_moment is not None for parameter in parameters.values()}
    if len(adaptive) > 1:
        raise DataError("some parameters have a second moment and others have none")
    return _count("moment_steps", values["moment_steps"]) if True in adaptive else 0


def _words(name: str, array: NDArray[Any], shape: tuple[int, ...], least: int | None = None) -> NDArray[np.int32]:
    _check_array(name, array, shape)
    if not are_words(array) or (least is not None and array.min(initial=least) < least):
        raise DataError(f"{name} holds a word that no moment has: a mantissa is 0 or has {MOMENT_BITS} bits")
    return array.copy()


def _check_array(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.dtype != np.int32 or array.shape != tuple(shape):
        raise DataError(f"{name} is {array.dtype} {list(array.shape)}: expected int32 {list(shape)}")


def _codes(name: str, array: NDArray[Any], shape: tuple[int, ...], bits: int) -> NDArray[np.int32]:
    _check_array(name, array, shape)
    if not 16 <= bits <= 32:
        raise DataError(f"{name} is said to have {bits} bits: expected 16 to 32")
    largest = int(np.abs(array.astype(np.int64)).max(initial=0))
    if largest >= 1 << (bits - 1):
        raise DataError(f"{name} holds a code of magnitude {largest}: {bits} bits hold at most {(1 << (bits - 1)) - 1}")
    return array.copy()


def _mask(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if array.dtype != np.bool_ or array.shape != tuple(shape[:2]):
        raise DataError(f"{name} is {array.dtype} {list(array.shape)}: expected bool {list(shape[:2])}")
    return array.copy()


def _exponents(histories: Mapping[str, ScaleHistory]) -> dict[str, list[int]]:
    return {name: list(history.exponents) for name, history in histories.items()}


def _histories(kind: str, exponents: Mapping[str, Any]) -> dict[str, ScaleHistory]:
    found = {}
    for name, measured in exponents.items():
        if not isinstance(measured, list) or not 1 <= len(measured) <= WINDOW:
            raise DataError(f"the {kind} scale of {name} is {measured!r}: expected 1 to {WINDOW} exponents")
        found[name] = ScaleHistory(tuple(_integer(f"the {kind} scale of {name}", value) for value in measured))
    return found


def _integer(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{name} is {value!r}: expected an integer")
    return value


def _count(name: str, value: object) -> int:
    if _integer(name, value) < 0:
        raise DataError(f"{name} is {value!r}: expected 0 or more")
    return _integer(name, value)
