"""Depthwise convolution: a kernel of its own for each channel, which is no matrix product."""

import torch
from torch import Tensor

from fixgrad.network import Conv2d as Conv2dLayer
from fixgrad.network import MacLayer
from fixgrad.train.kernels.convolution import Part, Product, Sum
from fixgrad.train.kernels.tiles import image_tiles
from fixgrad.train.layers.conv2d import Conv2d
from fixgrad.train.layers.joining import in_parts


class DepthwiseConv2d(Conv2d):
    """FF, NG and WG of a convolution whose groups are single channels. The integers are those of `Conv2d`."""

    @staticmethod
    def computes(layer: MacLayer) -> bool:
        """Whether each channel of the layer has just one kernel, and gives one channel."""
        return isinstance(layer, Conv2dLayer) and 1 < layer.geometry.groups == layer.in_channels == layer.filters

    def feed_forward(self, x: Tensor) -> Product:
        """FF, y = W x."""
        layer, weights = self.layer, self._taps()
        shape = torch.Size((len(x), *layer.geometry.output_size(x.shape[1], x.shape[2], *layer.kernel), layer.filters))
        compute = self.kernels.joining.depthwise
        return in_parts(
            shape, x, self.kernels, lambda part, out: compute(x[part], weights, layer.kernel, layer.geometry, out), x[0].numel()
        )

    def neuron_gradient(self, dy: Tensor, input_shape: torch.Size) -> Product:
        """NG, dx = W^T dy."""
        layer, weights, compute = self.layer, self._taps(), self.kernels.joining.depthwise_error
        return in_parts(
            input_shape, dy, self.kernels, lambda part, out: compute(dy[part], weights, layer.kernel, layer.geometry, out)
        )

    def weight_gradient(self, x: Tensor, dy: Tensor, batch: int | None = None) -> Sum:
        """WG, dW = dy x^T."""
        layer, joining = self.layer, self.kernels.joining

        def part(images: slice) -> tuple[slice, Part]:
            def compute(out: Tensor | None) -> Tensor:
                sums = joining.depthwise_gradient(x[images], dy[images], layer.kernel, layer.geometry).t()
                return sums.contiguous() if out is None else out.copy_(sums)

            return slice(0, layer.filters), compute

        tiles = image_tiles(len(x), x[0].numel() + dy[0].numel(), workers=self.kernels.workers.count)
        shape, positions = tuple(self.weight.stored.shape), dy.shape[1] * dy.shape[2]
        return Sum([part(images) for images in tiles], shape, len(x), positions, x.device)

    def _taps(self) -> Tensor:
        """The operand codes as [taps, channels]."""
        return self.weight.operand.flatten(1).t().contiguous()
