"""Where the alive elements of a mask come in CSB's storage order, without a loop over elements or blocks."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.sparse.blocks import BlockGrid, IntArray
from fixgrad.sparse.masks import Array, BoolArray


class Places(NamedTuple):
    """The alive elements in storage order, [nnz] each: their block, and where in it they lie."""

    block_row: IntArray
    block_col: IntArray
    row: IntArray
    col: IntArray
    lengths: NDArray[np.integer[Any]]
    """Alive elements of each block, in storage order [blocks]."""

    def linear(self, grid: BlockGrid) -> IntArray:
        """row * cols + column in the whole matrix, [nnz]."""
        row = self.block_row * grid.block[0] + self.row
        col = self.block_col * grid.block[1] + self.col
        return row * grid.cols + col


def nonzero(dense: Array) -> BoolArray:
    """What is not 0 of a matrix [rows, cols], or has a tap that is not 0 of a weight [out, in, kh, kw]."""
    alive: BoolArray = dense != 0
    return np.asarray(alive.any(axis=(2, 3))) if dense.ndim == 4 else alive


def storage_order(alive: BoolArray, grid: BlockGrid) -> Places:
    """The places of the alive elements of a mask [rows, cols] that is not transposed.

    The mask is padded to whole blocks and its axes sorted to (block_col, block_row, col, row): then its flat
    order is the storage order. Blocks larger than the matrix are cut to it first, so padding at most doubles
    an edge.
    """
    r, c = (max(edge, 1) for edge in grid.extent)
    below, right = grid.block_rows * r - grid.rows, grid.block_cols * c - grid.cols
    padded = np.pad(alive, ((0, below), (0, right))) if below or right else alive
    tiles = padded.reshape(grid.block_rows, r, grid.block_cols, c).transpose(2, 0, 3, 1)
    block, inside = np.divmod(np.flatnonzero(tiles), r * c)
    block_row, block_col = grid.coordinates(block)
    col, row = np.divmod(inside, r)
    return Places(block_row, block_col, row, col, np.bincount(block, minlength=grid.count))
