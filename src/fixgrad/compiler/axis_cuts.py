"""The ways to cut one axis of a map into tiles and PE rectangles, and what each costs along that axis.

A tile is a product of two spans, and so are its rectangles, its reads and its (pixel, tap) pairs: all that a tiling costs in
pixels is a product of one number for each axis.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from fixgrad.compiler.geometry import Axis, meetings, span_read, span_taps, split_span, tile_spans


class AxisCut(NamedTuple):
    """An axis in tiles of `extent`, each shared by `parts` PEs.

    Attributes:
        tiles: how many.
        taps: sum over tiles of the largest part's (pixel, tap) pairs: cycles along this axis.
        reads: sum over tiles of the pixels read by all parts together.
        pixels: of the largest part of any tile.
        held: pixels that the largest part of any tile reads.
    """

    extent: int
    parts: int
    tiles: int
    taps: int
    reads: int
    pixels: int
    held: int


@lru_cache(maxsize=4096)
def axis_cut(axis: Axis, extent: int, parts: int, transposed: bool, count_padding: bool) -> AxisCut:
    """Work out one cut."""
    tiles = tile_spans(axis.in_size if transposed else axis.out_size, extent)
    split = [split_span(tile, parts) for tile in tiles]
    return AxisCut(
        extent,
        parts,
        len(tiles),
        sum(max(span_taps(axis, part, transposed, count_padding) for part in found) for found in split),
        sum(span_read(axis, tile, transposed).size for tile in tiles),
        max(part.size for found in split for part in found),
        max(span_read(axis, part, transposed).size for found in split for part in found),
    )


def axis_cuts(axis: Axis, parts: int, multiple: int, transposed: bool, count_padding: bool) -> Iterator[AxisCut]:
    """All cuts into tiles of equal extent, a multiple of `multiple` (a pooling window), that differ in the number of tiles."""
    size = axis.in_size if transposed else axis.out_size
    seen = set()
    for tiles in range(1, size + 1):
        extent = -(-size // tiles)
        extent = min(-(-extent // multiple) * multiple, max(size, 1))
        if extent not in seen and extent >= min(parts, size):
            seen.add(extent)
            yield axis_cut(axis, extent, parts, transposed, count_padding)


def all_taps(axis: Axis, transposed: bool, count_padding: bool) -> int:
    """(pixel, tap) pairs of the whole axis."""
    return int(meetings(axis, transposed, count_padding).taps.sum())
