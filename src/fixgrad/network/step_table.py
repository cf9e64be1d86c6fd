"""The scales and constants of one step, all known before it begins.

This is what the host hands to the machine before each step, and what every software executor reads: no executor chooses a
shift of its own. It follows from the state alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

from fixgrad.network.adam import AdamConstants, AdamShifts, adam_constants, adam_shifts
from fixgrad.network.batch_norm import BatchNorm
from fixgrad.network.graph import INPUT, Network
from fixgrad.network.junctions import DROPOUT_FRAC, MAX_ALIGNMENT, Dropout
from fixgrad.network.layers import Layer, MacLayer
from fixgrad.network.normalisation import ACCUMULATOR_FRAC, GAMMA_GRADIENT_FRAC
from fixgrad.network.recipe import OPERAND_BITS, Recipe, UpdateConstants, update_constants
from fixgrad.network.scaling import common_frac, output_frac
from fixgrad.network.softmax import ERROR_FRAC
from fixgrad.network.state import State, bias_shift
from fixgrad.network.update import ParameterFormats, TermShifts, term_shifts
from fixgrad.network.windows import RECIPROCAL_FRAC, AdaptiveAvgPool2d, AvgPool2d
from fixgrad.numbers import StreamKey, stream_key


class ForwardScales(NamedTuple):
    """FF of one layer. `shift` is the right shift from accumulators to output codes (0 to 31)."""

    input_frac: int
    weight_frac: int
    accumulator_frac: int
    bias_shift: int
    shift: int
    output_frac: int


class OutputScales(NamedTuple):
    """The output of a layer without weights that has a scale of its own: shift from accumulators to codes (0 to 31)."""

    accumulator_frac: int
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

    shifts: TermShifts | AdamShifts
    operand_shift: int
    key: StreamKey


class NormScales(NamedTuple):
    """A batch normalisation: fractional bits of what it reads, and of its stored gamma and beta."""

    input_frac: int
    gamma_frac: int
    beta_frac: int


class StepTable(NamedTuple):
    """All scales of one step.

    Attributes:
        forward: by MAC layer.
        outputs: by each other layer that has a scale of its own.
        errors: by tensor: the logits, and the input of every MAC layer but the first. Where several layers read a tensor, also
            ``tensor@layer``, what a layer contributes to the error.
        updates: by parameter.
        constants: of the update.
        norms: by batch normalisation.
        fracs: fractional bits of every tensor.
    """

    step: int
    forward: dict[str, ForwardScales]
    outputs: dict[str, OutputScales]
    errors: dict[str, ErrorScales]
    updates: dict[str, UpdateScales]
    constants: UpdateConstants | AdamConstants
    norms: dict[str, NormScales]
    fracs: dict[str, int]


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


def dropout_key(seed: int, step: int, layer: str) -> StreamKey:
    """Stream that decides which elements a layer drops."""
    return stream_key(seed, step, f"dropout/{layer}")


def update_key(seed: int, step: int, parameter: str) -> StreamKey:
    """Stream of the stochastic rounding of a parameter's update."""
    return stream_key(seed, step, f"update/{parameter}")


def layer_accumulator_frac(layer: Layer, input_fracs: Sequence[int], state: State) -> int:
    """Fractional bits of the accumulators of a layer without weights that has a scale of its own.

    Raises:
        KeyError: of a normalisation before its first measurement.
    """
    if isinstance(layer, BatchNorm):
        return ACCUMULATOR_FRAC - state.activation_scales[layer.name].exponent
    if isinstance(layer, Dropout):
        return input_fracs[0] + DROPOUT_FRAC
    if isinstance(layer, AvgPool2d | AdaptiveAvgPool2d):
        return input_fracs[0] + RECIPROCAL_FRAC
    return common_frac(input_fracs, MAX_ALIGNMENT)


def output_scales(layer: Layer, accumulator_frac: int, state: State) -> OutputScales:
    """Scales of the output of a layer with a scale of its own, from its history."""
    frac = output_frac(state.activation_scales[layer.name].exponent, accumulator_frac, layer.code_bits)
    return OutputScales(accumulator_frac, accumulator_frac - frac, frac)


def error_accumulator_frac(layer: Layer, error: str, error_frac: int, state: State) -> int:
    """Fractional bits of the accumulators of which a layer makes the error of what it reads.

    Args:
        error: name of that error.
        error_frac: fractional bits of the error of the layer's output.

    Raises:
        KeyError: of a normalisation before its first measurement.
    """
    if isinstance(layer, MacLayer):
        return error_frac + state.weight(layer).operand_frac
    if isinstance(layer, BatchNorm):
        return ACCUMULATOR_FRAC - state.error_scales[error].exponent
    if isinstance(layer, Dropout):
        return error_frac + DROPOUT_FRAC
    if isinstance(layer, AvgPool2d | AdaptiveAvgPool2d):
        return error_frac + RECIPROCAL_FRAC
    return error_frac


