"""FF of every layer, and the loss: the first half of a training step, and all of an evaluation."""


import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fixgrad.network.cross_entropy import loss_sum
from fixgrad.network.graph import INPUT
from fixgrad.network.junctions import Dropout
from fixgrad.network.layers import Layer
from fixgrad.network.normalisation import ACCUMULATOR_FRAC, OUTPUT_EXPONENT
from fixgrad.network.scaling import ScaleHistory
from fixgrad.network.softmax import ERROR_FRAC, loss_gradient
from fixgrad.network.step_table import accumulator_scale, layer_accumulator_frac, output_scales
from fixgrad.train.kernels.convolution import Accumulators, Product
from fixgrad.train.layers import BatchNorm, JoiningModule, MacModule
from fixgrad.train.passes import Passes
from fixgrad.train.step_record import Measurement, StepRecord


class ForwardPass(Passes):
    """The executor's way forward."""

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
            self._host.activation_scales[layer.name] = self._measured(
                layer, module.feed_forward(x, found, frac), None, frac, OUTPUT_EXPONENT
            )
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

    def _measured(
        self, layer: Layer, product: Product, bias: Tensor | None, frac: int, otherwise: int | None = None
    ) -> ScaleHistory:
        """The first scale of a layer's output."""
        measure = self.kernels.pointwise.measure_forward
        return self._first_scale(
            self.kernels.workers.map(lambda part: measure(product.compute(part).sums, bias, layer.rectifies), product.tiles),
            frac,
            otherwise,
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
