"""FF, NG and WG as tiles of integer GEMMs; feature maps are [images, rows, columns, channels]."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.kernels.gemm import SAFE_TERMS, GemmPath, gemm, gemm_exact, wrap
from fixgrad.train.kernels.im2col import Windows, im2col
from fixgrad.train.kernels.scratch import scratch
from fixgrad.train.kernels.tiles import image_tiles, split

#: WG adds the sums of its tiles: with this many pixels a tile, the products outweigh the additions.
_WG_PIXELS = 1536
#: Products below this many take less time than waking another thread.
_SMALL_PRODUCTS = 1 << 24


class Accumulators(NamedTuple):
    """Sums of products.

    Attributes:
        sums: int32, wrapped.
        overflow: bool scalar, or None where the length of the sums rules an overflow out.
    """

    sums: Tensor
    overflow: Tensor | None

    def copied(self) -> "Accumulators":
        """The same outside of the scratch buffer."""
        return self._replace(sums=self.sums.clone())


@dataclass(frozen=True, slots=True)
class Product:
    """A product of FF or NG that is computed tile by tile of images, by any thread and in any order.

    Attributes:
        tiles: parts of the batch.
        compute: accumulators of a part: [images, rows, columns, channels] or [images, features].
    """

    tiles: list[slice]
    compute: Callable[[slice], Accumulators]


#: Computes a part of a product of WG, in a scratch buffer or not.
Part = Callable[[bool], Tensor]


class SummedProduct:
    """A product of WG, the sum of many, which any thread adds in any order.

    Args:
        tasks: each computes the int32 sums of a part, wrapped, or int64 ones where they may leave 32 bits, in a scratch
            buffer if asked to. The key of a part says which rows of the result it adds to.
        shape: of the result.
    """

    def __init__(self, tasks: list[tuple[int, Part]], shape: tuple[int, ...]) -> None:
        self.tasks = [partial(self._add, key, compute) for key, compute in tasks]
        self._shape = shape
        self._parts: dict[tuple[int, int], Tensor] = {}

    def _add(self, key: int, compute: Part) -> None:
        """Each thread has a sum of its own."""
        mine = key, threading.get_ident()
        if mine in self._parts:
            self._parts[mine] += compute(True)
        else:
            self._parts[mine] = compute(False)

    def total(self) -> Accumulators:
        """The sum, once all tasks are done."""
        rows: dict[int, Tensor] = {}
        for (key, _), part in sorted(self._parts.items(), key=lambda item: item[0]):
            rows[key] = rows[key].add_(part) if key in rows else part
        sums = torch.cat(list(rows.values())) if len(rows) > 1 else next(iter(rows.values()))
        wrapped = Accumulators(sums, None) if sums.dtype == torch.int32 else Accumulators(*wrap(sums))
        return wrapped._replace(sums=wrapped.sums.reshape(self._shape))


def multiply(a: Tensor, b: Tensor, path: GemmPath) -> Accumulators:
    """a [M, K] times b [K, N] in a scratch buffer, with the overflow flag of its accumulators."""
    if a.shape[1] <= SAFE_TERMS:
        return Accumulators(gemm(a, b, path, _scratch_sums(a, b)), None)
    return Accumulators(*wrap(gemm_exact(a, b, path)))


def multiply_rows(a: Tensor, b: Tensor, kernels: Kernels) -> Product:
    """The product of a [images, K] and b [K, N], in parts of the images."""
    tiles = image_tiles(len(a), a.shape[1] + 4 * b.shape[1], workers=kernels.workers.count)
    return Product(tiles, lambda images: multiply(a[images], b, kernels.path))


def slide(maps: Tensor, weights: Tensor, windows: Windows, kernels: Kernels) -> Product:
    """Slide kernels over feature maps: the products of FF and NG.

    Args:
        maps: int8 [images, rows, columns, groups * channels].
        weights: int8 [groups, taps * channels, outputs of a group], for example a transposed view.

    Returns:
        accumulators [images, *windows.outputs, groups * outputs of a group].
    """
    groups, depth, outputs = weights.shape
    positions = windows.outputs[0] * windows.outputs[1]
    tiles = image_tiles(len(maps), positions * (depth + 4 * outputs), workers=kernels.workers.count)

    def compute(images: slice) -> Accumulators:
        shape = (-1, *windows.outputs, groups * outputs)
        if groups == 1:
            sums, overflow = multiply(im2col(maps[images], windows), weights[0], kernels.path)
            return Accumulators(sums.view(shape), overflow)
        parts = [
            multiply(im2col(part, windows), weight, kernels.path).copied()
            for part, weight in zip(maps[images].chunk(groups, dim=3), weights, strict=True)
        ]
        return Accumulators(torch.cat([part.sums for part in parts], dim=1).view(shape), _any(parts))

    return Product(tiles, compute)


def correlate(maps: Tensor, errors: Tensor, windows: Windows, groups: int, kernels: Kernels) -> SummedProduct:
    """Correlate what the taps saw with the errors: the products of WG.

    Threads share the images where there are many, else the outputs: then no sums of several threads have to be added.

    Args:
        maps: int8 [images, rows, columns, groups * channels].
        errors: int8 [images, *windows.outputs, groups * outputs of a group].

    Returns:
        accumulators [groups * outputs of a group, kernel rows, kernel columns, channels].
    """
    inputs, outputs = maps.shape[3] // groups, errors.shape[3] // groups
    positions, depth = windows.outputs[0] * windows.outputs[1], windows.kernel[0] * windows.kernel[1] * inputs
    terms = len(maps) * positions
    team = kernels.workers.count
    tiles = image_tiles(len(maps), positions * depth, _WG_PIXELS * depth)
    small = terms * depth * outputs < _SMALL_PRODUCTS
    parts = split(outputs, 1 if small or len(tiles) * groups >= 2 * team else team)

    def task(group: int, rows: slice, images: slice) -> Part:
        begin = group * outputs
        channels, seen = slice(begin + rows.start, begin + rows.stop), slice(group * inputs, (group + 1) * inputs)

        def compute(reuse: bool) -> Tensor:
            pixels = errors[images, :, :, channels].reshape(-1, rows.stop - rows.start)
            return _part(pixels, im2col(maps[images, :, :, seen], windows), terms, kernels.path, reuse)

        return compute

    tasks = [
        (group * len(parts) + index, task(group, rows, images))
        for group in range(groups)
        for index, rows in enumerate(parts)
        for images in tiles
    ]
    return SummedProduct(tasks, (groups * outputs, *windows.kernel, inputs))


def correlate_rows(x: Tensor, dy: Tensor, kernels: Kernels) -> SummedProduct:
    """The products of WG of a linear layer: dy^T [out, images] times x [images, in], in parts of the outputs."""

    def task(rows: slice) -> Part:
        return lambda reuse: _part(dy[:, rows], x, len(x), kernels.path, reuse)

    small = x.numel() * dy.shape[1] < _SMALL_PRODUCTS
    parts = split(dy.shape[1], 1 if small else kernels.workers.count)
    return SummedProduct([(key, task(rows)) for key, rows in enumerate(parts)], (dy.shape[1], x.shape[1]))


def _part(pixels: Tensor, columns: Tensor, terms: int, path: GemmPath, reuse: bool) -> Tensor:
    """pixels^T times columns: int32, or int64 where a sum of all `terms` may leave 32 bits."""
    a = pixels.t()
    if terms > SAFE_TERMS:
        return gemm_exact(a, columns, path)
    return gemm(a, columns, path, _scratch_sums(a, columns) if reuse else None)


def _scratch_sums(a: Tensor, b: Tensor) -> Tensor:
    return scratch("sums", (a.shape[0], b.shape[1]), a, torch.int32)


def _any(parts: list[Accumulators]) -> Tensor | None:
    flags = [part.overflow for part in parts if part.overflow is not None]
    return torch.stack(flags).any() if flags else None
