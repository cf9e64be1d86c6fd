"""The (pixel, tap) pairs that a COMPUTE visits, worked out once for each geometry, straight from the instruction's definition."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.simulate.functional.chip import Rectangle
from fixgrad.simulate.functional.fault import Fault

Ints = NDArray[np.int64]


class Convolution(NamedTuple):
    """The geometry fields of COMPUTE; pairs are (rows, columns)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    size: tuple[int, int]
    transposed: bool


class Visits(NamedTuple):
    """The pairs of one PE, by pixel and, within it, by tap.

    Attributes:
        pixels: computed pixels.
        pixel: of each pair, the number of its pixel in the rectangle.
        tap: of each pair.
        place: of each pair, the input word within its channel.
    """

    pixels: int
    pixel: Ints
    tap: Ints
    place: Ints


@lru_cache(maxsize=4096)
def visits(convolution: Convolution, computed: Rectangle, held: Rectangle) -> Visits:
    """Pairs of a PE that computes (WG: takes the errors of) `computed` and holds the input pixels `held`.

    Raises:
        Fault: a tap inside the image finds no input word.
    """
    if not computed.pixels:
        return Visits(0, *(np.zeros(0, np.int64) for _ in range(3)))
    rows = _axis(convolution, 0, computed.top, computed.bottom)
    columns = _axis(convolution, 1, computed.left, computed.right)
    # [row, column, u, v]
    inside = rows.inside[:, None, :, None] & columns.inside[None, :, None, :]
    row, column = np.broadcast_arrays(rows.place[:, None, :, None], columns.place[None, :, None, :])
    pixel = np.arange(computed.pixels).reshape(computed.rows, computed.columns, 1, 1)
    tap = np.arange(convolution.kernel[0] * convolution.kernel[1]).reshape(1, 1, *convolution.kernel)
    row, column = row[inside], column[inside]
    missing = (row < held.top) | (row >= held.bottom) | (column < held.left) | (column >= held.right)
    if missing.any():
        raise Fault(f"input pixel ({row[missing][0]}, {column[missing][0]}) is not in the buffer, which holds {tuple(held)}")
    return Visits(
        computed.pixels,
        np.broadcast_to(pixel, inside.shape)[inside],
        np.broadcast_to(tap, inside.shape)[inside],
        (row - held.top) * held.columns + column - held.left,
    )


class _Axis(NamedTuple):
    place: Ints
    inside: NDArray[np.bool_]


def _axis(convolution: Convolution, axis: int, first: int, last: int) -> _Axis:
    """Input pixel of each (computed pixel, tap) along an axis, and whether it is inside the image."""
    pixel = np.arange(first, last)[:, None]
    tap = np.arange(convolution.kernel[axis])[None, :] * convolution.dilation[axis]
    stride, padding = convolution.stride[axis], convolution.padding[axis]
    if convolution.transposed:
        place, rest = np.divmod(pixel + padding - tap, stride)
        meets = rest == 0
    else:
        place = pixel * stride + tap - padding
        meets = np.ones(place.shape, np.bool_)
    return _Axis(place, meets & (place >= 0) & (place < convolution.size[axis]))


class PixelLists(NamedTuple):
    """Visits of all PEs, by pixel: pairs [starts[pe, p], starts[pe, p + 1]) belong to pixel p."""

    pixels: Ints
    starts: Ints
    taps: Ints
    places: Ints


class TapLists(NamedTuple):
    """Visits of all PEs, by tap: pairs [starts[pe, t], starts[pe, t + 1]) belong to tap t."""

    starts: Ints
    pixels: Ints
    places: Ints


@lru_cache(maxsize=1024)
def pixel_lists(convolution: Convolution, computed: tuple[Rectangle, ...], held: tuple[Rectangle, ...]) -> PixelLists:
    """For FF and NG."""
    found = [visits(convolution, *pair) for pair in zip(computed, held, strict=True)]
    most = max(item.pixels for item in found)
    starts = np.stack([np.searchsorted(item.pixel, np.arange(most + 1)) for item in found])
    return PixelLists(
        np.array([item.pixels for item in found], np.int64),
        starts.astype(np.int64),
        _padded([item.tap for item in found]),
        _padded([item.place for item in found]),
    )


@lru_cache(maxsize=1024)
def tap_lists(convolution: Convolution, computed: tuple[Rectangle, ...], held: tuple[Rectangle, ...]) -> TapLists:
    """For WG."""
    found = [visits(convolution, *pair) for pair in zip(computed, held, strict=True)]
    taps = convolution.kernel[0] * convolution.kernel[1]
    order = [np.argsort(item.tap, kind="stable") for item in found]
    starts = [np.searchsorted(item.tap[by_tap], np.arange(taps + 1)) for item, by_tap in zip(found, order, strict=True)]
    return TapLists(
        np.stack(starts).astype(np.int64),
        _padded([item.pixel[by_tap] for item, by_tap in zip(found, order, strict=True)]),
        _padded([item.place[by_tap] for item, by_tap in zip(found, order, strict=True)]),
    )


def _padded(rows: list[Ints]) -> Ints:
    wide = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for number, row in enumerate(rows):
        wide[number, : len(row)] = row
    return wide
