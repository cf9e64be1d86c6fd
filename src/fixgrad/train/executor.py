"""The training step in PyTorch: bit for bit that of `fixgrad.network.reference`, at the speed of 8-bit hardware."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fixgrad.errors import DataError, UsageError
from fixgrad.network.cross_entropy import loss_sum
from fixgrad.network.graph import INPUT, Network
from fixgrad.network.junctions import Concat, Dropout
from fixgrad.network.layers import Layer
from fixgrad.network.normalisation import ACCUMULATOR_FRAC
from fixgrad.network.operations import ceiling_code
from fixgrad.network.recipe import OPERAND_BITS, Recipe
from fixgrad.network.reference import finish_step
from fixgrad.network.scaling import ScaleHistory
from fixgrad.network.softmax import ERROR_FRAC, loss_gradient
from fixgrad.network.state import State
from fixgrad.network.step_table import (
    accumulator_scale,
    dropout_key,
    error_accumulator_frac,
    error_scales,
    layer_accumulator_frac,
    needs_input_error,
    output_scales,
    step_table,
)
from fixgrad.numbers import Rounding, StreamKey, bit_length
from fixgrad.train.collective import SINGLE, Collective
from fixgrad.train.kernels.choice import choose_kernels
from fixgrad.train.kernels.convolution import Accumulators, Product, Sum
from fixgrad.train.kernels.gemm import LARGEST_CODE
from fixgrad.train.kernels.pointwise import Placement, combined, on_host
from fixgrad.train.layers import (
    BatchNorm,
    DepthwiseConv2d,
    IntegerParameter,
    JoiningModule,
    LayerModule,
    MacModule,
    PassModule,
    SlidingMaxPool2d,
    build_layer,
)
from fixgrad.train.layers.joining import aligned_sum
from fixgrad.train.step_record import Measurement, StepRecord, StepReport, to_numpy

__all__ = ["StepReport", "TorchExecutor"]

Job = Callable[[], None]


class TorchExecutor(nn.Module):
    """Trains a network step by step, with the verbs and the bits of `fixgrad.network.reference.ReferenceExecutor`.

    All integers of the run are buffers of this module, so that `to()` moves them and `state_dict()` holds them.

    Args:
        network: what to train.
        state: is copied; see `to_state` for the way back. `calibrate` must run once before the first step.
        recipe: formats, rounding and constants.
        total_steps: length of the run, for the schedule.
        device: where to compute.
        path: of integer products: ``"auto"``, ``"int8"``, ``"fp32"`` or ``"fp64"``. All give the same bits.
        collective: the workers that share each batch; every one is given its own images, in the order of the ranks.
        fused: whether pointwise functions may be compiled ones.

    Raises:
        UsageError: an unknown path, or codes wider than 8 bits between two layers with weights.
        FixgradError: the path is not exact on this machine.
    """

    def __init__(
        self,
        network: Network,
        state: State,
        recipe: Recipe,
        total_steps: int,
        device: str | torch.device = "cpu",
        path: str = "auto",
        collective: Collective = SINGLE,
        fused: bool = True,
    ) -> None:
        super().__init__()
        _check_widths(network)
        self.network = network
        self.recipe = recipe
        self.total_steps = total_steps
        self.collective = collective
        self._wanted_path, self._fused = path, fused
        device = torch.device(device)
        self.kernels = choose_kernels(device, path, fused, joins=_joins(network))
        self.layers = nn.ModuleList(build_layer(layer, state, self.kernels, device) for layer in network)
        self._by_name = dict(self._named_integer_parameters())
        parameters = {name: parameter.host for name, parameter in self._by_name.items()}
        self._host = State(
            state.step, parameters, dict(state.activation_scales), dict(state.error_scales), set(state.overflows)
        )

    @property
    def steps_done(self) -> int:
        """The number of updates done."""
        return self._host.step

    @property
    def device(self) -> torch.device:
        """Where the integers lie."""
        return next(self.buffers()).device

    @property
    def is_calibrated(self) -> bool:
        """Whether the tensors have scales."""
        return self.network.logits in self._host.error_scales

    def calibrate(self, x: Any, labels: Any, *, nhwc: bool = False) -> None:
        """Fill the empty scale histories from one batch, layer by layer: forward, loss, backward. Nothing is updated."""
        with self.kernels.workers.alone():
            codes = self._input(x, nhwc)
            run = StepRecord(False, self._place(len(codes)), len(codes))
            self._forward(codes, run, inference=False)
            self._loss(run, self._labels(labels, len(codes)))
            self._backward(run)

    def predict(self, x: Any, *, nhwc: bool = False) -> Tensor:
        """Logit codes [batch, classes], int32 (int8 for logits of 8 bits), with the scales in force."""
        return self._predicted(x, nhwc)[0]

    def logits(self, x: Any, *, nhwc: bool = False) -> Tensor:
        """The values of the logits that `predict` gives, float32."""
        codes, frac = self._predicted(x, nhwc)
        return codes.to(torch.float32) * 2.0**-frac

    def _predicted(self, x: Any, nhwc: bool) -> tuple[Tensor, int]:
        with self.kernels.workers.alone():
            codes = self._input(x, nhwc)
            run = StepRecord(False, Placement(0, len(codes)), len(codes))
            self._forward(codes, run, inference=True)
            return run.activations[self.network.logits], run.fracs[self.network.logits]

    def step(self, x: Any, labels: Any, *, nhwc: bool = False, trace: bool = False) -> StepReport:
        """One training step.

        Args:
            x: int8 codes of -127..127, NumPy or torch: [batch, channels, height, width], with `nhwc`
                [batch, height, width, channels], or [batch, features].
            labels: [batch], 0 to classes - 1.
            trace: whether the report shall carry every tensor of the step.

        Raises:
            UsageError: before `calibrate`.
            DataError: codes or labels of the wrong shape or range.
        """
        return self.finish(self.begin(x, labels, nhwc=nhwc, trace=trace))

    def begin(self, x: Any, labels: Any, *, nhwc: bool = False, trace: bool = False) -> StepRecord:
        """The first half of a step: forward and loss. Nothing is changed; arguments and errors are those of `step`."""
        if not self.is_calibrated:
            raise UsageError("no tensor has a scale yet: call calibrate(x, labels) with one batch before the first step")
        with self.kernels.workers.alone():
            codes = self._input(x, nhwc)
            classes = self._labels(labels, len(codes))
            run = StepRecord(trace, self._place(len(codes)), len(codes))
            self._forward(codes, run, inference=False)
            self._loss(run, classes)
        return run

    def finish(self, run: StepRecord) -> StepReport:
        """The second half: backward, and the update of each layer as soon as its NG is done."""
        with self.kernels.workers.alone():
            run.table = step_table(self.network, self._host, self.recipe, self.total_steps, run.place.batch)
            self._backward(run)
            seen = run.report(self.collective)
        finish_step(self._host, seen)
        return StepReport(
            seen.loss,
            seen.correct,
            seen.saturated,
            seen.overflows,
            seen.forward_bits,
            seen.error_bits,
            seen if run.keep else None,
        )

    def prune(self, parameter: str, mask: NDArray[np.bool_]) -> None:
        """Keep only the kernels or elements of a weight that `mask` [out, in] and earlier masks keep.

        Raises:
            UsageError: the network has no such parameter.
            DataError: the mask's shape is not [out, in] of the parameter.
        """
        if parameter not in self._by_name:
            raise UsageError(f"no parameter {parameter!r} to prune: the network has {', '.join(self._by_name)}")
        self._by_name[parameter].prune(mask)

    def to_state(self) -> State:
        """A copy of everything that the run has to remember, in NumPy."""
        host = self._host
        parameters = {name: parameter.to_parameter() for name, parameter in self._by_name.items()}
        running = {each.layer.name: each.running() for each in self._modules_in_order() if isinstance(each, BatchNorm)}
        scales = dict(host.activation_scales), dict(host.error_scales)
        return State(host.step, parameters, *scales, set(host.overflows), running)

    def get_extra_state(self) -> dict[str, Any]:
        """What `state_dict` keeps beside the buffers: step, scale histories and sticky flags."""
        return {
            "step": self._host.step,
            "activation_scales": {name: scale.exponents for name, scale in self._host.activation_scales.items()},
            "error_scales": {name: scale.exponents for name, scale in self._host.error_scales.items()},
            "overflows": sorted(self._host.overflows),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_extra_state`."""
        host = self._host
        host.step, host.overflows = int(state["step"]), set(state["overflows"])
        host.activation_scales = {name: ScaleHistory(tuple(e)) for name, e in state["activation_scales"].items()}
        host.error_scales = {name: ScaleHistory(tuple(e)) for name, e in state["error_scales"].items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TorchExecutor":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.kernels = choose_kernels(self.device, self._wanted_path, self._fused, joins=_joins(self.network))
        for module in self._modules_in_order():
            module.kernels = self.kernels
        return self

    def _modules_in_order(self) -> Iterator[LayerModule]:
        for module in self.layers:
            assert isinstance(module, LayerModule)
            yield module

    def _named_integer_parameters(self) -> Iterator[tuple[str, IntegerParameter]]:
        for module in self._modules_in_order():
            if isinstance(module, MacModule):
                yield f"{module.layer.name}.weight", module.weight
                if module.bias is not None:
                    yield f"{module.layer.name}.bias", module.bias
            elif isinstance(module, BatchNorm):
                yield module.layer.gamma, module.gamma
                yield module.layer.beta, module.beta

    def _place(self, images: int) -> Placement:
        """Where this worker's images lie in the global batch: behind those of the workers before it."""
        counts = torch.zeros(self.collective.size, dtype=torch.int64)
        counts[self.collective.rank] = images
        self.collective.sum_(counts)
        return Placement(int(counts[: self.collective.rank].sum()), int(counts.sum()))

    def _forward(self, x: Tensor, run: StepRecord, inference: bool) -> None:
        run.activations[INPUT], run.fracs[INPUT] = x, self.network.input_frac
        for module in self._modules_in_order():
            layer = module.layer
            if isinstance(module, MacModule):
                self._feed_forward(module, run)
            elif isinstance(module, BatchNorm):
                self._normalise(module, run, inference)
            elif isinstance(module, JoiningModule):
                if inference and isinstance(layer, Dropout):
                    self._pass_on(layer, run.activations[layer.inputs[0]], run)
                else:
                    self._join(module, run)
            else:
                x, frac = run.activations[layer.inputs[0]], run.fracs[layer.inputs[0]]
                self._pass_on(layer, module.feed_forward(x, frac), run)
            if inference:
                for tensor in {tensor for tensor in layer.inputs if self.network.readers[tensor][-1].layer is layer}:
                    del run.activations[tensor]

    def _feed_forward(self, module: MacModule, run: StepRecord) -> None:
        layer = module.layer
        x, input_frac = run.activations[layer.inputs[0]], run.fracs[layer.inputs[0]]
        frac, shift_of_bias = accumulator_scale(layer, input_frac, self._host)
        self._requantise(layer, module.feed_forward(x), module.aligned_bias(shift_of_bias), frac, run)

    def _normalise(self, module: BatchNorm, run: StepRecord, inference: bool) -> None:
        layer = module.layer
        x, x_frac = run.activations[layer.inputs[0]], run.fracs[layer.inputs[0]]
        if inference:
            found = module.running_statistics(x_frac)
        else:
            found = run.normalised[layer.name] = module.batch_statistics(x, x_frac, run.place.batch, self.collective)
        if layer.name not in self._host.activation_scales:
            frac = ACCUMULATOR_FRAC - module.first_exponent(found)
            self._host.activation_scales[layer.name] = self._measured(layer, module.feed_forward(x, found, frac), None, frac)
        frac = layer_accumulator_frac(layer, (x_frac,), self._host)
        self._requantise(layer, module.feed_forward(x, found, frac), None, frac, run)

    def _join(self, module: JoiningModule, run: StepRecord) -> None:
        layer = module.layer
        inputs = [run.activations[tensor] for tensor in layer.inputs]
        fracs = [run.fracs[tensor] for tensor in layer.inputs]
        product, frac = module.feed_forward(inputs, fracs, self._dropout_key(layer), run.place)
        self._requantise(layer, product, None, frac, run)

    def _pass_on(self, layer: Layer, codes: Tensor, run: StepRecord) -> None:
        run.activations[layer.name], run.fracs[layer.name] = codes, run.fracs[layer.inputs[0]]

    def _requantise(self, layer: Layer, product: Product, bias: Tensor | None, frac: int, run: StepRecord) -> None:
        """Accumulators to the layer's output codes, part by part."""
        pointwise = self.kernels.pointwise
        if layer.name not in self._host.activation_scales:
            self._host.activation_scales[layer.name] = self._measured(layer, product, bias, frac)
        scales = output_scales(layer, frac, self._host)
        codes = self._new_maps(run.batch, layer.name, layer.code_bits)

        def requantise(part: slice) -> Tensor:
            sums, overflow = product.compute(part)
            run.note_overflow(f"{layer.name}/ff", overflow)
            return pointwise.requantise_forward(sums, bias, layer.rectifies, scales.shift, layer.code_bits, codes[part])

        measures = self.kernels.workers.map(requantise, product.tiles)
        run.activations[layer.name], run.fracs[layer.name] = codes, scales.output_frac
        run.forward[layer.name] = Measurement(measures, frac, codes.numel())

    def _measured(self, layer: Layer, product: Product, bias: Tensor | None, frac: int) -> ScaleHistory:
        """The first scale of a layer's output."""
        measure = self.kernels.pointwise.measure_forward
        return self._first_scale(
            self.kernels.workers.map(lambda part: measure(product.compute(part).sums, bias, layer.rectifies), product.tiles),
            frac,
        )

    def _loss(self, run: StepRecord, labels: NDArray[np.int64]) -> None:
        tensor = self.network.logits
        codes, frac = run.activations[tensor], run.fracs[tensor]
        logits = codes.cpu().numpy()
        run.loss_sum = loss_sum(logits, frac, labels)
        run.correct = int((logits.argmax(axis=1) == labels).sum())
        error = torch.from_numpy(loss_gradient(logits, frac, labels)).to(codes.device, torch.int32)
        product = Product([slice(0, len(error))], lambda part: Accumulators(error[part], None))
        for job in self._error_jobs(tensor, tensor, product, ERROR_FRAC, "loss", run):
            job()

    def _backward(self, run: StepRecord) -> None:
        for module in reversed(list(self._modules_in_order())):
            layer = module.layer
            self._add_branches(layer.name, run)
            if layer.name not in run.errors:
                continue  # nothing before it is trained
            if isinstance(module, MacModule):
                self._backward_mac(module, run)
            elif isinstance(module, BatchNorm):
                self._backward_norm(module, run)
            elif layer.rescales_error:
                self._backward_sums(module, run)
            else:
                self._backward_codes(module, run)
            if not run.keep:
                del run.errors[layer.name], run.activations[layer.name]

    def _backward_mac(self, module: MacModule, run: StepRecord) -> None:
        """NG and WG in one round of the workers, then the update: NG reads the weights that the update changes."""
        layer = module.layer
        tensor = layer.inputs[0]
        x, dy = run.activations[tensor], run.errors[layer.name]
        gradients: dict[str, Sum] = {}
        if run.table is not None:
            gradients[f"{layer.name}.weight"] = module.weight_gradient(x, dy, run.place.batch)
            if module.bias is not None:
                gradients[f"{layer.name}.bias"] = module.bias_gradient(dy)
        jobs: list[Job] = [task for gradient in gradients.values() for task in gradient.tasks]
        if needs_input_error(self.network, layer):
            product = module.neuron_gradient(dy, x.shape)
            frac = run.error_fracs[layer.name] + module.weight.host.operand_frac
            jobs += self._sent_jobs(layer, product, frac, run)
        self.kernels.workers.map(lambda job: job(), jobs)
        for name, gradient in gradients.items():
            self._update(name, gradient.total(self.collective, run.place.batch), f"{layer.name}/wg", run)

    def _backward_norm(self, module: BatchNorm, run: StepRecord) -> None:
        """NG from the sums over the batch, then the update of gamma, beta and the running statistics."""
        layer, found = module.layer, run.normalised[module.layer.name]
        x, dy, dy_frac = run.activations[layer.inputs[0]], run.errors[layer.name], run.error_fracs[layer.name]
        sums = module.error_sums(x, dy, self.collective)
        if needs_input_error(self.network, layer):
            name = self.network.error_name(layer.inputs[0], layer)
            if name not in self._host.error_scales:
                frac = ACCUMULATOR_FRAC - module.first_error_exponent(found, dy_frac)
                product = module.neuron_gradient(x, dy, found, sums, frac, dy_frac)
                self._host.error_scales[name] = self._measured_error(name, layer.inputs[0], product, frac, run)
            frac = error_accumulator_frac(layer, name, dy_frac, self._host)
            product = module.neuron_gradient(x, dy, found, sums, frac, dy_frac)
            self.kernels.workers.map(lambda job: job(), self._sent_jobs(layer, product, frac, run))
        if run.table is not None:
            for parameter, gradient in module.gradients(found, sums).items():
                self._update(parameter, Accumulators(gradient, None), f"{layer.name}/wg", run)
            module.average(found)

    def _backward_sums(self, module: LayerModule, run: StepRecord) -> None:
        """NG of a layer without parameters that makes the error anew."""
        layer = module.layer
        x, y, dy = run.activations[layer.inputs[0]], run.activations[layer.name], run.errors[layer.name]
        if isinstance(module, SlidingMaxPool2d):
            product = module.error_sums(x, y, dy)
        else:
            assert isinstance(module, JoiningModule)
            product = module.neuron_gradient(dy, x.shape, self._dropout_key(layer), run.place)
        name = self.network.error_name(layer.inputs[0], layer)
        frac = error_accumulator_frac(layer, name, run.error_fracs[layer.name], self._host)
        self.kernels.workers.map(lambda job: job(), self._sent_jobs(layer, product, frac, run))

    def _backward_codes(self, module: LayerModule, run: StepRecord) -> None:
        """Layers that pass error codes on: sums to each of their inputs, concatenations to each its channels."""
        layer, dy, channel = module.layer, run.errors[module.layer.name], 0
        for tensor in layer.inputs:
            x = run.activations[tensor]
            codes = dy
            if isinstance(layer, Concat):
                codes = dy[..., channel : channel + x.shape[-1]].contiguous()
                channel += x.shape[-1]
            elif isinstance(module, PassModule):
                codes = module.neuron_gradient(x, run.activations[layer.name], dy, run.fracs[tensor])
            if tensor in self.network.trainable:
                self._send_codes(layer, tensor, codes, run)

    def _send_codes(self, layer: Layer, tensor: str, codes: Tensor, run: StepRecord) -> None:
        frac = run.error_fracs[layer.name]
        if self.network.error_name(tensor, layer) != tensor:
            run.sent.setdefault(tensor, []).append((codes, frac))
            return
        if self.network.rectifier_of(tensor) is not self.network.rectifier_of(layer.name):
            gate = self._gate_of(tensor, slice(None), run)
            codes = codes if gate is None else codes * (gate > 0)
        run.errors[tensor], run.error_fracs[tensor] = codes, frac

    def _sent_jobs(self, layer: Layer, product: Product, frac: int, run: StepRecord) -> list[Job]:
        """What makes the error of a layer's input, or what the layer contributes to it, from accumulators."""
        tensor = layer.inputs[0]
        name = self.network.error_name(tensor, layer)
        jobs = self._error_jobs(name, tensor, product, frac, f"{layer.name}/ng", run)
        if name != tensor:
            codes = run.errors[name] if run.keep else run.errors.pop(name)
            run.sent.setdefault(tensor, []).append((codes, run.error_fracs[name]))
        return jobs

    def _add_branches(self, tensor: str, run: StepRecord) -> None:
        """The error of a tensor that several layers read: the sum of what they sent."""
        sent = run.sent.pop(tensor, [])
        if sent:
            product, frac = aligned_sum([codes for codes, _ in sent], [own for _, own in sent], self.kernels)
            self.kernels.workers.map(lambda job: job(), self._error_jobs(tensor, tensor, product, frac, f"{tensor}/sum", run))

    def _gate_of(self, tensor: str, part: slice, run: StepRecord) -> Tensor | None:
        """Codes that are positive where an error passes the rectifier of `tensor`; None without one."""
        rectifier = self.network.rectifier_of(tensor)
        if rectifier is None or tensor == self.network.logits:
            return None
        codes = run.activations[tensor][part]
        ceiling = LARGEST_CODE + 1 if rectifier.ceiling is None else ceiling_code(rectifier.ceiling, run.fracs[tensor])
        return codes if ceiling > LARGEST_CODE else codes * (codes < ceiling)

    def _first_scale(self, measures: list[Tensor], frac: int) -> ScaleHistory:
        largest = on_host(self.collective.max_(combined(measures))).largest
        return ScaleHistory().after(bit_length(largest), frac)

    def _error_jobs(self, name: str, tensor: str, product: Product, frac: int, phase: str, run: StepRecord) -> list[Job]:
        """What makes the error codes of a tensor, or of a part of it by another name, from accumulators, part by part."""
        pointwise = self.kernels.pointwise
        if name not in self._host.error_scales:
            self._host.error_scales[name] = self._measured_error(name, tensor, product, frac, run)
        scales = error_scales(name, frac, self._host, self.recipe.seed)
        key = scales.key if self.recipe.error_rounding is Rounding.STOCHASTIC else None
        codes = self._new_maps(run.batch, tensor, OPERAND_BITS)
        measures: list[Tensor] = []
        run.errors[name], run.error_fracs[name] = codes, scales.frac
        run.backward[name] = Measurement(measures, frac, codes.numel())

        def requantise(part: slice) -> None:
            sums, overflow = product.compute(part)
            run.note_overflow(phase, overflow)
            gate = self._gate_of(tensor, part, run) if name == tensor else None
            place = run.place._replace(first=run.place.first + part.start)
            measures.append(pointwise.requantise_error(sums, gate, scales.shift, key, place, codes[part]))

        return [partial(requantise, part) for part in product.tiles]

    def _measured_error(self, name: str, tensor: str, product: Product, frac: int, run: StepRecord) -> ScaleHistory:
        """The first scale of an error."""

        def measure(part: slice) -> Tensor:
            gate = self._gate_of(tensor, part, run) if name == tensor else None
            return self.kernels.pointwise.measure_error(product.compute(part).sums, gate)

        return self._first_scale(self.kernels.workers.map(measure, product.tiles), frac)

    def _dropout_key(self, layer: Layer) -> StreamKey:
        return dropout_key(self.recipe.seed, self._host.step, layer.name)

    def _new_maps(self, batch: int, tensor: str, bits: int) -> Tensor:
        """An empty tensor of codes, channels innermost."""
        shape = self.network.shapes[tensor]
        narrow = torch.int32 if tensor == self.network.logits else torch.int16
        dtype = torch.int8 if bits <= OPERAND_BITS else narrow
        return torch.empty((batch, *shape[1:], shape[0]), dtype=dtype, device=self.device)

    def _update(self, name: str, gradient: Accumulators, phase: str, run: StepRecord) -> None:
        assert run.table is not None
        parameter = self._by_name[name]
        sums = gradient.sums.view_as(parameter.stored)
        run.note_overflow(phase, gradient.overflow)
        if run.keep:
            run.gradients |= to_numpy({name: parameter.masked(sums)})
        rounding = self.recipe.update_rounding
        parameter.update(sums, run.table.updates[name], run.table.constants, rounding, self.kernels)

    def _input(self, x: Any, nhwc: bool) -> Tensor:
        codes = torch.as_tensor(x)
        shape = self.network.input_shape
        expected = (*shape[1:], shape[0]) if nhwc and len(shape) == 3 else shape
        if tuple(codes.shape[1:]) != tuple(expected) or len(codes) == 0:
            raise DataError(f"the input has shape {tuple(codes.shape)}: {self.network.name} reads (batch, {expected})")
        if codes.is_floating_point() or _exceeds(codes):
            raise DataError(f"the input holds {codes.dtype} beyond 8-bit codes: it must be integers of -127 to 127")
        if codes.dim() == 4 and not nhwc:
            codes = codes.permute(0, 2, 3, 1)
        return codes.to(self.device, torch.int8).contiguous()

    def _labels(self, labels: Any, batch: int) -> NDArray[np.int64]:
        codes = torch.as_tensor(labels).cpu().numpy().astype(np.int64)
        if codes.shape != (batch,):
            raise DataError(f"the labels have shape {codes.shape}: a batch of {batch} images needs ({batch},)")
        if codes.min() < 0 or codes.max() >= self.network.classes:
            raise DataError(
                f"labels go from {codes.min()} to {codes.max()}: {self.network.name} has the classes 0 to "
                f"{self.network.classes - 1}"
            )
        return codes


def _exceeds(codes: Tensor) -> bool:
    """Whether a code lies outside of -127..127."""
    low, high = torch.aminmax(codes)
    return int(low) < -LARGEST_CODE or int(high) > LARGEST_CODE


def _joins(network: Network) -> bool:
    """Whether the functions for anything but chains of matrix products have work to do."""
    return not network.is_chain or any(DepthwiseConv2d.computes(layer) for layer in network.mac_layers)


def _check_widths(network: Network) -> None:
    for layer in network.mac_layers:
        tensor = layer.inputs[0]
        if network.code_bits(tensor) > OPERAND_BITS:
            bits, source = network.code_bits(tensor), network.source_of(tensor)
            raise UsageError(f"{layer.name} reads codes of {bits} bits from {source}: operands have {OPERAND_BITS}")
