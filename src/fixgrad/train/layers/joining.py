"""Layers without parameters that have a scale of their own, or make errors anew: they give accumulators, part by part."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fixgrad.network import layers as description
from fixgrad.network.junctions import DROPOUT_FRAC, MAX_ALIGNMENT, Concat, Dropout
from fixgrad.network.scaling import common_frac
from fixgrad.network.windows import RECIPROCAL_FRAC, AdaptiveAvgPool2d, AvgPool2d
from fixgrad.numbers import StreamKey
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.kernels.convolution import Accumulators, Product
from fixgrad.train.kernels.joining import averages
from fixgrad.train.kernels.pointwise import Placement
from fixgrad.train.kernels.scratch import scratch
from fixgrad.train.kernels.tiles import image_tiles

#: Bytes of an accumulator and of the codes around it.
_BYTES = 6



class JoiningModule(nn.Module):
    """A layer without parameters that makes its output anew from accumulators."""

    def __init__(self, layer: description.Layer, kernels: Kernels) -> None:
        super().__init__()
        self.layer = layer
        self.kernels = kernels

    def feed_forward(
        self, inputs: Sequence[Tensor], fracs: Sequence[int], key: StreamKey, place: Placement
    ) -> tuple[Product, int]:
        """Accumulators of the output, and their fractional bits.

        Args:
            inputs, fracs: codes, and their fractional bits.
            key: stream of dropping.
            place: of the images in the global batch.
        """
        raise NotImplementedError

    def neuron_gradient(self, dy: Tensor, shape: torch.Size, key: StreamKey, place: Placement) -> Product:
        """Accumulators of the error of the input of `shape`, from the output's error codes `dy`."""
        raise NotImplementedError


class Add(JoiningModule):
    """The sum of tensors of one shape."""

    def feed_forward(
        self, inputs: Sequence[Tensor], fracs: Sequence[int], key: StreamKey, place: Placement
    ) -> tuple[Product, int]:
        return aligned_sum(inputs, fracs, self.kernels)


class Concatenate(JoiningModule):
    """Tensors one behind the other along the channels."""

    layer: Concat

    def feed_forward(
        self, inputs: Sequence[Tensor], fracs: Sequence[int], key: StreamKey, place: Placement
    ) -> tuple[Product, int]:
        frac, align = common_frac(fracs, MAX_ALIGNMENT), self.kernels.joining.align
        shape = (*inputs[0].shape[:-1], sum(x.shape[-1] for x in inputs))

        def compute(part: slice, out: Tensor) -> None:
            channel = 0
            for x, own in zip(inputs, fracs, strict=True):
                align(x[part], frac - own, out, channel, add=False)
                channel += x.shape[-1]

        return in_parts(torch.Size(shape), inputs[0], self.kernels, compute), frac


class Drop(JoiningModule):
    """Dropout; in evaluation the executor passes it by."""

    layer: Dropout

    def feed_forward(
        self, inputs: Sequence[Tensor], fracs: Sequence[int], key: StreamKey, place: Placement
    ) -> tuple[Product, int]:
        return self._dropped(inputs[0], key, place), fracs[0] + DROPOUT_FRAC

    def neuron_gradient(self, dy: Tensor, shape: torch.Size, key: StreamKey, place: Placement) -> Product:
        return self._dropped(dy, key, place)

    def _dropped(self, codes: Tensor, key: StreamKey, place: Placement) -> Product:
        factor, threshold = self.layer.factor, self.layer.threshold

        def compute(part: slice, out: Tensor) -> None:
            where = place._replace(first=place.first + part.start)
            self.kernels.joining.drop(codes[part], factor, threshold, key, where, out)

        return in_parts(codes.shape, codes, self.kernels, compute)


class Average(JoiningModule):
    """Average pooling over windows of any kind."""

    layer: AvgPool2d | AdaptiveAvgPool2d

    def feed_forward(
        self, inputs: Sequence[Tensor], fracs: Sequence[int], key: StreamKey, place: Placement
    ) -> tuple[Product, int]:
        x = inputs[0]
        windows = averages(*self.layer.spans(_channels_first(x.shape)))
        shape = torch.Size((len(x), len(windows.rows), len(windows.columns), x.shape[3]))

        def compute(part: slice, out: Tensor) -> None:
            self.kernels.joining.average(x[part], windows, out)

        return in_parts(shape, x, self.kernels, compute, x[0].numel()), fracs[0] + RECIPROCAL_FRAC

    def neuron_gradient(self, dy: Tensor, shape: torch.Size, key: StreamKey, place: Placement) -> Product:
        windows = averages(*self.layer.spans(_channels_first(shape)))

        def compute(part: slice, out: Tensor) -> None:
            self.kernels.joining.average_error(dy[part], windows, out)

        return in_parts(shape, dy, self.kernels, compute)


def aligned_sum(parts: Sequence[Tensor], fracs: Sequence[int], kernels: Kernels) -> tuple[Product, int]:
    """The sum of 8-bit codes of several scales, and its fractional bits: see `fixgrad.network.operations.aligned_sum`."""
    frac = common_frac(fracs, MAX_ALIGNMENT)

    def compute(part: slice, out: Tensor) -> None:
        for index, (codes, own) in enumerate(zip(parts, fracs, strict=True)):
            kernels.joining.align(codes[part], frac - own, out, 0, add=index > 0)

    return in_parts(parts[0].shape, parts[0], kernels, compute), frac


def in_parts(
    shape: torch.Size, like: Tensor, kernels: Kernels, compute: Callable[[slice, Tensor], None], more_bytes: int = 0
) -> Product:
    """Accumulators of `shape` that `compute` writes, for some images, into a scratch buffer.

    `more_bytes` are those of an image that are read beside the accumulators.
    """

    def computed(part: slice) -> Accumulators:
        out = scratch("sums", (part.stop - part.start, *shape[1:]), like, torch.int32)
        compute(part, out)
        return Accumulators(out, None)

    tiles = image_tiles(shape[0], shape[1:].numel() * _BYTES + more_bytes, workers=kernels.workers.count)
    return Product(tiles, computed)


def _channels_first(shape: torch.Size) -> tuple[int, int, int]:
    return shape[3], shape[1], shape[2]
