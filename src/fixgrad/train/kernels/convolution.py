"""FF, NG and WG of a convolution as tiles of integer GEMMs; feature maps are [images, rows, columns, channels]."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fixgrad.train.kernels.gemm import SAFE_TERMS, GemmPath, gemm, gemm_exact, wrap
from fixgrad.train.kernels.im2col import Windows, im2col, image_tiles


class Tile(NamedTuple):
    """Accumulators of some images of the batch.

    Attributes:
        images: which ones.
        sums: int32 [images, rows, columns, channels] or [images, features], wrapped.
        overflow: bool scalar, or None where the length of the sums rules an overflow out.
    """

    images: slice
    sums: Tensor
    overflow: Tensor | None


class Gradient(NamedTuple):
    """A gradient summed over the batch: int32, wrapped; `overflow` as in `Tile`."""

    sums: Tensor
    overflow: Tensor | None


def product(a: Tensor, b: Tensor, path: GemmPath) -> Gradient:
    """a [M, K] times b [K, N] with the overflow flag of its accumulators."""
    if a.shape[1] <= SAFE_TERMS:
        return Gradient(gemm(a, b, path), None)
    return Gradient(*wrap(gemm_exact(a, b, path)))


def slide(maps: Tensor, kernels: Tensor, windows: Windows, path: GemmPath) -> Iterator[Tile]:
    """Slide kernels over feature maps: the products of FF and NG, tile by tile.

    Args:
        maps: int8 [images, rows, columns, groups * channels].
        kernels: int8 [groups, taps * channels, outputs of a group], for example a transposed view.

    Yields:
        tiles with sums [images, *windows.outputs, groups * outputs of a group].
    """
    groups, depth, outputs = kernels.shape
    for images in image_tiles(len(maps), windows.outputs[0] * windows.outputs[1] * depth):
        shape = (images.stop - images.start, *windows.outputs, outputs)
        parts = [
            product(im2col(part, windows), kernel, path)
            for part, kernel in zip(maps[images].chunk(groups, dim=3), kernels, strict=True)
        ]
        sums = [part.sums.reshape(shape) for part in parts]
        yield Tile(images, sums[0] if groups == 1 else torch.cat(sums, dim=3), _any(parts))


def correlate(maps: Tensor, errors: Tensor, windows: Windows, groups: int, path: GemmPath) -> Gradient:
    """Correlate what the taps saw with the errors: the products of WG.

    Args:
        maps: int8 [images, rows, columns, groups * channels].
        errors: int8 [images, *windows.outputs, groups * outputs of a group].

    Returns:
        int32 [groups * outputs of a group, kernel rows, kernel columns, channels].
    """
    parts = [
        _correlate_group(map_part, error_part, windows, path)
        for map_part, error_part in zip(maps.chunk(groups, dim=3), errors.chunk(groups, dim=3), strict=True)
    ]
    shape = (errors.shape[3], *windows.kernel, maps.shape[3] // groups)
    sums = parts[0].sums if groups == 1 else torch.cat([part.sums for part in parts])
    return Gradient(sums.reshape(shape), _any(parts))


def _correlate_group(maps: Tensor, errors: Tensor, windows: Windows, path: GemmPath) -> Gradient:
    outputs, depth = errors.shape[3], windows.kernel[0] * windows.kernel[1] * maps.shape[3]
    positions = windows.outputs[0] * windows.outputs[1]
    safe = len(maps) * positions <= SAFE_TERMS
    total: Tensor | None = None
    for images in image_tiles(len(maps), positions * depth):
        pixels = errors[images].reshape(-1, outputs)
        multiply = gemm if safe else gemm_exact
        sums = multiply(pixels.t(), im2col(maps[images], windows), path)
        total = sums if total is None else total.add_(sums)
    if total is None:
        raise ValueError("a batch holds one image at least")
    return Gradient(total, None) if safe else Gradient(*wrap(total))


def _any(parts: list[Gradient]) -> Tensor | None:
    flags = [part.overflow for part in parts if part.overflow is not None]
    return torch.stack(flags).any() if flags else None
