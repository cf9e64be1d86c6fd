"""Which products of a kernel's taps lie inside of a feature map: those with the zeros around it can be left out."""

from functools import lru_cache
from typing import NamedTuple

from fixgrad.train.kernels.im2col import Pair, Windows


class Tap(NamedTuple):
    """A tap, the positions at which it sees a pixel of the map, and those pixels.

    Attributes:
        place: row and column in the kernel.
        positions: rows and columns of positions.
        pixels: rows and columns of the map, one for each position.
    """

    place: Pair
    positions: tuple[slice, slice]
    pixels: tuple[slice, slice]

    @property
    def is_blind(self) -> bool:
        """Whether it sees nothing but zeros."""
        return any(each.start == each.stop for each in self.positions)


@lru_cache(maxsize=1024)
def taps_inside(windows: Windows, size: Pair) -> tuple[Tap, ...]:
    """The taps over a map of `size` whose pixels are not spread out, in raster order."""
    rows, columns = (_along(windows, size, axis) for axis in (0, 1))
    return tuple(
        Tap((u, v), (row[0], column[0]), (row[1], column[1])) for u, row in enumerate(rows) for v, column in enumerate(columns)
    )


def share_inside(windows: Windows, size: Pair) -> float:
    """Share of all products that are with pixels of the map."""
    inside = [sum(at.stop - at.start for at, _ in _along(windows, size, axis)) for axis in (0, 1)]
    return float(inside[0] * inside[1]) / (windows.outputs[0] * windows.outputs[1] * windows.kernel[0] * windows.kernel[1])


def _along(windows: Windows, size: Pair, axis: int) -> list[tuple[slice, slice]]:
    """For each tap of a row or column: its positions and pixels."""
    stride, found = windows.stride[axis], []
    for tap in range(windows.kernel[axis]):
        before = windows.offset[axis] - tap * windows.dilation[axis]  # pixel = position * stride - before
        first = max(0, -(-before // stride))
        behind = max(first, min(windows.outputs[axis], (size[axis] - 1 + before) // stride + 1))
        begin, count = first * stride - before, behind - first
        found.append((slice(first, behind), slice(begin, begin + max((count - 1) * stride + 1, 0), stride)))
    return found
