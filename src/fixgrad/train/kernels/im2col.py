"""im2col on int8 feature maps with channels innermost: the lowering of a convolution to one matrix product.

The same windows serve all three GEMMs: FF slides them over the padded input, WG reads those again, and NG slides the
flipped kernel over the error, spread out by the stride.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.train.kernels.scratch import scratch

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the taps of a kernel read a feature map. Pairs are (vertical, horizontal).

    Attributes:
        offset: position of the map's first pixel in the padded map (negative: the map is cut).
        spread: pixels between neighbouring pixels of the map in the padded map; zeros lie between.
        kernel, stride, dilation: of the taps over the padded map.
        outputs: rows and columns of positions.
    """

    offset: Pair
    spread: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    outputs: Pair

    @property
    def padded(self) -> Pair:
        """Size of the padded map: just what the taps reach."""
        (oh, ow), (sh, sw), (dh, dw), (kh, kw) = self.outputs, self.stride, self.dilation, self.kernel
        return (oh - 1) * sh + dh * (kh - 1) + 1, (ow - 1) * sw + dw * (kw - 1) + 1

    def is_identity(self, size: Pair) -> bool:
        """Whether each position reads just its own pixel: a 1x1 kernel without stride or padding."""
        return self.kernel == (1, 1) and self.padded == size and self.offset == (0, 0) and self.stride == (1, 1)


@lru_cache(maxsize=1024)
def pixels_seen(windows: Windows, size: Pair) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which row [outputs, kernel rows] and which column of a map of `size` each tap reads; -1 where it reads a zero."""
    return _along(windows, size, 0), _along(windows, size, 1)


def _along(windows: Windows, size: Pair, axis: int) -> NDArray[np.int64]:
    outputs, taps = np.arange(windows.outputs[axis])[:, None], np.arange(windows.kernel[axis])
    place = outputs * windows.stride[axis] + taps * windows.dilation[axis] - windows.offset[axis]
    pixel, between = np.divmod(place, windows.spread[axis])
    return np.where((between == 0) & (pixel >= 0) & (pixel < size[axis]), pixel, -1).astype(np.int64)


def forward_windows(size: Pair, kernel: Pair, geometry: ConvGeometry) -> Windows:
    """Windows of FF and WG over an input of `size`."""
    outputs = geometry.output_size(*size, *kernel)
    return Windows(geometry.padding, (1, 1), kernel, geometry.stride, geometry.dilation, outputs)


def gradient_windows(size: Pair, kernel: Pair, geometry: ConvGeometry) -> Windows:
    """Windows of NG over the error, for the flipped kernel: one position for each pixel of an input of `size`."""
    (ph, pw), (dh, dw), (kh, kw) = geometry.padding, geometry.dilation, kernel
    offset = dh * (kh - 1) - ph, dw * (kw - 1) - pw
    return Windows(offset, geometry.stride, kernel, (1, 1), geometry.dilation, size)


def im2col(maps: Tensor, windows: Windows) -> Tensor:
    """What each tap sees at each position.

    Args:
        maps: [images, rows, columns, channels], any dtype.

    Returns:
        [images * positions, taps * channels]: taps in raster order, channels innermost; a scratch buffer, or a view of the
        maps for a 1x1 kernel.
    """
    images, height, width, channels = maps.shape
    if windows.is_identity((height, width)):
        return maps.reshape(-1, channels)
    padded = _padded(maps, windows)
    (_, full_width), (oh, ow), (kh, kw) = windows.padded, windows.outputs, windows.kernel
    (sh, sw), (dh, dw) = windows.stride, windows.dilation
    row, image = full_width * channels, windows.padded[0] * full_width * channels
    strides = (image, sh * row, sw * channels, dh * row, dw * channels, 1)
    view = padded.as_strided((images, oh, ow, kh, kw, channels), strides)
    columns = scratch("im2col", tuple(view.shape), maps)
    return columns.copy_(view).view(images * oh * ow, kh * kw * channels)


def _padded(maps: Tensor, windows: Windows) -> Tensor:
    images, height, width, channels = maps.shape
    padded = scratch("padded", (images, *windows.padded, channels), maps).zero_()
    rows, first_row = _placed(height, windows.offset[0], windows.spread[0], windows.padded[0])
    columns, first_column = _placed(width, windows.offset[1], windows.spread[1], windows.padded[1])
    inside = maps[:, rows, columns]
    target = padded[:, first_row :: windows.spread[0], first_column :: windows.spread[1]]
    target[:, : inside.shape[1], : inside.shape[2]] = inside
    return padded


def _placed(extent: int, offset: int, spread: int, room: int) -> tuple[slice, int]:
    """Which of `extent` pixels at offset + i * spread lie within 0..room-1, and the place of the first of them."""
    first = max(0, -(offset // spread))
    last = min(extent, (room - 1 - offset) // spread + 1)
    return slice(first, max(first, last)), offset + first * spread
