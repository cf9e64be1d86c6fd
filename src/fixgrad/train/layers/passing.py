"""Layers without weights: they pass codes on in the format in which they come."""

from torch import Tensor, nn

from fixgrad.network import layers as description
from fixgrad.train.kernels.choice import Kernels


class PassModule(nn.Module):
    """A layer without weights."""

    def __init__(self, layer: description.Layer, kernels: Kernels) -> None:
        super().__init__()
        self.layer = layer
        self.kernels = kernels

    def feed_forward(self, x: Tensor) -> Tensor:
        """Output codes."""
        raise NotImplementedError

    def neuron_gradient(self, x: Tensor, dy: Tensor) -> Tensor:
        """Error codes of the input `x`."""
        raise NotImplementedError


class ReLU(PassModule):
    """A rectifier that stands alone."""

    def feed_forward(self, x: Tensor) -> Tensor:
        """Negative codes become zero."""
        return x.clamp_min(0)

    def neuron_gradient(self, x: Tensor, dy: Tensor) -> Tensor:
        """The error passes where the input is positive."""
        return self.kernels.pointwise.rectify_error(x, dy)


class MaxPool2d(PassModule):
    """Maximum over windows that do not overlap, of [images, rows, columns, channels]."""

    layer: description.MaxPool2d

    def feed_forward(self, x: Tensor) -> Tensor:
        """Largest code of each window; rows and columns that fill no window are left out."""
        return self.kernels.pointwise.pool(x, self.layer.window)

    def neuron_gradient(self, x: Tensor, dy: Tensor) -> Tensor:
        """The error goes to the first maximum of its window."""
        return self.kernels.pointwise.pool_error(x, dy, self.layer.window)


class Flatten(PassModule):
    """[images, rows, columns, channels] as [images, features], the features in the order channel, row, column."""

    def feed_forward(self, x: Tensor) -> Tensor:
        """A view where a map has one pixel, else a copy."""
        return x if x.dim() == 2 else x.permute(0, 3, 1, 2).flatten(1)

    def neuron_gradient(self, x: Tensor, dy: Tensor) -> Tensor:
        """The error as a feature map again."""
        if x.dim() == 2:
            return dy
        images, rows, columns, channels = x.shape
        return dy.reshape(images, channels, rows, columns).permute(0, 2, 3, 1).contiguous()
