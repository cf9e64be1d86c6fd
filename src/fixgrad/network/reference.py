"""One training step in plain NumPy int64: the definition that every executor must equal. Written for reading, not for speed.

FF  y = W x + b        NG  dx = W^T dy        WG  dW = dy x^T        update  W <- W - u
"""

import numpy as np
from numpy.typing import NDArray

from fixgrad.network.batch_norm import BatchNorm
from fixgrad.network.graph import INPUT, Network
from fixgrad.network.junctions import Concat, Dropout
from fixgrad.network.layers import Layer, MacLayer
from fixgrad.network.normalisation import ACCUMULATOR_FRAC, OUTPUT_EXPONENT, same_error_exponent
from fixgrad.network.operations import (
    Codes,
    aligned_sum,
    bias_gradient,
    ceiling_code,
    element_index,
    junction_backward,
    junction_forward,
    mac_forward,
    mac_input_gradient,
    mac_weight_gradient,
    pass_backward,
    pass_forward,
)
from fixgrad.network.recipe import OPERAND_BITS, Recipe
from fixgrad.network.reference_norm import Normalised, average, denormalise, gradients, normalise, normalised
from fixgrad.network.scaling import ScaleHistory, first_history, output_frac
from fixgrad.network.softmax import ERROR_FRAC, loss_gradient, mean_loss
from fixgrad.network.state import State
from fixgrad.network.step_table import (
    StepTable,
    accumulator_scale,
    dropout_key,
    error_accumulator_frac,
    error_scales,
    step_table,
)
from fixgrad.network.trace import Trace
from fixgrad.network.update_rules import check_moments, update_parameter
from fixgrad.numbers import Rounding, StreamKey, align, hash32, magnitude_bits, shift_nearest, shift_round, wrap32


