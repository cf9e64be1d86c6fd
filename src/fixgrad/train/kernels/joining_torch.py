"""Joining, pooling, dropping and normalising in eager PyTorch integer operations, for any device."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fixgrad.network.normalisation import PRODUCT_FRAC, BackwardMap, ForwardMap
from fixgrad.numbers import StreamKey
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.train.kernels.joining import Averages
from fixgrad.train.kernels.pointwise import Placement
from fixgrad.train.kernels.pointwise_torch import element_index, hash32

_LIMIT = (1 << 31) - 1
_PADDING = -(1 << 15)


class TorchJoining:
    """See `fixgrad.train.kernels.joining.Joining`."""

    def align(self, codes: Tensor, left: int, out: Tensor, channel: int, add: bool) -> None:
        wide = codes.to(torch.int32)
        aligned = wide << left if left >= 0 else _shift_nearest(wide, min(-left, 31))
        target = out[..., channel : channel + codes.shape[-1]]
        if add:
            target += aligned
        else:
            target.copy_(aligned)

    def drop(self, codes: Tensor, factor: int, threshold: int, key: StreamKey, place: Placement, out: Tensor) -> None:
        stays = hash32(element_index(codes.shape, place, codes.device), key) >= threshold
        out.copy_(codes.to(torch.int32) * factor * stays)

    def average(self, maps: Tensor, windows: Averages, out: Tensor) -> None:
        for (i, row), (j, column) in _pairs(windows):
            window = maps[:, row[0] : row[1], column[0] : column[1]]
            out[:, i, j] = window.sum(dim=(1, 2), dtype=torch.int32) * int(windows.reciprocals[i, j])

    def average_error(self, errors: Tensor, windows: Averages, out: Tensor) -> None:
        out.zero_()
        for (i, row), (j, column) in _pairs(windows):
            share = errors[:, i, j].to(torch.int32) * int(windows.reciprocals[i, j])
            out[:, row[0] : row[1], column[0] : column[1]] += share[:, None, None]

    def slide_maxima(self, maps: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor) -> None:
        out.copy_(torch.stack([tap for tap, _ in _taps(maps, window, geometry, out.shape)]).amax(dim=0))

    def slide_errors(
        self, maps: Tensor, pooled: Tensor, errors: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor
    ) -> None:
        (ph, pw), (sh, sw) = geometry.padding, geometry.stride
        images, rows, columns, channels = maps.shape
        padded = torch.zeros((images, rows + 2 * ph, columns + 2 * pw, channels), dtype=torch.int32, device=maps.device)
        open_windows, (oh, ow) = torch.ones_like(pooled, dtype=torch.bool), pooled.shape[1:3]
        for tap, (top, left) in _taps(maps, window, geometry, pooled.shape):
            hit = open_windows & (tap == pooled)
            padded[:, top : top + (oh - 1) * sh + 1 : sh, left : left + (ow - 1) * sw + 1 : sw] += errors * hit
            open_windows &= ~hit
        out.copy_(padded[:, ph : ph + rows, pw : pw + columns])

    def depthwise(self, maps: Tensor, weights: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor) -> None:
        out.zero_()
        for (tap, _), weight in zip(_taps(maps, window, geometry, out.shape, 0), weights, strict=True):
            out += tap * weight

    def depthwise_error(
        self, errors: Tensor, weights: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor
    ) -> None:
        (ph, pw), (sh, sw) = geometry.padding, geometry.stride
        images, rows, columns, channels = out.shape
        padded = out.new_zeros((images, rows + 2 * ph, columns + 2 * pw, channels))
        (oh, ow), wide = errors.shape[1:3], errors.to(torch.int32)
        for (top, left), weight in zip(_places(window, geometry), weights, strict=True):
            padded[:, top : top + (oh - 1) * sh + 1 : sh, left : left + (ow - 1) * sw + 1 : sw] += wide * weight
        out.copy_(padded[:, ph : ph + rows, pw : pw + columns])

    def depthwise_gradient(self, maps: Tensor, errors: Tensor, window: tuple[int, int], geometry: ConvGeometry) -> Tensor:
        taps = _taps(maps, window, geometry, errors.shape, 0)
        return torch.stack([(tap * errors).sum(dim=(0, 1, 2), dtype=torch.int64) for tap, _ in taps])

    def code_sums(self, codes: Tensor) -> Tensor:
        rows = codes.reshape(-1, codes.shape[-1]).to(torch.int64)
        return torch.stack((rows.sum(dim=0), (rows * rows).sum(dim=0)))

    def product_sums(self, errors: Tensor, codes: Tensor) -> Tensor:
        wide, rows = (values.reshape(-1, values.shape[-1]).to(torch.int64) for values in (errors, codes))
        return torch.stack((wide.sum(dim=0), (wide * rows).sum(dim=0)))

    def normalise(self, codes: Tensor, mapped: ForwardMap, ceiling: int, out: Tensor) -> None:
        factor, offset = (_on(values, codes) for values in mapped)
        out.copy_(_cut(codes.to(torch.int64) * factor + offset).clamp_max(ceiling))

    def denormalise(self, errors: Tensor, codes: Tensor, mapped: BackwardMap, out: Tensor) -> None:
        by_error, by_code, offset = (_on(values, codes) for values in mapped)
        out.copy_(_cut(errors.to(torch.int64) * by_error + codes.to(torch.int64) * by_code + offset))


def _pairs(windows: Averages) -> Iterator[tuple[tuple[int, NDArray[np.int64]], tuple[int, NDArray[np.int64]]]]:
    return product(enumerate(windows.rows), enumerate(windows.columns))


def _taps(
    maps: Tensor, window: tuple[int, int], geometry: ConvGeometry, shape: torch.Size, padding: int = _PADDING
) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """What each element of the windows sees, in raster order, as int32, and its place in the padded map."""
    (ph, pw), (sh, sw) = geometry.padding, geometry.stride
    padded = torch.nn.functional.pad(maps.to(torch.int32), (0, 0, pw, pw, ph, ph), value=padding)
    for top, left in _places(window, geometry):
        yield padded[:, top : top + (shape[1] - 1) * sh + 1 : sh, left : left + (shape[2] - 1) * sw + 1 : sw], (top, left)


def _places(window: tuple[int, int], geometry: ConvGeometry) -> Iterator[tuple[int, int]]:
    """Where the taps of the first position lie in the padded map, in raster order."""
    rows, columns = (range(0, size * reach, reach) for size, reach in zip(window, geometry.dilation, strict=True))
    return product(rows, columns)


def _on(values: NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device)


def _cut(products: Tensor) -> Tensor:
    return _shift_nearest(products, PRODUCT_FRAC).clamp(-_LIMIT, _LIMIT)


def _shift_nearest(values: Tensor, shift: int) -> Tensor:
    return (values >> shift) + ((values >> (shift - 1)) & 1) if shift else values
