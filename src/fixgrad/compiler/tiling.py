"""How each layer and phase is cut into tiles: what the search chooses and the lowering follows."""

from dataclasses import dataclass
from typing import NamedTuple

from fixgrad.compiler.geometry import EMPTY, Axis, Span, span_read, span_taps, split_span


class Rectangle(NamedTuple):
    """Pixels rows x columns."""

    rows: Span
    columns: Span

    @property
    def pixels(self) -> int:
        return self.rows.size * self.columns.size


NOTHING = Rectangle(EMPTY, EMPTY)


@dataclass(frozen=True, slots=True)
class Split:
    """How the PEs of a group share a tile: `rows` x `columns` rectangles of it, or (`channels`) the whole, for other channels.

    In a channel split every PE has a kernel queue of its own; otherwise the PEs of a group share the kernels.
    """

    rows: int = 1
    columns: int = 1
    channels: int = 1

    @property
    def pes(self) -> int:
        return self.rows * self.columns * self.channels

    def __str__(self) -> str:
        return f"{self.channels} channels" if self.channels > 1 else f"{self.rows}x{self.columns}"

    def rectangles(self, tile: Rectangle) -> tuple[Rectangle, ...]:
        """What each PE of a group computes of a tile."""
        if self.channels > 1:
            return (tile,) * self.channels
        return tuple(
            Rectangle(rows, columns) if rows.size and columns.size else NOTHING
            for rows in split_span(tile.rows, self.rows)
            for columns in split_span(tile.columns, self.columns)
        )


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tiling of one layer's FF, NG or WG.

    Attributes:
        split: see there.
        rows, columns: pixels of a tile: output pixels of FF, input pixels of NG, error pixels of WG.
        channels: output channels (NG: input channels) of a group, or of a PE in a channel split.
        chunk: channels that one COMPUTE reads at most.
        resident: whether all input channels of a tile of pixels are loaded once and stay for all output channels; the loop
            over tiles of pixels is then outside of the one over channels.
    """

    split: Split
    rows: int
    columns: int
    channels: int
    chunk: int
    resident: bool = False


@dataclass(frozen=True, slots=True)
class LayerTiling:
    """The tilings of one layer; `block_rows` is the height of its CSB blocks. Phases that do not run have none."""

    block_rows: int
    ff: Tiling
    ng: Tiling | None
    wg: Tiling | None


def read_rectangle(axes: tuple[Axis, Axis], rectangle: Rectangle, transposed: bool) -> Rectangle:
    """The pixels that a PE reads to compute `rectangle` (WG: the inputs that meet its errors, as in FF)."""
    if not rectangle.pixels:
        return NOTHING
    rows, columns = (span_read(axis, span, transposed) for axis, span in zip(axes, rectangle, strict=True))
    return Rectangle(rows, columns) if rows.size and columns.size else NOTHING


def rectangle_taps(axes: tuple[Axis, Axis], rectangle: Rectangle, transposed: bool, count_padding: bool) -> int:
    """Cycles that a kernel takes a PE with this rectangle: its (pixel, tap) pairs."""
    rows, columns = (span_taps(axis, span, transposed, count_padding) for axis, span in zip(axes, rectangle, strict=True))
    return rows * columns
