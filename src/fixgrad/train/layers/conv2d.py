"""Convolution of integer tensors, [images, rows, columns, channels]."""

import torch
from torch import Tensor

from fixgrad.network import layers as description
from fixgrad.train.kernels.convolution import Product, Sum, correlate, slide
from fixgrad.train.kernels.gemm import SAFE_TERMS
from fixgrad.train.kernels.im2col import Pair, Windows, forward_windows, gradient_windows
from fixgrad.train.kernels.live import Live, among_zeros, of_channels, quicker
from fixgrad.train.kernels.taps import share_inside
from fixgrad.train.layers.mac import MacModule

#: Share of products with pixels, and not with the padding, up to which it is tried whether a product for each tap is quicker.
MOST_INSIDE = 0.75


class Conv2d(MacModule):
    """FF, NG and WG of a convolution as three integer GEMMs on im2col matrices (talk, slide "Training process")."""

    layer: description.Conv2d

    def feed_forward(self, x: Tensor) -> Product:
        """FF, y = W x: im2col(x) [pixels, taps * in] times W^T [taps * in, out]."""
        windows = self._windows(x.shape)

        def product(maps: Tensor, weights: Tensor) -> Product:
            return self._slid("ff", maps, weights.flatten(2).transpose(1, 2), windows)

        live = self._live
        if live is None:
            return product(x, self._grouped())
        return self._quicker(
            "ff",
            x,
            lambda: product(x, self._grouped()),
            lambda: among_zeros(
                product(of_channels(x, live.inputs), self._grouped(live)), live.outputs, self.layer.filters
            ),
        )

    def neuron_gradient(self, dy: Tensor, input_shape: torch.Size) -> Product:
        """NG, dx = W^T dy: im2col(dy) [pixels, taps * out] times the flipped W [taps * out, in]."""
        windows = gradient_windows(_size(input_shape), self.layer.kernel, self.layer.geometry)

        def product(maps: Tensor, weights: Tensor) -> Product:
            return self._slid("ng", maps, weights.flip(2, 3).permute(0, 2, 3, 1, 4).flatten(1, 3), windows)

        live = self._live
        if live is None:
            return product(dy, self._grouped())
        return self._quicker(
            "ng",
            dy,
            lambda: product(dy, self._grouped()),
            lambda: among_zeros(
                product(of_channels(dy, live.outputs), self._grouped(live)), live.inputs, self.layer.in_channels
            ),
        )

    def weight_gradient(self, x: Tensor, dy: Tensor, batch: int | None = None) -> Sum:
        """WG, dW = dy x^T: dy^T [out, pixels] times im2col(x) [pixels, taps * in]."""
        shape, live = self.weight.stored.shape, self._live
        fits = (batch or len(x)) * dy.shape[1] * dy.shape[2] <= SAFE_TERMS
        if live is None or not fits:
            return self._correlated(x, dy, fits)
        return self._quicker(
            "wg",
            x,
            lambda: self._correlated(x, dy, fits),
            lambda: self._correlated(of_channels(x, live.inputs), of_channels(dy, live.outputs), fits).placed(
                lambda gradient: live.put_back(gradient, shape)
            ),
        )

    def _correlated(self, x: Tensor, dy: Tensor, fits: bool) -> Sum:
        """The products of WG, tap by tap where maps are so small that this is quicker; `fits`: sums cannot leave 32 bits."""
        windows, groups, kernels = self._windows(x.shape), self.layer.geometry.groups, self.kernels
        if not fits or not self._are_small(x, windows):
            return correlate(x, dy, windows, groups, kernels)
        return quicker(
            ("taps", x.shape, dy.shape, windows, kernels.path, kernels.workers.count),
            lambda: correlate(x, dy, windows, groups, kernels),
            lambda: correlate(x, dy, windows, groups, kernels, by_taps=True),
            kernels.workers.count,
        )

    def _slid(self, phase: str, maps: Tensor, weights: Tensor, windows: Windows) -> Product:
        """The products of FF and NG, likewise."""
        kernels = self.kernels
        if weights.shape[1] > SAFE_TERMS or not self._are_small(maps, windows):
            return slide(maps, weights, windows, kernels)
        return quicker(
            ("taps", phase, maps.shape, weights.shape, windows, kernels.path, kernels.workers.count),
            lambda: slide(maps, weights, windows, kernels),
            lambda: slide(maps, weights, windows, kernels, by_taps=True),
            kernels.workers.count,
        )

    def _are_small(self, maps: Tensor, windows: Windows) -> bool:
        """Whether the taps see so much of the padding that it is worth a trial to leave it out."""
        if windows.spread != (1, 1) or self.layer.geometry.groups > 1 or maps.device.type != "cpu":
            return False
        return share_inside(windows, _size(maps.shape)) <= MOST_INSIDE

    @property
    def _live(self) -> Live | None:
        """Channels of groups are never taken out: each group would keep another number of them."""
        return None if self.layer.geometry.groups > 1 else self.weight.live

    def _grouped(self, live: Live | None = None) -> Tensor:
        """The operand codes as [groups, outputs of a group, rows, columns, inputs of a group], without dead channels."""
        operand = self.weight.operand if live is None else live.of_weights(self.weight.operand)
        return operand.reshape(self.layer.geometry.groups, -1, *operand.shape[1:])

    def _windows(self, shape: torch.Size) -> Windows:
        return forward_windows(_size(shape), self.layer.kernel, self.layer.geometry)


def _size(shape: torch.Size) -> Pair:
    return shape[1], shape[2]
