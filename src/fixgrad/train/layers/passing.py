"""Layers without weights: they pass codes on in the format in which they come."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fixgrad.network import junctions, windows
from fixgrad.network import layers as description
from fixgrad.network.operations import ceiling_code
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.kernels.convolution import Product
from fixgrad.train.kernels.gemm import LARGEST_CODE
from fixgrad.train.kernels.tiles import image_tiles
from fixgrad.train.layers.joining import in_parts


class PassModule(nn.Module):
    """A layer without weights."""

    def __init__(self, layer: description.Layer, kernels: Kernels) -> None:
        super().__init__()
        self.layer = layer
        self.kernels = kernels

    def feed_forward(self, x: Tensor, frac: int = 0) -> Tensor:
        """Output codes of the input codes `x` with `frac` fractional bits."""
        raise NotImplementedError

    def neuron_gradient(self, x: Tensor, y: Tensor, dy: Tensor, frac: int = 0) -> Tensor:
        """Error codes of the input `x` with `frac` fractional bits, from the output `y` and its error `dy`."""
        raise NotImplementedError


class ReLU(PassModule):
    """A rectifier that stands alone."""

    def feed_forward(self, x: Tensor, frac: int = 0) -> Tensor:
        """Negative codes become zero."""
        return x.clamp_min(0)

    def neuron_gradient(self, x: Tensor, y: Tensor, dy: Tensor, frac: int = 0) -> Tensor:
        """The error passes where the input is positive."""
        return dy * (x > 0)


class ReLU6(PassModule):
    """A rectifier with a ceiling."""

    def feed_forward(self, x: Tensor, frac: int = 0) -> Tensor:
        """Negative codes become zero, those above 6 become 6."""
        return x.clamp(0, min(ceiling_code(6, frac), LARGEST_CODE))

    def neuron_gradient(self, x: Tensor, y: Tensor, dy: Tensor, frac: int = 0) -> Tensor:
        """The error passes where the input is above 0 and below 6."""
        ceiling = ceiling_code(6, frac)
        passes = (x > 0) & (x < ceiling) if ceiling <= LARGEST_CODE else x > 0
        return dy * passes


class MaxPool2d(PassModule):
    """Maximum over windows that do not overlap, of [images, rows, columns, channels]."""

    layer: description.MaxPool2d

    def feed_forward(self, x: Tensor, frac: int = 0) -> Tensor:
        """Largest code of each window; rows and columns that fill no window are left out."""
        (rows, columns), pointwise = self.layer.window, self.kernels.pointwise
        y = x.new_empty((x.shape[0], x.shape[1] // rows, x.shape[2] // columns, x.shape[3]))
        self.kernels.workers.map(lambda part: pointwise.pool(x[part], (rows, columns), y[part]), self._parts(x))
        return y

    def neuron_gradient(self, x: Tensor, y: Tensor, dy: Tensor, frac: int = 0) -> Tensor:
        """The error goes to the first maximum of its window."""
        dx, pointwise, window = torch.empty_like(x), self.kernels.pointwise, self.layer.window
        self.kernels.workers.map(
            lambda part: pointwise.pool_error(x[part], y[part], dy[part], window, dx[part]), self._parts(x)
        )
        return dx

    def _parts(self, x: Tensor) -> list[slice]:
        return image_tiles(len(x), x[0].numel(), workers=self.kernels.workers.count)


class SlidingMaxPool2d(PassModule):
    """Maximum over windows of any stride, padding and dilation."""

    layer: windows.SlidingMaxPool2d

    def feed_forward(self, x: Tensor, frac: int = 0) -> Tensor:
        """Largest code of each window."""
        window, geometry = self.layer.window, self.layer.geometry
        y = x.new_empty((len(x), *geometry.output_size(x.shape[1], x.shape[2], *window), x.shape[3]))
        tiles = image_tiles(len(x), x[0].numel() + y[0].numel(), workers=self.kernels.workers.count)
        slide = self.kernels.joining.slide_maxima
        self.kernels.workers.map(lambda part: slide(x[part], window, geometry, y[part]), tiles)
        return y

    def neuron_gradient(self, x: Tensor, y: Tensor, dy: Tensor, frac: int = 0) -> Tensor:
        """The error goes to the first maximum of its window, where no two windows overlap."""
        dx = torch.empty_like(x)
        tiles = image_tiles(len(x), 2 * x[0].numel(), workers=self.kernels.workers.count)
        self.kernels.workers.map(lambda part: self._scatter(x[part], y[part], dy[part], dx[part]), tiles)
        return dx

    def error_sums(self, x: Tensor, y: Tensor, dy: Tensor) -> Product:
        """Accumulators of the error of the input, where windows overlap."""
        return in_parts(x.shape, x, self.kernels, lambda part, out: self._scatter(x[part], y[part], dy[part], out))

    def _scatter(self, x: Tensor, y: Tensor, dy: Tensor, out: Tensor) -> None:
        self.kernels.joining.slide_errors(x, y, dy, self.layer.window, self.layer.geometry, out)


class PadChannels(PassModule):
    """Zero channels before and behind."""

    layer: junctions.PadChannels

    def feed_forward(self, x: Tensor, frac: int = 0) -> Tensor:
        """A copy with more channels."""
        return F.pad(x, (self.layer.before, self.layer.behind))

    def neuron_gradient(self, x: Tensor, y: Tensor, dy: Tensor, frac: int = 0) -> Tensor:
        """The error of the channels that were there."""
        return dy[..., self.layer.before : self.layer.before + x.shape[-1]].contiguous()


class Flatten(PassModule):
    """[images, rows, columns, channels] as [images, features], the features in the order channel, row, column."""

    def feed_forward(self, x: Tensor, frac: int = 0) -> Tensor:
        """A view where a map has one pixel, else a copy."""
        return x if x.dim() == 2 else x.permute(0, 3, 1, 2).flatten(1)

    def neuron_gradient(self, x: Tensor, y: Tensor, dy: Tensor, frac: int = 0) -> Tensor:
        """The error as a feature map again."""
        if x.dim() == 2:
            return dy
        images, rows, columns, channels = x.shape
        return dy.reshape(images, channels, rows, columns).permute(0, 2, 3, 1).contiguous()
