"""The step table as bytes: what the host writes before each step, by the field table of `fixgrad.machine.instructions`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.stages import Stage
from fixgrad.errors import DataError
from fixgrad.machine.instructions import ALL_STEP_PARAMETERS, STEP_ENTRY_BYTES
from fixgrad.network import Recipe, StepTable
from fixgrad.network.junctions import MAX_ALIGNMENT
from fixgrad.network.recipe import OPERAND_BITS
from fixgrad.network.scaling import common_frac
from fixgrad.network.step_table import ErrorScales
from fixgrad.numbers import Rounding

Values = dict[str, int]


def encode_step_table(
    stages: Sequence[Stage], entries: Mapping[str, int], table: StepTable, recipe: Recipe
) -> NDArray[np.uint8]:
    """The table's entries, uint8 [entries, 64].

    Args:
        entries: number of each entry by name: ``ff/conv1``, ``ng/conv2``, ``loss/dense8``, ``update/conv1.weight``.
    """
    encoded = np.zeros((len(entries), STEP_ENTRY_BYTES), np.uint8)
    by_name = {stage.name: stage for stage in stages}
    for name, number in entries.items():
        kind, _, item = name.partition("/")
        match kind:
            case "ff":
                values = _forward(table, item)
            case "ng":
                values = _error(table.errors[by_name[item].layer.inputs[0]], recipe)
            case "loss":
                values = _error(table.errors[item], recipe) | {"frac": table.forward[item].output_frac}
            case _:
                values = _update(table, item, recipe)
        encoded[number] = encode_entry(values)
    return encoded


def encode_entry(values: Mapping[str, int]) -> NDArray[np.uint8]:
    """One entry of 64 bytes; fields without a value are 0.

    Raises:
        DataError: a value does not fit its field.
    """
    entry = bytearray(STEP_ENTRY_BYTES)
    for item in ALL_STEP_PARAMETERS:
        value = int(values.get(item.name, 0))
        try:
            entry[item.offset : item.offset + item.bytes] = value.to_bytes(item.bytes, "little", signed=item.signed)
        except OverflowError:
            raise DataError(f"step table: {item.name} is {value}, which does not fit {item.bytes} bytes") from None
    return np.frombuffer(bytes(entry), np.uint8)


def decode_entry(entry: NDArray[np.uint8]) -> Values:
    """The fields of one entry."""
    data = entry.tobytes()
    return {
        item.name: int.from_bytes(data[item.offset : item.offset + item.bytes], "little", signed=item.signed)
        for item in ALL_STEP_PARAMETERS
    }


def alignment(fracs: Sequence[int]) -> Values:
    """What ELEMENTWISE is told of the scales of one or two 8-bit operands that it adds: see `fixgrad.network.scaling.common_frac`.

    At most one of two operands is finer than their common scale. The other one is a whole number there, so one rounding of the
    sum is that of the finer operand. By 8 bits and more every code of 8 bits is rounded to 0.
    """
    frac = common_frac(fracs, MAX_ALIGNMENT)
    down = min(max(own - frac for own in fracs), OPERAND_BITS)
    lefts = [max(frac - own, -down) + down for own in fracs]
    return {"left_first": lefts[0], "left_second": lefts[-1], "down": down}


def _forward(table: StepTable, layer: str) -> Values:
    scales = table.forward[layer]
    return {"shift": scales.shift, "bias_shift": scales.bias_shift}


def _error(scales: ErrorScales, recipe: Recipe) -> Values:
    return {
        "shift": scales.shift,
        "stochastic": int(recipe.error_rounding is Rounding.STOCHASTIC),
        "key_low": scales.key.low,
        "key_high": scales.key.high,
    }


def _update(table: StepTable, parameter: str, recipe: Recipe) -> dict[str, Any]:
    scales, constants = table.updates[parameter], table.constants
    return {
        "stochastic": int(recipe.update_rounding is Rounding.STOCHASTIC),
        "key_low": scales.key.low,
        "key_high": scales.key.high,
        "momentum": constants.momentum,
        "rate": constants.rate.mantissa,
        "decay": constants.decay.mantissa,
        "gradient_left": scales.shifts.gradient,
        "decay_left": scales.shifts.decay,
        "step_left": scales.shifts.step,
        "operand_shift": scales.operand_shift,
        "stored_bits": recipe.stored_bits,
        "momentum_bits": recipe.momentum_bits,
    }
