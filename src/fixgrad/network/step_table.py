"""The scales and constants of one step, all known before it begins.

This is what the host hands to the machine before each step, and what every software executor reads: no executor chooses a
shift of its own. It follows from the state alone.
"""

from typing import NamedTuple

from fixgrad.network.graph import INPUT, Network
from fixgrad.network.layers import MacLayer
from fixgrad.network.recipe import OPERAND_BITS, Recipe, UpdateConstants, update_constants
from fixgrad.network.scaling import output_frac
from fixgrad.network.softmax import ERROR_FRAC
from fixgrad.network.state import State, bias_shift
from fixgrad.network.update import TermShifts, term_shifts
from fixgrad.numbers import StreamKey, stream_key


class ForwardScales(NamedTuple):
    """FF of one layer. `shift` is the right shift from accumulators to output codes (0 to 31)."""

    input_frac: int
    weight_frac: int
    accumulator_frac: int
    bias_shift: int
    shift: int
    output_frac: int


class ErrorScales(NamedTuple):
    """An error tensor: the right shift that made its 8-bit codes from accumulators, and their fractional bits.

    `key` is the stream of its stochastic rounding.
    """

    accumulator_frac: int
    shift: int
    frac: int
    key: StreamKey


class UpdateScales(NamedTuple):
    """The update of one parameter: term shifts, the shift of the operands it emits, and its stream."""

    shifts: TermShifts
    operand_shift: int
    key: StreamKey


class StepTable(NamedTuple):
    """All scales of one step.

    Attributes:
        forward: by MAC layer.
        errors: by tensor: the logits, and the input of every MAC layer but the first.
        updates: by parameter.
        constants: of the update.
    """

    step: int
    forward: dict[str, ForwardScales]
    errors: dict[str, ErrorScales]
    updates: dict[str, UpdateScales]
    constants: UpdateConstants


def forward_scales(layer: MacLayer, input_frac: int, state: State) -> ForwardScales:
    """Scales of one layer's FF, from its history."""
    accumulator_frac, shift_of_bias = accumulator_scale(layer, input_frac, state)
    frac = output_frac(state.activation_scales[layer.name].exponent, accumulator_frac, layer.out_bits)
    weight_frac = state.weight(layer).operand_frac
    return ForwardScales(input_frac, weight_frac, accumulator_frac, shift_of_bias, accumulator_frac - frac, frac)


def accumulator_scale(layer: MacLayer, input_frac: int, state: State) -> tuple[int, int]:
    """Fractional bits of a layer's FF accumulators, and the left shift of its bias (0 without one)."""
    frac = input_frac + state.weight(layer).operand_frac
    bias = state.bias(layer)
    return frac, 0 if bias is None else bias_shift(frac, bias.formats.stored_frac)


def error_scales(tensor: str, accumulator_frac: int, state: State, seed: int) -> ErrorScales:
    """Scales of the error of `tensor`, made from accumulators with `accumulator_frac` fractional bits."""
    frac = output_frac(state.error_scales[tensor].exponent, accumulator_frac, OPERAND_BITS)
    return ErrorScales(accumulator_frac, accumulator_frac - frac, frac, error_key(seed, state.step, tensor))


def error_key(seed: int, step: int, tensor: str) -> StreamKey:
    """Stream of the stochastic rounding of the error of `tensor`."""
    return stream_key(seed, step, f"error/{tensor}")


def update_key(seed: int, step: int, parameter: str) -> StreamKey:
    """Stream of the stochastic rounding of a parameter's update."""
    return stream_key(seed, step, f"update/{parameter}")


def all_forward_scales(network: Network, state: State) -> dict[str, ForwardScales]:
    """Forward scales of every MAC layer, in order, from the state's histories."""
    scales: dict[str, ForwardScales] = {}
    for layer in network.mac_layers:
        source = network.source_of(layer.inputs[0])
        input_frac = network.input_frac if source == INPUT else scales[source].output_frac
        scales[layer.name] = forward_scales(layer, input_frac, state)
    return scales


def step_table(network: Network, state: State, recipe: Recipe, total_steps: int, batch: int) -> StepTable:
    """The table of the coming step.

    Args:
        state: after calibration or at least one step, so that every tensor has a history.
        total_steps: length of the run, for the learning-rate schedule.
        batch: global batch size: the rate is divided by it.
    """
    forward = all_forward_scales(network, state)
    constants = update_constants(recipe, state.step, total_steps, batch)
    errors = {network.logits: error_scales(network.logits, ERROR_FRAC, state, recipe.seed)}
    updates: dict[str, UpdateScales] = {}
    error_frac = errors[network.logits].frac
    for layer in reversed(network.mac_layers):
        scales = forward[layer.name]
        for name in layer.parameters:
            parameter = state.parameters[name]
            gradient_frac = error_frac + (0 if name.endswith(".bias") else scales.input_frac)
            shifts = term_shifts(parameter.formats, gradient_frac, constants)
            key = update_key(recipe.seed, state.step, name)
            updates[name] = UpdateScales(shifts, parameter.next_operand_shift, key)
        if needs_input_error(network, layer):
            tensor = layer.inputs[0]
            errors[tensor] = error_scales(tensor, error_frac + scales.weight_frac, state, recipe.seed)
            error_frac = errors[tensor].frac
    return StepTable(state.step, forward, errors, updates, constants)


def needs_input_error(network: Network, layer: MacLayer) -> bool:
    """Whether NG is computed: some layer with weights stands before this one."""
    return network.source_of(layer.inputs[0]) != INPUT
