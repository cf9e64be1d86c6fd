"""What convolutions and linear layers have in common as modules: parameters, and three integer GEMMs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fixgrad.network.layers import MacLayer
from fixgrad.network.state import State
from fixgrad.numbers import align
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.kernels.convolution import Product, Sum, sum_errors
from fixgrad.train.kernels.live import Work, quicker
from fixgrad.train.layers.parameter import IntegerParameter


class MacModule(nn.Module):
    """A layer with weights.

    Attributes:
        layer: its description.
        weight, bias: its parameters.
        kernels: which compute it; all give the same bits.
    """

    bias: IntegerParameter | None

    def __init__(self, layer: MacLayer, state: State, kernels: Kernels, device: torch.device) -> None:
        super().__init__()
        self.layer = layer
        self.kernels = kernels
        self.weight = IntegerParameter(state.weight(layer), device)
        bias = state.bias(layer)
        self.bias = None if bias is None else IntegerParameter(bias, device)

    def feed_forward(self, x: Tensor) -> Product:
        """FF, y = W x: accumulators, tile by tile of images."""
        raise NotImplementedError

    def neuron_gradient(self, dy: Tensor, input_shape: torch.Size) -> Product:
        """NG, dx = W^T dy: accumulators, tile by tile of images."""
        raise NotImplementedError

    def weight_gradient(self, x: Tensor, dy: Tensor, batch: int | None = None) -> Sum:
        """WG, dW = dy x^T: accumulators in the shape of the stored weight, summed over the batch.

        Args:
            batch: images of all workers, where there are others: where their sums may leave 32 bits, dead channels are
                computed too, because the flag that is raised covers them.
        """
        raise NotImplementedError

    def _quicker(self, phase: str, maps: Tensor, whole: Callable[[], Work], narrow: Callable[[], Work]) -> Work:
        """Which of two ways to the same integers is quicker here, by trial."""
        live, kernels = self.weight.live, self.kernels
        assert live is not None
        left = tuple(None if channels is None else len(channels) for channels in live)
        key = phase, maps.shape, self.weight.stored.shape, self.layer, left, kernels.path, kernels.workers.count
        return quicker(key, whole, narrow, kernels.workers.count)

    def bias_gradient(self, dy: Tensor) -> Sum:
        """Sum of the errors over the batch and the pixels, [1, out]."""
        return sum_errors(dy, self.kernels)

    def aligned_bias(self, shift: int) -> Tensor | None:
        """The stored bias at the accumulators' scale: int32 [out], or None without one."""
        if self.bias is None:
            return None
        stored = self.bias.stored
        return torch.from_numpy(align(stored.cpu().numpy(), shift, 32)).to(stored.device, torch.int32)
