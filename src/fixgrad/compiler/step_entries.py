"""The step table as bytes: what the host writes before each step, by the field table of `fixgrad.machine.instructions`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.graph import Backward, Graph
from fixgrad.compiler.stages import Stage
from fixgrad.errors import DataError, UsageError
from fixgrad.machine.instructions import ALL_STEP_PARAMETERS, STEP_ENTRY_BYTES
from fixgrad.network import Add, BatchNorm, Concat, Recipe, StepTable
from fixgrad.network.junctions import MAX_ALIGNMENT
from fixgrad.network.normalisation import PRODUCT_FRAC, ROOT_FRAC, epsilon_code, running_shifts
from fixgrad.network.recipe import OPERAND_BITS, UpdateConstants
from fixgrad.network.scaling import common_frac
from fixgrad.network.step_table import ErrorScales
from fixgrad.network.update import TermShifts
from fixgrad.numbers import Rounding

Values = dict[str, int]


def encode_step_table(
    graph: Graph, entries: Mapping[str, int], table: StepTable, recipe: Recipe, *, trains: bool
) -> NDArray[np.uint8]:
    """The table's entries, uint8 [entries, 64].

    Args:
        entries: number of each entry by name: ``ff/conv1``, ``ng/conv2``, ``loss/dense8``, ``update/conv1.weight``, and with an
            elementwise unit ``sum/TENSOR``, ``ff/CONCAT/NUMBER`` and ``pass``.
        trains: whether normalisations move the running statistics on, or take them for those of the batch.
    """
    encoded = np.zeros((len(entries), STEP_ENTRY_BYTES), np.uint8)
    backward = {back.step.name: back for back in graph.backward}
    sums = {item.tensor: item for back in graph.backward for item in back.sums}
    for name, number in entries.items():
        kind, _, item = name.partition("/")
        match kind:
            case "ff":
                values = _forward(graph, table, item, trains)
            case "ng":
                values = _backward(table, backward[item], recipe)
            case "sum":
                fracs = [table.errors[part].frac for part in sums[item].names]
                values = _error(table.errors[item], recipe) | alignment(fracs)
            case "loss":
                values = _error(table.errors[item], recipe) | {"frac": table.forward[item].output_frac}
            case "update":
                values = _update(table, item, recipe)
            case _:
                values = {}
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


def alignment(fracs: Sequence[int], of: Sequence[int] | None = None) -> Values:
    """What ELEMENTWISE is told of the scales of one or two 8-bit operands: see `fixgrad.network.scaling.common_frac`.

    At most one of two operands is finer than their common scale. The other one is a whole number there, so one rounding of the
    sum is that of the finer operand. By 8 bits and more every code of 8 bits is rounded to 0.

    Args:
        fracs: fractional bits of the operands.
        of: of all tensors that have the common scale, where they are more than the operands.
    """
    frac = common_frac(of or fracs, MAX_ALIGNMENT)
    down = min(max(0, *(own - frac for own in fracs)), OPERAND_BITS)
    lefts = [max(frac - own, -down) + down for own in fracs]
    return {"left_first": lefts[0], "left_second": lefts[-1], "down": down}


def _forward(graph: Graph, table: StepTable, item: str, trains: bool) -> Values:
    name, _, number = item.partition("/")
    if name in table.forward:
        scales = table.forward[name]
        return {"shift": scales.shift, "bias_shift": scales.bias_shift}
    layer, values = graph.network.layer(name), {"shift": table.outputs[name].shift}
    fracs = [table.fracs[tensor] for tensor in layer.inputs]
    match layer:
        case BatchNorm():
            return values | _normalisation(layer, table, trains)
        case Add():
            return values | alignment(fracs)
        case Concat():
            return values | alignment([fracs[int(number)]], fracs)
    return values


def _normalisation(layer: BatchNorm, table: StepTable, trains: bool) -> Values:
    norm, product_frac = table.norms[layer.name], table.outputs[layer.name].accumulator_frac + PRODUCT_FRAC
    left = running_shifts(norm.input_frac)
    mean_left, variance_left = left if trains else left.back()
    return {
        "down": PRODUCT_FRAC,
        "factor_left": _shift(product_frac - norm.gamma_frac - ROOT_FRAC),
        "offset_left": _shift(product_frac - norm.beta_frac),
        "mean_left": _shift(mean_left),
        "variance_left": _shift(variance_left),
        "epsilon": epsilon_code(layer, norm.input_frac),
    }


def _shift(left: int) -> int:
    """A shift as a byte holds it: what is beyond shifts everything out, or saturates, all the same."""
    return min(max(left, -128), 127)


def _backward(table: StepTable, back: Backward, recipe: Recipe) -> Values:
    if isinstance(back.step, Stage):
        assert back.step.sink is not None
        return _error(table.errors[back.step.sink.tensor], recipe)
    sent = back.sent[0]
    scales = table.errors[sent.name]
    values = _error(scales, recipe)
    if isinstance(back.step.layer, BatchNorm):
        norm = table.norms[back.step.name]
        left = scales.accumulator_frac + norm.input_frac - table.errors[sent.made].frac
        values |= {"down": PRODUCT_FRAC, "factor_left": _shift(left + PRODUCT_FRAC - norm.gamma_frac - ROOT_FRAC)}
    return values


def _error(scales: ErrorScales, recipe: Recipe) -> Values:
    return {
        "shift": scales.shift,
        "stochastic": int(recipe.error_rounding is Rounding.STOCHASTIC),
        "key_low": scales.key.low,
        "key_high": scales.key.high,
    }


def _update(table: StepTable, parameter: str, recipe: Recipe) -> dict[str, Any]:
    scales, constants = table.updates[parameter], table.constants
    if not (isinstance(constants, UpdateConstants) and isinstance(scales.shifts, TermShifts)):
        raise UsageError(f"the step table of a machine has no place for {recipe.optimiser}: its update unit computes sgd alone")
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
