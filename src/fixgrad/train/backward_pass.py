"""NG, WG and update of every layer, from the last to the first: the second half of a training step."""

from torch import Tensor

from fixgrad.network.junctions import Concat
from fixgrad.network.layers import Layer
from fixgrad.network.normalisation import ACCUMULATOR_FRAC, same_error_exponent
from fixgrad.network.step_table import error_accumulator_frac, needs_input_error
from fixgrad.train.kernels.convolution import Accumulators, Product, Sum
from fixgrad.train.layers import BatchNorm, JoiningModule, LayerModule, MacModule, PassModule, SlidingMaxPool2d
from fixgrad.train.layers.joining import aligned_sum
from fixgrad.train.passes import Job, Passes
from fixgrad.train.step_record import StepRecord, to_numpy


class BackwardPass(Passes):
    """The executor's way back. Where several layers read a tensor, what they send is added before its own layer is reached."""

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
                self._host.error_scales[name] = self._measured_error(
                    name, layer.inputs[0], product, frac, run, same_error_exponent(dy_frac)
                )
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

    def _update(self, name: str, gradient: Accumulators, phase: str, run: StepRecord) -> None:
        assert run.table is not None
        parameter = self._by_name[name]
        sums = gradient.sums.view_as(parameter.stored)
        run.note_overflow(phase, gradient.overflow)
        if self._watched is not None and name.endswith(".weight"):
            self._watched |= to_numpy({name: sums})
        if run.keep:
            run.gradients |= to_numpy({name: parameter.masked(sums)})
        rounding = self.recipe.update_rounding
        parameter.update(sums, run.table.updates[name], run.table.constants, rounding, self.kernels)
