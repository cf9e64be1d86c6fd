"""Which input pixels and taps an output pixel meets, along one axis: what tiles, rectangles and cycles follow from.

An output pixel i and a tap u of a convolution meet the input pixel i * stride + u * dilation - padding, if that exists.
NG walks the same meetings from the other side. Rows and columns are independent, so everything is worked out by axis.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Axis:
    """A convolution along rows or columns; sizes in pixels."""

    in_size: int
    out_size: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1


class Span(NamedTuple):
    """Pixels [first, last) along an axis; empty where both are equal."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first


EMPTY = Span(0, 0)


class Meetings(NamedTuple):
    """For each computed pixel of an axis: how many taps it meets, and the pixels read from first to last."""

    taps: NDArray[np.int64]
    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]


@lru_cache(maxsize=1024)
def meetings(axis: Axis, transposed: bool, count_padding: bool) -> Meetings:
    """Meetings of every pixel that FF (or, `transposed`, NG) computes along `axis`.

    `taps` are those that take a cycle: with `count_padding` also those that fall into the padding. A pixel that meets
    nothing has a `lowest` above its `highest`.
    """
    computed, read = (axis.in_size, axis.out_size) if transposed else (axis.out_size, axis.in_size)
    pixel, tap = np.arange(computed)[:, None], np.arange(axis.kernel)[None, :] * axis.dilation
    if transposed:
        place, rest = np.divmod(pixel + axis.padding - tap, axis.stride)
        meets = rest == 0
    else:
        place = pixel * axis.stride + tap - axis.padding
        meets = np.ones(place.shape, np.bool_)
    inside = meets & (place >= 0) & (place < read)
    return Meetings(
        taps=(meets if count_padding else inside).sum(axis=1),
        lowest=np.where(inside, place, read).min(axis=1),
        highest=np.where(inside, place, -1).max(axis=1),
    )


def span_taps(axis: Axis, span: Span, transposed: bool, count_padding: bool) -> int:
    """(pixel, tap) pairs that take a cycle along the axis."""
    return int(meetings(axis, transposed, count_padding).taps[span.first : span.last].sum())


def span_read(axis: Axis, span: Span, transposed: bool) -> Span:
    """The pixels that computing `span` reads: from the first to the last that any of its pixels meets."""
    found = meetings(axis, transposed, False)
    lowest, highest = found.lowest[span.first : span.last], found.highest[span.first : span.last]
    real = lowest <= highest
    if not real.any():
        return EMPTY
    return Span(int(lowest[real].min()), int(highest[real].max()) + 1)


def split_span(span: Span, parts: int) -> tuple[Span, ...]:
    """`span` cut into `parts` of nearly equal size, the larger ones first; some are empty where there are too few pixels."""
    size, rest = divmod(span.size, parts)
    spans, first = [], span.first
    for part in range(parts):
        last = first + size + (part < rest)
        spans.append(Span(first, last) if last > first else EMPTY)
        first = last
    return tuple(spans)


def tile_spans(size: int, extent: int) -> tuple[Span, ...]:
    """An axis of `size` pixels cut into tiles of `extent`, the last one ragged."""
    return tuple(Span(first, min(first + extent, size)) for first in range(0, size, extent))
