"""Layers without weights: they pass codes on in the format in which they come."""

import torch
from torch import Tensor, nn

from fixgrad.network import layers as description
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.kernels.tiles import image_tiles


class PassModule(nn.Module):
    """A layer without weights."""

    def __init__(self, layer: description.Layer, kernels: Kernels) -> None:
        super().__init__()
        self.layer = layer
        self.kernels = kernels

    def feed_forward(self, x: Tensor) -> Tensor:
        """Output codes of the input codes `x`."""
        raise NotImplementedError

    def neuron_gradient(self, x: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """Error codes of the input `x`, from the output `y` and its error `dy`."""
        raise NotImplementedError


class ReLU(PassModule):
    """A rectifier that stands alone."""

    def feed_forward(self, x: Tensor) -> Tensor:
        """Negative codes become zero."""
        return x.clamp_min(0)

    def neuron_gradient(self, x: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """The error passes where the input is positive."""
        return dy * (x > 0)


class MaxPool2d(PassModule):
    """Maximum over windows that do not overlap, of [images, rows, columns, channels]."""

    layer: description.MaxPool2d

    def feed_forward(self, x: Tensor) -> Tensor:
        """Largest code of each window; rows and columns that fill no window are left out."""
        (rows, columns), pointwise = self.layer.window, self.kernels.pointwise
        y = x.new_empty((x.shape[0], x.shape[1] // rows, x.shape[2] // columns, x.shape[3]))
        self.kernels.workers.map(lambda part: pointwise.pool(x[part], (rows, columns), y[part]), self._parts(x))
        return y

    def neuron_gradient(self, x: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """The error goes to the first maximum of its window."""
        dx, pointwise, window = torch.empty_like(x), self.kernels.pointwise, self.layer.window
        self.kernels.workers.map(
            lambda part: pointwise.pool_error(x[part], y[part], dy[part], window, dx[part]), self._parts(x)
        )
        return dx

    def _parts(self, x: Tensor) -> list[slice]:
        return image_tiles(len(x), x[0].numel(), workers=self.kernels.workers.count)


class Flatten(PassModule):
    """[images, rows, columns, channels] as [images, features], the features in the order channel, row, column."""

    def feed_forward(self, x: Tensor) -> Tensor:
        """A view where a map has one pixel, else a copy."""
        return x if x.dim() == 2 else x.permute(0, 3, 1, 2).flatten(1)

    def neuron_gradient(self, x: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """The error as a feature map again."""
        if x.dim() == 2:
            return dy
        images, rows, columns, channels = x.shape
        return dy.reshape(images, channels, rows, columns).permute(0, 2, 3, 1).contiguous()
