"""Rectangles and regions of feature maps, from the fields of instructions."""

from collections.abc import Sequence
from typing import NamedTuple

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
