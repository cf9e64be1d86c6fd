"""Batch normalisation on integer tensors: sums on all threads and workers, the map of each channel on the host."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fixgrad.network.batch_norm import BatchNorm as BatchNormLayer
from fixgrad.network.normalisation import (
    RUNNING_MEAN_FRAC,
    RUNNING_VARIANCE_FRAC,
    Coefficients,
    ErrorSums,
    InverseRoot,
    Moments,
    Running,
    averaged,
    backward_map,
    element_count,
    epsilon_code,
    first_error_exponent,
    first_forward_exponent,
    forward_map,
    gamma_gradient,
    inverse_root,
    moments,
    running_moments,
)
from fixgrad.network.operations import ceiling_code
from fixgrad.network.state import State
from fixgrad.train.collective import Collective
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.kernels.convolution import Product
from fixgrad.train.kernels.tiles import image_tiles
from fixgrad.train.layers.joining import in_parts
from fixgrad.train.layers.parameter import IntegerParameter

_LARGEST = (1 << 31) - 1


class Normalised(NamedTuple):
    """What FF of one step found: elements of a channel in the global batch, moments and inverse roots of each channel."""

    x_frac: int
    elements: int
    seen: Moments
    inverse: InverseRoot


class BatchNorm(nn.Module):
    """A layer that normalises each channel. The arithmetic is that of `fixgrad.network.normalisation`.

    Attributes:
        layer: its description.
        gamma, beta: its parameters.
        running_mean, running_variance: int64 [channels].
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, layer: BatchNormLayer, state: State, kernels: Kernels, device: torch.device) -> None:
        super().__init__()
        self.layer = layer
        self.kernels = kernels
        self.gamma = IntegerParameter(state.parameters[layer.gamma], device)
        self.beta = IntegerParameter(state.parameters[layer.beta], device)
        running = state.running[layer.name]
        self.register_buffer("running_mean", torch.from_numpy(running.mean.copy()).to(device))
        self.register_buffer("running_variance", torch.from_numpy(running.variance.copy()).to(device))

    def batch_statistics(self, x: Tensor, x_frac: int, batch: int, collective: Collective) -> Normalised:
        """The moments of codes x [images, ..., channels], a share of a global batch of `batch` images."""
        count = element_count(self.layer, batch, x.shape[1:-1].numel())
        tiles = image_tiles(len(x), x[0].numel() * x.element_size(), workers=self.kernels.workers.count)
        parts = self.kernels.workers.map(lambda part: self.kernels.joining.code_sums(x[part]), tiles)
        total, squares = _over_workers(parts, collective)
        return self._normalised(moments(total, squares, count), x_frac, count)

    def running_statistics(self, x_frac: int) -> Normalised:
        """The running moments, for evaluation."""
        return self._normalised(running_moments(self.running(), x_frac), x_frac, 1)

    def running(self) -> Running:
        """A copy of the running statistics in NumPy."""
        return Running(*(buffer.cpu().numpy().copy() for buffer in (self.running_mean, self.running_variance)))

    def running_values(self) -> dict[str, NDArray[np.float64]]:
        """The running statistics as real numbers, by their names in the network."""
        mean, variance = self.running()
        return {
            "running_mean": np.ldexp(mean.astype(np.float64), -RUNNING_MEAN_FRAC),
            "running_variance": np.ldexp(variance.astype(np.float64), -RUNNING_VARIANCE_FRAC),
        }

    def average(self, found: Normalised) -> None:
        """Move the running statistics on by those of a step."""
        after = averaged(self.layer, self.running(), found.seen, found.elements, found.x_frac)
        self.running_mean.copy_(torch.from_numpy(after.mean))
        self.running_variance.copy_(torch.from_numpy(after.variance))

    def first_exponent(self, found: Normalised) -> int:
        """A bound on the exponent of the output before anything was measured."""
        magnitudes = self.gamma.host.magnitude, self.beta.host.magnitude
        return first_forward_exponent(self._coefficients(), magnitudes, found.elements)

    def first_error_exponent(self, found: Normalised, error_frac: int) -> int:
        """An estimate of the exponent of the input's error before anything was measured."""
        return first_error_exponent(self._coefficients(), found.inverse, found.x_frac, error_frac)

    def feed_forward(self, x: Tensor, found: Normalised, frac: int) -> Product:
        """Accumulators with `frac` fractional bits, cut off at the layer's ceiling."""
        mapped = forward_map(self._coefficients(), found.seen, found.inverse, frac)
        ceiling = _LARGEST if self.layer.ceiling is None else ceiling_code(self.layer.ceiling, frac)
        joining = self.kernels.joining
        return in_parts(x.shape, x, self.kernels, lambda part, out: joining.normalise(x[part], mapped, ceiling, out))

    def error_sums(self, x: Tensor, dy: Tensor, collective: Collective) -> ErrorSums:
        """The sums of errors, and of errors times codes, over the global batch."""
        products = self.kernels.joining.product_sums
        tiles = image_tiles(len(x), 3 * x[0].numel(), workers=self.kernels.workers.count)
        parts = self.kernels.workers.map(lambda part: products(dy[part], x[part]), tiles)
        return ErrorSums(*_over_workers(parts, collective))

    def neuron_gradient(self, x: Tensor, dy: Tensor, found: Normalised, sums: ErrorSums, frac: int, dy_frac: int) -> Product:
        """Accumulators of the error of the input, with `frac` fractional bits."""
        left = frac + found.x_frac - dy_frac
        mapped = backward_map(self._coefficients(), found.seen, found.inverse, sums, found.elements, left)
        joining = self.kernels.joining
        return in_parts(x.shape, x, self.kernels, lambda part, out: joining.denormalise(dy[part], x[part], mapped, out))

    def gradients(self, found: Normalised, sums: ErrorSums) -> dict[str, Tensor]:
        """WG: int32 gradients of gamma and beta, by the parameter's name."""
        gamma, device = gamma_gradient(found.seen, found.inverse, sums), self.gamma.stored.device
        gradients = {self.layer.gamma: gamma, self.layer.beta: sums.error}
        return {name: torch.from_numpy(values.astype(np.int32)).to(device) for name, values in gradients.items()}

    def _normalised(self, seen: Moments, x_frac: int, count: int) -> Normalised:
        return Normalised(x_frac, count, seen, inverse_root(seen.variance, epsilon_code(self.layer, x_frac)))

    def _coefficients(self) -> Coefficients:
        gamma, beta = (each.stored.cpu().numpy().astype(np.int64) for each in (self.gamma, self.beta))
        return Coefficients(gamma, self.gamma.host.formats.stored_frac, beta, self.beta.host.formats.stored_frac)


def _over_workers(parts: list[Tensor], collective: Collective) -> NDArray[np.int64]:
    """The sum of int64 [2, channels] over the parts of this worker and over all workers, exact."""
    sums: NDArray[np.int64] = collective.sum_(torch.stack(parts).sum(dim=0)).cpu().numpy()
    return sums
