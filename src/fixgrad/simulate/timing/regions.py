"""Rectangles and regions of feature maps, from the fields of instructions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.packing import Columns
from fixgrad.machine.parameters import MAX_PES_PER_GROUP
from fixgrad.simulate.timing.traffic import Region

#: Field name -> values of all instructions of a kind.
Fields = dict[str, list[int]]


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> int:
        return self.bottom - self.top

    @property
    def columns(self) -> int:
        return self.right - self.left

    @property
    def area(self) -> int:
        return self.rows * self.columns

    def over(self, rows: int, columns: int) -> "Box":
        """The windows of rows x columns that lie wholly inside, counted from the map's corner."""
        return Box(-(-self.top // rows), self.bottom // rows, -(-self.left // columns), self.right // columns)

    def times(self, rows: int, columns: int) -> "Box":
        """The pixels of windows of rows x columns."""
        return Box(self.top * rows, self.bottom * rows, self.left * columns, self.right * columns)


def boxes(fields: Fields, at: int, prefix: str) -> list[Box]:
    """The rectangles of all PEs that instruction number `at` of its kind carries."""
    return [
        Box(*(fields[f"{prefix}{pe}_{side}"][at] for side in ("top", "bottom", "left", "right")))
        for pe in range(MAX_PES_PER_GROUP)
    ]


def bounding_box(of: Sequence[Box]) -> Box:
    """The smallest rectangle around those that are not empty."""
    real = [box for box in of if box.area > 0]
    if not real:
        return Box(0, 0, 0, 0)
    top, left = min(box.top for box in real), min(box.left for box in real)
    return Box(top, max(box.bottom for box in real), left, max(box.right for box in real))


def region(
    word_bytes: int,
    fields: Fields,
    at: int,
    base: str,
    box: Box,
    channels: int,
    first: int = 0,
    strides: tuple[str, str] = ("channel_words", "row_words"),
) -> Region:
    """The pixels of `box` of `channels` channels from `first` on, of the map at the address in field `base`."""
    plane, row = (fields[name][at] * word_bytes for name in strides)
    address = fields[base][at] + first * plane + box.top * row + box.left * word_bytes
    return Region(address, box.columns * word_bytes, box.rows, row, channels, plane)


def all_regions(word_bytes: int, columns: Columns, prefix: str, base: str, channels: str) -> NDArray[np.int64]:
    """`region` of the bounding boxes of all instructions of a kind at once: rows of `Region`, [instructions, 6]."""
    sides = [[columns[f"{prefix}{pe}_{side}"] for pe in range(MAX_PES_PER_GROUP)] for side in Box._fields]
    top, bottom, left, right = (np.stack(side) for side in sides)
    real = (bottom - top) * (right - left) > 0
    top, left = (np.where(real, side, np.iinfo(np.int64).max).min(axis=0) for side in (top, left))
    bottom, right = (np.where(real, side, 0).max(axis=0) for side in (bottom, right))
    top, left = (np.where(real.any(axis=0), side, 0) for side in (top, left))
    plane, row = columns["channel_words"] * word_bytes, columns["row_words"] * word_bytes
    address = columns[base] + top * row + left * word_bytes
    found: NDArray[np.int64] = np.stack(
        [address, (right - left) * word_bytes, bottom - top, row, columns[channels], plane], axis=1
    )
    return found
