"""One training step in plain NumPy int64: the definition that every executor must equal. Written for reading, not for speed.

FF  y = W x + b        NG  dx = W^T dy        WG  dW = dy x^T        update  W <- W - u
"""

import numpy as np
from numpy.typing import NDArray

from fixgrad.network.graph import INPUT, Network
from fixgrad.network.layers import MacLayer
from fixgrad.network.operations import (
    Codes,
    bias_gradient,
    element_index,
    mac_forward,
    mac_input_gradient,
    mac_weight_gradient,
    pass_backward,
    pass_forward,
)
from fixgrad.network.recipe import OPERAND_BITS, Recipe
from fixgrad.network.scaling import ScaleHistory
from fixgrad.network.softmax import ERROR_FRAC, loss_gradient, mean_loss
from fixgrad.network.state import State
from fixgrad.network.step_table import (
    StepTable,
    accumulator_scale,
    error_scales,
    forward_scales,
    needs_input_error,
    step_table,
)
from fixgrad.network.trace import Trace
from fixgrad.network.update import update
from fixgrad.numbers import Rounding, align, hash32, magnitude_bits, shift_nearest, shift_round, wrap32


class ReferenceExecutor:
    """Trains a network step by step on a `State`, which it changes in place.

    Args:
        network: what to train.
        state: see `initial_state`; `calibrate` must run once before the first step.
        recipe: formats, rounding and constants.
        total_steps: length of the run, for the schedule.
    """

    def __init__(self, network: Network, state: State, recipe: Recipe, total_steps: int) -> None:
        self.network = network
        self.state = state
        self.recipe = recipe
        self.total_steps = total_steps

    def calibrate(self, x: Codes, labels: NDArray[np.integer]) -> None:
        """Fill the empty scale histories from one batch, layer by layer: forward, loss, backward. Nothing is updated."""
        self._run(x, labels)

    def predict(self, x: Codes) -> NDArray[np.integer]:
        """Logit codes [batch, classes], with the scales in force."""
        return self._forward(x).activations[self.network.logits]

    def step(self, x: Codes, labels: NDArray[np.integer]) -> Trace:
        """One training step on codes `x` [batch, ...] and labels [batch]; returns every tensor of the step."""
        table = step_table(self.network, self.state, self.recipe, self.total_steps, len(labels))
        trace = self._run(x, labels)
        self._update(table, trace)
        finish_step(self.state, trace)
        return trace

    def _run(self, x: Codes, labels: NDArray[np.integer]) -> Trace:
        trace = self._forward(x)
        self._loss(trace, labels)
        self._backward(trace)
        return trace

    def _forward(self, x: Codes) -> Trace:
        trace = Trace()
        trace.activations[INPUT], trace.fracs[INPUT] = x, self.network.input_frac
        for layer in self.network:
            tensor = layer.inputs[0]
            if isinstance(layer, MacLayer):
                self._feed_forward(layer, trace)
            else:
                trace.activations[layer.name] = pass_forward(layer, trace.activations[tensor])
                trace.fracs[layer.name] = trace.fracs[tensor]
        return trace

    def _feed_forward(self, layer: MacLayer, trace: Trace) -> None:
        x, input_frac = trace.activations[layer.inputs[0]], trace.fracs[layer.inputs[0]]
        frac, shift_of_bias = accumulator_scale(layer, input_frac, self.state)
        sums = trace.accumulated(mac_forward(layer, x, self.state.weight(layer).operand()), f"{layer.name}/ff")
        bias = self.state.bias(layer)
        if bias is not None:
            aligned = align(bias.stored, shift_of_bias, 32).reshape(1, -1, *(1,) * (sums.ndim - 2))
            sums = trace.accumulated(wrap32(sums + aligned), f"{layer.name}/ff")
        if layer.relu:
            sums = np.maximum(sums, 0)
        trace.forward_bits[layer.name] = magnitude_bits(sums), frac
        self.state.activation_scales.setdefault(layer.name, ScaleHistory().after(magnitude_bits(sums), frac))
        scales = forward_scales(layer, input_frac, self.state)
        wide = shift_nearest(sums, scales.shift)
        trace.activations[layer.name] = trace.saturate(wide, layer.out_bits, f"activation/{layer.name}")
        trace.fracs[layer.name] = scales.output_frac

    def _loss(self, trace: Trace, labels: NDArray[np.integer]) -> None:
        logits, frac = trace.activations[self.network.logits], trace.fracs[self.network.logits]
        trace.loss = mean_loss(logits, frac, labels)
        trace.correct = int((logits.argmax(axis=1) == labels).sum())
        self._requantise_error(self.network.logits, loss_gradient(logits, frac, labels), ERROR_FRAC, trace)

    def _backward(self, trace: Trace) -> None:
        for layer in reversed(self.network.layers):
            tensor = layer.inputs[0]
            if isinstance(layer, MacLayer):
                self._weight_gradient(layer, trace)
                if not needs_input_error(self.network, layer):
                    break
                self._neuron_gradient(layer, trace)
            else:
                trace.errors[tensor] = pass_backward(layer, trace.activations[tensor], trace.errors[layer.name])
                trace.error_fracs[tensor] = trace.error_fracs[layer.name]

    def _neuron_gradient(self, layer: MacLayer, trace: Trace) -> None:
        tensor, weight = layer.inputs[0], self.state.weight(layer)
        dy, x = trace.errors[layer.name], trace.activations[tensor]
        sums: Codes = trace.accumulated(mac_input_gradient(layer, dy, weight.operand(), x.shape[1:]), f"{layer.name}/ng")
        if self.network.is_rectified(tensor):
            sums = np.where(x > 0, sums, 0)
        self._requantise_error(tensor, sums, trace.error_fracs[layer.name] + weight.operand_frac, trace)

    def _requantise_error(self, tensor: str, sums: Codes, frac: int, trace: Trace) -> None:
        trace.error_bits[tensor] = magnitude_bits(sums), frac
        self.state.error_scales.setdefault(tensor, ScaleHistory().after(magnitude_bits(sums), frac))
        scales = error_scales(tensor, frac, self.state, self.recipe.seed)
        stochastic = self.recipe.error_rounding is Rounding.STOCHASTIC
        random = hash32(element_index(sums.shape), scales.key) if stochastic else None
        wide = shift_round(sums, scales.shift, self.recipe.error_rounding, random)
        trace.errors[tensor] = trace.saturate(wide, OPERAND_BITS, f"error/{tensor}")
        trace.error_fracs[tensor] = scales.frac

    def _weight_gradient(self, layer: MacLayer, trace: Trace) -> None:
        x, dy = trace.activations[layer.inputs[0]], trace.errors[layer.name]
        gradient = trace.accumulated(mac_weight_gradient(layer, x, dy), f"{layer.name}/wg")
        mask = self.state.weight(layer).expanded_mask()
        trace.gradients[f"{layer.name}.weight"] = gradient if mask is None else np.where(mask, gradient, 0)
        if layer.bias:
            trace.gradients[f"{layer.name}.bias"] = trace.accumulated(bias_gradient(dy), f"{layer.name}/wg")

    def _update(self, table: StepTable, trace: Trace) -> None:
        for name, parameter in self.state.parameters.items():
            scales, rounding = table.updates[name], self.recipe.update_rounding
            stochastic = rounding is Rounding.STOCHASTIC
            index = np.arange(parameter.stored.size).reshape(parameter.stored.shape)
            updated = update(
                parameter.stored,
                parameter.momentum,
                trace.gradients[name],
                parameter.formats,
                scales.shifts,
                table.constants,
                rounding,
                hash32(index, scales.key) if stochastic else None,
            )
            parameter.stored[...], parameter.momentum[...] = updated
            parameter.operand_shift = scales.operand_shift
            parameter.magnitude = magnitude_bits(parameter.stored)


def finish_step(state: State, trace: Trace) -> None:
    """Move the scale histories and the sticky flags on by what a step measured, and count the step."""
    for scales, measured in (
        (state.activation_scales, trace.forward_bits),
        (state.error_scales, trace.error_bits),
    ):
        for name, (bits, frac) in measured.items():
            scales[name] = scales[name].after(bits, frac)
    state.overflows |= trace.overflows
    state.step += 1