class ReferenceExecutor:
    """Trains a network step by step on a `State`, which it changes in place.

    Args:
        network: what to train.
        state: see `initial_state`; `calibrate` must run once before the first step.
        recipe: formats, rounding and constants.
        total_steps: length of the run, for the schedule.

    Raises:
        UsageError: the state holds the moments of another optimiser.
    """

    def __init__(self, network: Network, state: State, recipe: Recipe, total_steps: int) -> None:
        check_moments(state, recipe.optimiser)
        self.network = network
        self.state = state
        self.recipe = recipe
        self.total_steps = total_steps
        self._normalised: dict[str, Normalised] = {}
        self._watched: dict[str, Codes] | None = None

    def calibrate(self, x: Codes, labels: NDArray[np.integer]) -> None:
        """Fill the empty scale histories from one batch, layer by layer: forward, loss, backward. Nothing is updated."""
        self._run(x, labels)

    def predict(self, x: Codes) -> NDArray[np.integer]:
        """Logit codes [batch, classes], with the scales in force and the running statistics."""
        return self._forward(x, training=False).activations[self.network.logits]

    def step(self, x: Codes, labels: NDArray[np.integer]) -> Trace:
        """One training step on codes `x` [batch, ...] and labels [batch]; returns every tensor of the step."""
        table = step_table(self.network, self.state, self.recipe, self.total_steps, len(labels))
        trace = self._run(x, labels)
        self._update(table, trace)
        finish_step(self.state, trace)
        return trace

    def watch_gradients(self) -> None:
        """The next step keeps WG of dead kernels too, for `take_gradients`."""
        self._watched = {}

    def take_gradients(self) -> dict[str, Codes]:
        """WG of every weight in the step that was watched."""
        taken, self._watched = self._watched or {}, None
        return taken

    def _run(self, x: Codes, labels: NDArray[np.integer]) -> Trace:
        trace = self._forward(x, training=True)
        self._loss(trace, labels)
        self._backward(trace)
        return trace

    def _forward(self, x: Codes, training: bool) -> Trace:
        trace = Trace()
        trace.activations[INPUT], trace.fracs[INPUT] = x, self.network.input_frac
        for layer in self.network:
            if isinstance(layer, MacLayer):
                self._feed_forward(layer, trace)
            elif isinstance(layer, BatchNorm):
                self._normalise(layer, trace, training)
            elif layer.rescales and (training or not isinstance(layer, Dropout)):
                self._join(layer, trace)
            else:
                self._pass_on(layer, trace)
        return trace

    def _feed_forward(self, layer: MacLayer, trace: Trace) -> None:
        x, input_frac = trace.activations[layer.inputs[0]], trace.fracs[layer.inputs[0]]
        frac, shift_of_bias = accumulator_scale(layer, input_frac, self.state)
        sums = trace.accumulated(mac_forward(layer, x, self.state.weight(layer).operand()), f"{layer.name}/ff")
        bias = self.state.bias(layer)
        if bias is not None:
            aligned = align(bias.stored, shift_of_bias, 32).reshape(1, -1, *(1,) * (sums.ndim - 2))
            sums = trace.accumulated(wrap32(sums + aligned), f"{layer.name}/ff")
        self._requantise(layer, sums, frac, trace)

    def _normalise(self, layer: BatchNorm, trace: Trace, training: bool) -> None:
        tensor = layer.inputs[0]
        x = trace.activations[tensor]
        found = self._normalised[layer.name] = normalised(layer, x, trace.fracs[tensor], self.state, training)
        self._requantise(layer, *normalise(layer, x, found, self.state), trace)

    def _join(self, layer: Layer, trace: Trace) -> None:
        inputs = [trace.activations[tensor] for tensor in layer.inputs]
        fracs = [trace.fracs[tensor] for tensor in layer.inputs]
        self._requantise(layer, *junction_forward(layer, inputs, fracs, self._dropout_key(layer)), trace)

    def _pass_on(self, layer: Layer, trace: Trace) -> None:
        x, frac = trace.activations[layer.inputs[0]], trace.fracs[layer.inputs[0]]
        trace.activations[layer.name] = x if isinstance(layer, Dropout) else pass_forward(layer, x, frac)
        trace.fracs[layer.name] = frac

    def _requantise(self, layer: Layer, sums: Codes, frac: int, trace: Trace) -> None:
        """Accumulators to the layer's output codes."""
        if layer.rectifies:
            sums = np.maximum(sums, 0)
        if layer.ceiling is not None:
            sums = np.minimum(sums, ceiling_code(layer.ceiling, frac))
        bits = magnitude_bits(sums)
        trace.forward_bits[layer.name] = bits, frac
        is_norm = isinstance(layer, BatchNorm)
        first = first_history(bits, frac, OUTPUT_EXPONENT) if is_norm else ScaleHistory().after(bits, frac)
        scale = self.state.activation_scales.setdefault(layer.name, first)
        if isinstance(layer, BatchNorm) and ACCUMULATOR_FRAC - scale.exponent != frac:
            # The first measurement: the map is computed again at the scale that follows from it.
            tensor = layer.inputs[0]
            sums, frac = normalise(layer, trace.activations[tensor], self._normalised[layer.name], self.state)
            self._requantise(layer, sums, frac, trace)
            return
        wanted = output_frac(scale.exponent, frac, layer.code_bits)
        wide = shift_nearest(sums, frac - wanted)
        trace.activations[layer.name] = trace.saturate(wide, layer.code_bits, f"activation/{layer.name}")
        trace.fracs[layer.name] = wanted

    def _loss(self, trace: Trace, labels: NDArray[np.integer]) -> None:
        logits, frac = trace.activations[self.network.logits], trace.fracs[self.network.logits]
        trace.loss = mean_loss(logits, frac, labels)
        trace.correct = int((logits.argmax(axis=1) == labels).sum())
        self._requantise_error(self.network.logits, loss_gradient(logits, frac, labels), ERROR_FRAC, trace)

    def _backward(self, trace: Trace) -> None:
        for layer in reversed(self.network.layers):
            self._add_branches(layer.name, trace)
            if layer.name not in trace.errors:
                continue
            self._gradients(layer, trace)
            for position, tensor in enumerate(layer.inputs):
                if tensor in self.network.trainable:
                    self._send_error(layer, position, tensor, trace)

    def _add_branches(self, tensor: str, trace: Trace) -> None:
        """The error of a tensor that several layers read: the sum of what they sent."""
        sent = trace.sent.pop(tensor, [])
        if sent:
            sums, frac = aligned_sum([codes for codes, _ in sent], [own for _, own in sent])
            self._requantise_error(tensor, self._gated(tensor, sums, trace), frac, trace)

    def _send_error(self, layer: Layer, position: int, tensor: str, trace: Trace) -> None:
        """What a layer contributes to the error of its input, which is the whole of it where nobody else reads that."""
        x, dy, dy_frac = trace.activations[tensor], trace.errors[layer.name], trace.error_fracs[layer.name]
        name = self.network.error_name(tensor, layer)
        alone = name == tensor
        if layer.rescales_error:
            sums, frac = self._error_sums(layer, name, trace)
            self._requantise_error(name, self._gated(tensor, sums, trace) if alone else sums, frac, trace)
            codes, dy_frac = trace.errors[name], trace.error_fracs[name]
        else:
            codes = pass_backward(layer, x, self._part_of(layer, position, dy, trace), trace.fracs[tensor])
            if alone and self.network.rectifier_of(tensor) is not self.network.rectifier_of(layer.name):
                codes = self._gated(tensor, codes, trace)
        if alone:
            trace.errors[tensor], trace.error_fracs[tensor] = codes, dy_frac
        else:
            trace.sent.setdefault(tensor, []).append((codes, dy_frac))

    def _part_of(self, layer: Layer, position: int, dy: Codes, trace: Trace) -> Codes:
        """The error of one input of a concatenation."""
        if not isinstance(layer, Concat):
            return dy
        first = sum(self.network.shapes[tensor][0] for tensor in layer.inputs[:position])
        return dy[:, first : first + self.network.shapes[layer.inputs[position]][0]]

    def _error_sums(self, layer: Layer, name: str, trace: Trace) -> tuple[Codes, int]:
        """NG: accumulators of the error of a layer's input, and their fractional bits."""
        tensor = layer.inputs[0]
        x, dy, dy_frac = trace.activations[tensor], trace.errors[layer.name], trace.error_fracs[layer.name]
        if isinstance(layer, MacLayer):
            weight = self.state.weight(layer)
            sums = trace.accumulated(mac_input_gradient(layer, dy, weight.operand(), x.shape[1:]), f"{layer.name}/ng")
            return sums, dy_frac + weight.operand_frac
        if isinstance(layer, BatchNorm):
            return self._denormalise(layer, name, trace)
        return junction_backward(layer, x, dy, self._dropout_key(layer)), error_accumulator_frac(layer, name, dy_frac, self.state)

    def _denormalise(self, layer: BatchNorm, name: str, trace: Trace) -> tuple[Codes, int]:
        tensor, found = layer.inputs[0], self._normalised[layer.name]
        arguments = layer, trace.activations[tensor], trace.errors[layer.name], trace.error_fracs[layer.name], found, name
        sums, frac = denormalise(*arguments, self.state)
        if name not in self.state.error_scales:
            gated = self._gated(tensor, sums, trace) if name == tensor else sums
            otherwise = same_error_exponent(trace.error_fracs[layer.name])
            self.state.error_scales[name] = first_history(magnitude_bits(gated), frac, otherwise)
            sums, frac = denormalise(*arguments, self.state)
        return sums, frac

    def _gated(self, tensor: str, sums: Codes, trace: Trace) -> Codes:
        """The error of a tensor, zero where its rectifier is closed."""
        rectifier, x = self.network.rectifier_of(tensor), trace.activations[tensor]
        if rectifier is None:
            return sums
        open_ = x > 0
        if rectifier.ceiling is not None:
            open_ &= x < ceiling_code(rectifier.ceiling, trace.fracs[tensor])
        return np.where(open_, sums, 0)

    def _requantise_error(self, name: str, sums: Codes, frac: int, trace: Trace) -> None:
        trace.error_bits[name] = magnitude_bits(sums), frac
        self.state.error_scales.setdefault(name, ScaleHistory().after(magnitude_bits(sums), frac))
        scales = error_scales(name, frac, self.state, self.recipe.seed)
        stochastic = self.recipe.error_rounding is Rounding.STOCHASTIC
        random = hash32(element_index(sums.shape), scales.key) if stochastic else None
        wide = shift_round(sums, scales.shift, self.recipe.error_rounding, random)
        trace.errors[name] = trace.saturate(wide, OPERAND_BITS, f"error/{name}")
        trace.error_fracs[name] = scales.frac

    def _gradients(self, layer: Layer, trace: Trace) -> None:
        """WG: the gradients of the layer's parameters."""
        if isinstance(layer, MacLayer):
            self._weight_gradient(layer, trace)
        elif isinstance(layer, BatchNorm):
            found = self._normalised[layer.name]
            trace.gradients |= gradients(layer, trace.activations[layer.inputs[0]], trace.errors[layer.name], found)

    def _weight_gradient(self, layer: MacLayer, trace: Trace) -> None:
        x, dy = trace.activations[layer.inputs[0]], trace.errors[layer.name]
        gradient = trace.accumulated(mac_weight_gradient(layer, x, dy), f"{layer.name}/wg")
        if self._watched is not None:
            self._watched[f"{layer.name}.weight"] = gradient
        mask = self.state.weight(layer).expanded_mask()
        trace.gradients[f"{layer.name}.weight"] = gradient if mask is None else np.where(mask, gradient, 0)
        if layer.bias:
            trace.gradients[f"{layer.name}.bias"] = trace.accumulated(bias_gradient(dy), f"{layer.name}/wg")

    def _dropout_key(self, layer: Layer) -> StreamKey:
        return dropout_key(self.recipe.seed, self.state.step, layer.name)

    def _update(self, table: StepTable, trace: Trace) -> None:
        for name, parameter in self.state.parameters.items():
            scales, rounding = table.updates[name], self.recipe.update_rounding
            stochastic = rounding is Rounding.STOCHASTIC
            index = np.arange(parameter.stored.size).reshape(parameter.stored.shape)
            random = hash32(index, scales.key) if stochastic else None
            update_parameter(parameter, trace.gradients[name], scales, table.constants, rounding, random)
        for layer in self.network.batch_norms:
            average(layer, self._normalised[layer.name], self.state)


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
    state.moment_steps += 1
