"""FF, NG and WG as tiles of integer GEMMs; feature maps are [images, rows, columns, channels]."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from fixgrad.train.collective import SINGLE, Collective
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.kernels.gemm import SAFE_TERMS, GemmPath, gemm, gemm_exact, wrap
from fixgrad.train.kernels.im2col import Windows
from fixgrad.train.kernels.scratch import scratch
from fixgrad.train.kernels.taps import taps_inside
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


#: Computes a part of a sum, into the tensor given or else into a scratch buffer.
Part = Callable[[Tensor | None], Tensor]


class Sum:
    """A sum of many parts, the products of WG, which any thread adds in any order.

    Args:
        parts: each adds to some rows of the result, which no other part cuts.
        shape: of the result; its rows are the first dimension.
        images, positions: products in a sum, positions for each image: they decide whether it can leave 32 bits.
        device: of the result.

    Attributes:
        tasks: to be run once each, by any thread.
    """

    def __init__(
        self, parts: list[tuple[slice, Part]], shape: tuple[int, ...], images: int, positions: int, device: torch.device
    ) -> None:
        self.tasks = [partial(self._add, rows, compute) for rows, compute in parts]
        self._shape = shape
        self._images, self._positions = images, positions
        dtype = torch.int32 if images * positions <= SAFE_TERMS else torch.int64
        self._sums = torch.empty((shape[0], prod(shape[1:])), dtype=dtype, device=device)
        self._placed: Callable[[Tensor], Tensor] | None = None
        self._owners: dict[int, int] = {}
        self._own: dict[tuple[int, int], tuple[slice, Tensor]] = {}

    def placed(self, place: Callable[[Tensor], Tensor]) -> "Sum":
        """The same as a part of a larger tensor, which `place` makes of it."""
        self._placed = place
        return self

    def _add(self, rows: slice, compute: Part) -> None:
        """The first thread at some rows adds in the result, each other one in a tensor of its own."""
        thread = threading.get_ident()
        mine = rows.start, thread
        if mine in self._own:
            self._own[mine][1].add_(compute(None))
            return
        first = self._owners.setdefault(rows.start, thread) == thread
        target = self._sums[rows]
        self._own[mine] = rows, compute(target if first else torch.empty_like(target))

    def total(self, collective: Collective = SINGLE, batch: int | None = None) -> Accumulators:
        """The sum over all workers, once all tasks are done.

        Args:
            collective: the workers.
            batch: images of all of them; None: those of this one.
        """
        for (start, thread), (rows, own) in self._own.items():
            if self._owners[start] != thread:
                self._sums[rows] += own
        sums = self._sums.view(self._shape)
        if self._placed is not None:  # before workers meet: they may have decided differently
            sums = self._placed(sums)
        if (batch or self._images) * self._positions <= SAFE_TERMS:
            return Accumulators(collective.sum_(sums), None)
        return Accumulators(*wrap(collective.sum_(sums.to(torch.int64))))


def multiply(a: Tensor, b: Tensor, path: GemmPath) -> Accumulators:
    """a [M, K] times b [K, N] in a scratch buffer, with the overflow flag of its accumulators."""
    if a.shape[1] <= SAFE_TERMS:
        return Accumulators(gemm(a, b, path, _scratch_sums(a, b)), None)
    return Accumulators(*wrap(gemm_exact(a, b, path)))


def multiply_rows(a: Tensor, b: Tensor, kernels: Kernels) -> Product:
    """The product of a [images, K] and b [K, N], in parts of the images."""
    tiles = image_tiles(len(a), a.shape[1] + 4 * b.shape[1], workers=kernels.workers.count, device=a.device)
    return Product(tiles, lambda images: multiply(a[images], b, kernels.path))


def slide(maps: Tensor, weights: Tensor, windows: Windows, kernels: Kernels, by_taps: bool = False) -> Product:
    """Slide kernels over feature maps: the products of FF and NG.

    Args:
        maps: int8 [images, rows, columns, groups * channels].
        weights: int8 [groups, taps * channels, outputs of a group], for example a transposed view.
        by_taps: whether each tap is a product of its own, without the zeros that it sees. Only of one group, of maps that are
            not spread out, and of sums that cannot leave 32 bits.

    Returns:
        accumulators [images, *windows.outputs, groups * outputs of a group].
    """
    groups, depth, outputs = weights.shape
    positions, lower = windows.outputs[0] * windows.outputs[1], kernels.pointwise.im2col
    tiles = image_tiles(len(maps), positions * (depth + 4 * outputs), workers=kernels.workers.count, device=maps.device)

    def compute(images: slice) -> Accumulators:
        shape = (-1, *windows.outputs, groups * outputs)
        if by_taps:
            return Accumulators(_slide_taps(maps[images], weights[0], windows, kernels.path), None)
        if groups == 1:
            sums, overflow = multiply(lower(maps[images], windows), weights[0], kernels.path)
            return Accumulators(sums.view(shape), overflow)
        parts = [
            multiply(lower(part, windows), weight, kernels.path).copied()
            for part, weight in zip(maps[images].chunk(groups, dim=3), weights, strict=True)
        ]
        return Accumulators(torch.cat([part.sums for part in parts], dim=1).view(shape), _any(parts))

    return Product(tiles, compute)


def correlate(
    maps: Tensor, errors: Tensor, windows: Windows, groups: int, kernels: Kernels, by_taps: bool = False
) -> Sum:
    """Correlate what the taps saw with the errors: the products of WG.

    Threads share the images where there are many, else the outputs: then no sums of several threads have to be added.

    Args:
        maps: int8 [images, rows, columns, groups * channels].
        errors: int8 [images, *windows.outputs, groups * outputs of a group].
        by_taps: whether each tap is a product of its own, without the zeros that it sees. Sums must not leave 32 bits.

    Returns:
        accumulators [groups * outputs of a group, kernel rows, kernel columns, channels].
    """
    inputs, outputs = maps.shape[3] // groups, errors.shape[3] // groups
    positions, depth = windows.outputs[0] * windows.outputs[1], windows.kernel[0] * windows.kernel[1] * inputs
    terms, team = len(maps) * positions, kernels.workers.count
    tiles = image_tiles(len(maps), positions * depth, _WG_PIXELS * depth, device=maps.device)
    small = terms * depth * outputs < _SMALL_PRODUCTS
    shares = split(outputs, 1 if small or len(tiles) * groups >= 2 * team else team)

    def part(group: int, share: slice, images: slice) -> tuple[slice, Part]:
        rows = slice(group * outputs + share.start, group * outputs + share.stop)
        seen = slice(group * inputs, (group + 1) * inputs)

        def compute(out: Tensor | None) -> Tensor:
            if by_taps:
                return _tap_by_tap(maps[images, :, :, seen], errors[images, :, :, rows], windows, kernels.path, out)
            pixels = errors[images, :, :, rows].reshape(-1, rows.stop - rows.start)
            return _part(pixels, kernels.pointwise.im2col(maps[images, :, :, seen], windows), terms, kernels.path, out)

        return rows, compute

    parts = [part(group, share, images) for group in range(groups) for share in shares for images in tiles]
    return Sum(parts, (groups * outputs, *windows.kernel, inputs), len(maps), positions, maps.device)


def correlate_rows(x: Tensor, dy: Tensor, kernels: Kernels) -> Sum:
    """The products of WG of a linear layer: dy^T [out, images] times x [images, in], in parts of the outputs."""

    def part(rows: slice) -> tuple[slice, Part]:
        return rows, lambda out: _part(dy[:, rows], x, len(x), kernels.path, out)

    small = x.numel() * dy.shape[1] < _SMALL_PRODUCTS
    shares = split(dy.shape[1], 1 if small else kernels.workers.count)
    return Sum([part(share) for share in shares], (dy.shape[1], x.shape[1]), len(x), 1, x.device)


def sum_errors(dy: Tensor, kernels: Kernels) -> Sum:
    """The gradient of a bias: errors [images, ..., out] summed over all but the outputs."""
    tiles = image_tiles(len(dy), dy[0].numel(), workers=kernels.workers.count, device=dy.device)

    def part(images: slice) -> tuple[slice, Part]:
        def compute(out: Tensor | None) -> Tensor:
            sums = kernels.pointwise.column_sums(dy[images])[None]
            return sums if out is None else out.copy_(sums)

        return slice(0, 1), compute

    outputs = dy.shape[-1]
    return Sum([part(images) for images in tiles], (1, outputs), len(dy), dy[0].numel() // outputs, dy.device)


def _part(pixels: Tensor, columns: Tensor, terms: int, path: GemmPath, out: Tensor | None) -> Tensor:
    """pixels^T times columns: int32, or int64 where a sum of all `terms` may leave 32 bits."""
    a = pixels.t()
    if terms > SAFE_TERMS:
        exact = gemm_exact(a, columns, path)
        return exact if out is None else out.copy_(exact)
    return gemm(a, columns, path, _scratch_sums(a, columns) if out is None else out)


def _slide_taps(maps: Tensor, weights: Tensor, windows: Windows, path: GemmPath) -> Tensor:
    """What each tap sees times its weights, without what it sees of the padding: int32 [images, *windows.outputs, outputs]."""
    (images, height, width, channels), outputs = maps.shape, weights.shape[1]
    sums = scratch("sums", (images, *windows.outputs, outputs), maps, torch.int32).zero_()
    for number, tap in enumerate(taps_inside(windows, (height, width))):
        if tap.is_blind:
            continue
        seen = maps[:, tap.pixels[0], tap.pixels[1]]
        rows = scratch("seen", tuple(seen.shape), maps).copy_(seen).view(-1, channels)
        product = scratch("tap", (len(rows), outputs), maps, torch.int32)
        gemm(rows, weights[number * channels : (number + 1) * channels], path, product)
        sums[:, tap.positions[0], tap.positions[1]] += product.view(*seen.shape[:3], outputs)
    return sums


def _tap_by_tap(maps: Tensor, errors: Tensor, windows: Windows, path: GemmPath, out: Tensor | None) -> Tensor:
    """errors^T times what each tap sees, without what it sees of the padding: int32 [outputs, taps * channels]."""
    channels, outputs = maps.shape[3], errors.shape[3]
    shape = outputs, *windows.kernel, channels
    sums = scratch("sums", shape, maps, torch.int32) if out is None else out.view(shape)
    for tap in taps_inside(windows, (maps.shape[1], maps.shape[2])):
        target = sums[:, tap.place[0], tap.place[1]]
        if tap.is_blind:
            target.zero_()
            continue
        seen = maps[:, tap.pixels[0], tap.pixels[1]].reshape(-1, channels)
        pulled = errors[:, tap.positions[0], tap.positions[1]].reshape(-1, outputs)
        target.copy_(gemm(pulled.t(), seen, path, scratch("tap", (outputs, channels), maps, torch.int32)))
    return sums.view(outputs, -1)


def _scratch_sums(a: Tensor, b: Tensor) -> Tensor:
    return scratch("sums", (a.shape[0], b.shape[1]), a, torch.int32)


def _any(parts: list[Accumulators]) -> Tensor | None:
    flags = [part.overflow for part in parts if part.overflow is not None]
    return torch.stack(flags).any() if flags else None
