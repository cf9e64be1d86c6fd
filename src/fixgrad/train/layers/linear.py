"""Fully connected layer of integer vectors, [images, features]."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fixgrad.train.kernels.convolution import Gradient, Tile, product
from fixgrad.train.layers.mac import MacModule


class Linear(MacModule):
    """FF, NG and WG of a fully connected layer: three integer GEMMs."""

    def feed_forward(self, x: Tensor) -> Iterator[Tile]:
        """FF, y = W x: x [images, in] times W^T [in, out]."""
        yield Tile(slice(0, len(x)), *product(x, self.weight.matrix.t(), self.kernels.path))

    def neuron_gradient(self, dy: Tensor, input_shape: torch.Size) -> Iterator[Tile]:
        """NG, dx = W^T dy: dy [images, out] times W [out, in]."""
        yield Tile(slice(0, len(dy)), *product(dy, self.weight.matrix, self.kernels.path))

    def weight_gradient(self, x: Tensor, dy: Tensor) -> Gradient:
        """WG, dW = dy x^T: dy^T [out, images] times x [images, in]."""
        return product(dy.t(), x, self.kernels.path)
