"""Fully connected layer of integer vectors, [images, features]."""

import torch
from torch import Tensor

from fixgrad.train.kernels.convolution import Product, Sum, correlate_rows, multiply_rows
from fixgrad.train.kernels.gemm import SAFE_TERMS
from fixgrad.train.kernels.live import Live, among_zeros, of_channels
from fixgrad.train.layers.mac import MacModule


class Linear(MacModule):
    """FF, NG and WG of a fully connected layer: three integer GEMMs (talk, slide "Training process")."""

    def feed_forward(self, x: Tensor) -> Product:
        """FF, y = W x: x [images, in] times W^T [in, out]."""
        return self._product("ff", x, self.weight.operand.t())

    def neuron_gradient(self, dy: Tensor, input_shape: torch.Size) -> Product:
        """NG, dx = W^T dy: dy [images, out] times W [out, in]."""
        return self._product("ng", dy, self.weight.operand)

    def _product(self, phase: str, x: Tensor, weights: Tensor) -> Product:
        """x [images, K] times weights [K, N]."""
        live = self.weight.live
        if live is None:
            return multiply_rows(x, weights, self.kernels)
        read, made = (live.inputs, live.outputs) if phase == "ff" else (live.outputs, live.inputs)

        def narrow() -> Product:
            left = Live(inputs=made, outputs=read).of_weights(weights)
            return among_zeros(multiply_rows(of_channels(x, read), left, self.kernels), made, weights.shape[1])

        return self._quicker(phase, x, lambda: multiply_rows(x, weights, self.kernels), narrow)

    def weight_gradient(self, x: Tensor, dy: Tensor, batch: int | None = None) -> Sum:
        """WG, dW = dy x^T: dy^T [out, images] times x [images, in]."""
        live, shape = self.weight.live, self.weight.stored.shape
        if live is None or (batch or len(x)) > SAFE_TERMS:
            return correlate_rows(x, dy, self.kernels)

        def narrow() -> Sum:
            left = correlate_rows(of_channels(x, live.inputs), of_channels(dy, live.outputs), self.kernels)
            return left.placed(lambda gradient: live.put_back(gradient, shape))

        return self._quicker("wg", x, lambda: correlate_rows(x, dy, self.kernels), narrow)
