"""The live kernels of a layer as the machine stores them: CSB blocks in memory order, and where each part of them starts."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.stages import Stage
from fixgrad.network import Conv2d
from fixgrad.sparse import BlockGrid
from fixgrad.sparse.encode import Places, storage_order

Ints = NDArray[np.int64]
#: Coordinates inside a block are one byte each.
MAX_BLOCK_EDGE = 256


class KernelMatrix:
    """The kernels of one layer, in memory order.

    Args:
        alive: bool [rows, columns], in memory order.
        block_rows: channels of a CSB block along the rows; the blocks are as wide as coordinates allow.
    """

    def __init__(self, alive: NDArray[np.bool_], block_rows: int) -> None:
        rows, columns = alive.shape
        self.alive = alive
        self.grid = BlockGrid(rows, columns, (min(block_rows, rows), min(MAX_BLOCK_EDGE, columns)))
        self.counts = _counts(alive, self.grid)
        self.starts = _starts(self.counts, self.grid)
        self._column_sums = np.zeros((self.grid.block_rows, columns + 1), np.int32)
        np.cumsum(self.counts, axis=1, dtype=np.int32, out=self._column_sums[:, 1:])

    @property
    def block_rows(self) -> int:
        """Rows of a block."""
        return self.grid.block[0]

    @property
    def size(self) -> int:
        """Live kernels."""
        return int(self.counts.sum())

    @cached_property
    def places(self) -> Places:
        """Block and coordinates of every entry, in storage order."""
        return storage_order(self.alive, self.grid)

    def entries(self) -> tuple[Ints, Ints]:
        """(row, column) of every entry in memory order of the channels, in storage order."""
        places, (rows, columns) = self.places, self.grid.block
        return (
            np.asarray(places.block_row * rows + places.row, np.int64),
            np.asarray(places.block_col * columns + places.col, np.int64),
        )

    def run(self, block_rows: Ints, first: Ints, last: Ints) -> tuple[Ints, Ints]:
        """First entry, and how many, of columns [first, last) (within one block) of each block row; arrays that broadcast."""
        start = self.starts[block_rows, first].astype(np.int64)
        return start, self.starts[block_rows, last - 1] + self.counts[block_rows, last - 1] - start

    def count(self, block_rows: tuple[int, int], starts: Ints, ends: Ints) -> Ints:
        """Live kernels of block rows [first, last) in each of the column ranges [start, end)."""
        sums = self._column_sums[slice(*block_rows)]
        counts: Ints = (sums[:, ends] - sums[:, starts]).sum(axis=0)
        return counts

    def by_rows(self, first: int, size: int, parts: int) -> Ints:
        """Live kernels of `parts` sets of `size` rows from `first` on, in each column: [parts, columns]."""
        height = self.grid.block[0]
        blocks = np.zeros((-(-size // height) * parts, self.grid.cols), np.int64)
        found = self.counts[first // height : first // height + len(blocks)]
        blocks[: len(found)] = found
        counts: Ints = blocks.reshape(parts, -1, self.grid.cols).sum(axis=1)
        return counts

    def by_columns(self, first: int, last: int, size: int, parts: int) -> Ints:
        """Live kernels of `parts` sets of `size` columns from `first` to `last`, in each block row: [parts, block rows]."""
        edges = np.minimum(first + size * np.arange(parts + 1), last)
        return np.diff(self._column_sums[:, edges], axis=1).T.astype(np.int64)


def alive_kernels(stage: Stage, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """The live kernels [rows, columns] in logical order; columns of a linear layer go pixel by pixel, channel by channel.

    Args:
        mask: bool [out, in per convolution group], or None for all.
    """
    if mask is None:
        mask = np.ones(stage.layer.weight_shape[:2], np.bool_)
    if stage.source_pixels > 1:
        by_channel = mask.reshape(len(mask), stage.source.channels, stage.source_pixels)
        return by_channel.transpose(0, 2, 1).reshape(stage.matrix_shape)
    groups = stage.layer.geometry.groups if isinstance(stage.layer, Conv2d) else 1
    return _block_diagonal(mask, groups) if groups > 1 else mask


def in_memory(stage: Stage, alive: NDArray[np.bool_], row_order: Ints, channel_order: Ints) -> NDArray[np.bool_]:
    """`alive_kernels` in memory order.

    Args:
        row_order, channel_order: the channel that each place in memory holds, of the target and of the source.
    """
    if alive.all():
        return alive
    by_channel = alive.take(row_order, axis=0).reshape(-1, stage.source.channels)
    return by_channel.take(channel_order, axis=1).reshape(alive.shape)


def _block_diagonal(mask: NDArray[np.bool_], groups: int) -> NDArray[np.bool_]:
    """A grouped convolution as one matrix: dead outside of the groups."""
    outputs, inputs = mask.shape
    wide = np.zeros((outputs, inputs * groups), np.bool_)
    for group in range(groups):
        rows = slice(group * outputs // groups, (group + 1) * outputs // groups)
        wide[rows, group * inputs : (group + 1) * inputs] = mask[rows]
    return wide


def parameter_index(stage: Stage, rows: Ints, columns: Ints, row_order: Ints, channel_order: Ints) -> Ints:
    """Linear index, in the layer's weight, of the first element of each kernel at (row, column) in memory order."""
    outputs, channels = row_order[rows], channel_order[columns % stage.source.channels]
    if stage.source_pixels > 1:
        channels = channels * stage.source_pixels + columns // stage.source.channels
    per_filter = stage.layer.weight_shape[1]
    return (outputs * per_filter + channels % per_filter) * stage.taps


def _counts(alive: NDArray[np.bool_], grid: BlockGrid) -> NDArray[np.int32]:
    """Live kernels of each column in each block row: [block rows, columns]."""
    height = grid.block[0]
    counts = np.zeros((grid.block_rows, grid.cols), np.int32)
    for row in range(height):  # row by row: a matrix of 10^8 elements must not be widened as a whole
        part = alive[row::height]
        counts[: len(part)] += part
    return counts


def _starts(counts: NDArray[np.int32], grid: BlockGrid) -> NDArray[np.int32]:
    """First entry of each column in each block row, where blocks are stored column by column of blocks."""
    width = grid.block[1]
    padded = np.zeros((grid.block_rows, grid.block_cols * width), np.int32)
    padded[:, : grid.cols] = counts
    stored = padded.reshape(grid.block_rows, grid.block_cols, width).transpose(1, 0, 2)
    starts = np.cumsum(stored.ravel(), dtype=np.int32) - stored.ravel()
    return starts.reshape(stored.shape).transpose(1, 0, 2).reshape(padded.shape)[:, : grid.cols]