def gradient_frac(layer: Layer, parameter: str, input_frac: int, error_frac: int) -> int:
    """Fractional bits of the gradient of a layer's parameter."""
    if isinstance(layer, BatchNorm):
        return error_frac + (GAMMA_GRADIENT_FRAC if parameter == layer.gamma else 0)
    return error_frac + (0 if parameter.endswith(".bias") else input_frac)


def step_table(network: Network, state: State, recipe: Recipe, total_steps: int, batch: int) -> StepTable:
    """The table of the coming step.

    Args:
        state: after calibration or at least one step, so that every tensor has a history.
        total_steps: length of the run, for the learning-rate schedule.
        batch: global batch size: the rate is divided by it.
    """
    fracs, forward, outputs = _forward(network, state)
    errors, error_fracs = _backward(network, state, recipe.seed)
    constants = _constants(recipe, state, total_steps, batch)
    updates: dict[str, UpdateScales] = {}
    for layer in reversed(network.layers):
        for name in layer.parameters:
            parameter = state.parameters[name]
            frac = gradient_frac(layer, name, fracs[layer.inputs[0]], error_fracs[layer.name])
            shifts = _shifts(parameter.formats, frac, constants)
            updates[name] = UpdateScales(shifts, parameter.next_operand_shift, update_key(recipe.seed, state.step, name))
    norms = {layer.name: _norm_scales(layer, fracs[layer.inputs[0]], state) for layer in network.batch_norms}
    return StepTable(state.step, forward, outputs, errors, updates, constants, norms, fracs)


def _norm_scales(layer: BatchNorm, input_frac: int, state: State) -> NormScales:
    gamma, beta = (state.parameters[name].formats.stored_frac for name in (layer.gamma, layer.beta))
    return NormScales(input_frac, gamma, beta)


def _constants(recipe: Recipe, state: State, total_steps: int, batch: int) -> UpdateConstants | AdamConstants:
    if recipe.optimiser.is_adaptive:
        return adam_constants(recipe, state.step, total_steps, batch, state.moment_steps)
    return update_constants(recipe, state.step, total_steps, batch)


def _shifts(formats: ParameterFormats, frac: int, constants: UpdateConstants | AdamConstants) -> TermShifts | AdamShifts:
    if isinstance(constants, AdamConstants):
        return adam_shifts(formats, frac, constants)
    return term_shifts(formats, frac, constants)


def _forward(network: Network, state: State) -> tuple[dict[str, int], dict[str, ForwardScales], dict[str, OutputScales]]:
    """Fractional bits of every tensor, and the scales that lead to them."""
    fracs = {INPUT: network.input_frac}
    forward: dict[str, ForwardScales] = {}
    outputs: dict[str, OutputScales] = {}
    for layer in network:
        inputs = [fracs[tensor] for tensor in layer.inputs]
        if isinstance(layer, MacLayer):
            forward[layer.name] = forward_scales(layer, inputs[0], state)
            fracs[layer.name] = forward[layer.name].output_frac
        elif layer.rescales:
            outputs[layer.name] = output_scales(layer, layer_accumulator_frac(layer, inputs, state), state)
            fracs[layer.name] = outputs[layer.name].output_frac
        else:
            fracs[layer.name] = inputs[0]
    return fracs, forward, outputs


def _backward(network: Network, state: State, seed: int) -> tuple[dict[str, ErrorScales], dict[str, int]]:
    """The scales of every error that is made anew, and the fractional bits of the error of every tensor."""
    errors = {network.logits: error_scales(network.logits, ERROR_FRAC, state, seed)}
    fracs = {network.logits: errors[network.logits].frac}
    sent: dict[str, list[int]] = {}
    for layer in reversed(network.layers):
        if layer.name in sent:
            fracs[layer.name] = _joined(layer.name, sent[layer.name], state, seed, errors)
        for tensor in layer.inputs if layer.name in fracs else ():
            if tensor not in network.trainable:
                continue
            frac, name = fracs[layer.name], network.error_name(tensor, layer)
            if layer.rescales_error:
                errors[name] = error_scales(name, error_accumulator_frac(layer, name, frac, state), state, seed)
                frac = errors[name].frac
            sent.setdefault(tensor, []).append(frac)
    return errors, fracs


def _joined(tensor: str, sent: list[int], state: State, seed: int, errors: dict[str, ErrorScales]) -> int:
    """Fractional bits of the error of a tensor: that of its one reader, or of the sum of several."""
    if len(sent) == 1:
        return sent[0]
    errors[tensor] = error_scales(tensor, common_frac(sent, MAX_ALIGNMENT), state, seed)
    return errors[tensor].frac


def needs_input_error(network: Network, layer: Layer) -> bool:
    """Whether NG is computed: some layer with parameters stands before this one."""
    return layer.inputs[0] in network.trainable
