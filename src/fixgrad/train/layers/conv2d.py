"""Convolution of integer tensors, [images, rows, columns, channels]."""

import torch
from torch import Tensor

from fixgrad.network import layers as description
from fixgrad.train.kernels.convolution import Product, Sum, correlate, slide
from fixgrad.train.kernels.im2col import Pair, Windows, forward_windows, gradient_windows
from fixgrad.train.layers.mac import MacModule


class Conv2d(MacModule):
    """FF, NG and WG of a convolution as three integer GEMMs on im2col matrices (talk, slide "Training process")."""

    layer: description.Conv2d

    def feed_forward(self, x: Tensor) -> Product:
        """FF, y = W x: im2col(x) [pixels, taps * in] times W^T [taps * in, out]."""
        return slide(x, self._grouped().flatten(2).transpose(1, 2), self._windows(x.shape), self.kernels)

    def neuron_gradient(self, dy: Tensor, input_shape: torch.Size) -> Product:
        """NG, dx = W^T dy: im2col(dy) [pixels, taps * out] times the flipped W [taps * out, in]."""
        flipped = self._grouped().flip(2, 3).permute(0, 2, 3, 1, 4).flatten(1, 3)
        windows = gradient_windows(_size(input_shape), self.layer.kernel, self.layer.geometry)
        return slide(dy, flipped, windows, self.kernels)

    def weight_gradient(self, x: Tensor, dy: Tensor) -> Sum:
        """WG, dW = dy x^T: dy^T [out, pixels] times im2col(x) [pixels, taps * in]."""
        return correlate(x, dy, self._windows(x.shape), self.layer.geometry.groups, self.kernels)

    def _grouped(self) -> Tensor:
        """The operand codes as [groups, outputs of a group, rows, columns, inputs of a group]."""
        operand = self.weight.operand
        return operand.reshape(self.layer.geometry.groups, -1, *operand.shape[1:])

    def _windows(self, shape: torch.Size) -> Windows:
        return forward_windows(_size(shape), self.layer.kernel, self.layer.geometry)


def _size(shape: torch.Size) -> Pair:
    return shape[1], shape[2]
