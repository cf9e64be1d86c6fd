"""Fully connected layer of integer vectors, [images, features]."""

import torch
from torch import Tensor

from fixgrad.train.kernels.convolution import Product, Sum, correlate_rows, multiply_rows
from fixgrad.train.layers.mac import MacModule


class Linear(MacModule):
    """FF, NG and WG of a fully connected layer: three integer GEMMs (talk, slide "Training process")."""

    def feed_forward(self, x: Tensor) -> Product:
        """FF, y = W x: x [images, in] times W^T [in, out]."""
        return multiply_rows(x, self.weight.operand.t(), self.kernels)

    def neuron_gradient(self, dy: Tensor, input_shape: torch.Size) -> Product:
        """NG, dx = W^T dy: dy [images, out] times W [out, in]."""
        return multiply_rows(dy, self.weight.operand, self.kernels)

    def weight_gradient(self, x: Tensor, dy: Tensor) -> Sum:
        """WG, dW = dy x^T: dy^T [out, images] times x [images, in]."""
        return correlate_rows(x, dy, self.kernels)
