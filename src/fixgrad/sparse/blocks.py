"""How a matrix is cut into CSB blocks, and the two orders in which the blocks are walked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class BlockGrid:
    """A matrix of `rows` x `cols` cut into blocks of `block` = (r, c); the last ones may be ragged.

    Blocks are stored column by column of blocks, or row by row where `transposed` is set: that is the order
    in which the transpose of a matrix finds the blocks of that matrix.
    """

    rows: int
    cols: int
    block: tuple[int, int]
    transposed: bool = False

    @property
    def block_rows(self) -> int:
        return -(-self.rows // self.block[0])

    @property
    def block_cols(self) -> int:
        return -(-self.cols // self.block[1])

    @property
    def count(self) -> int:
        """Number of blocks, empty ones included."""
        return self.block_rows * self.block_cols

    @property
    def extent(self) -> tuple[int, int]:
        """The block's edges cut to the matrix: the largest block that really occurs."""
        return min(self.block[0], self.rows), min(self.block[1], self.cols)

    def position(self, block_row: int, block_col: int) -> int:
        """Where in storage order block (block_row, block_col) comes."""
        if self.transposed:
            return block_row * self.block_cols + block_col
        return block_col * self.block_rows + block_row

    def coordinates(self, position: IntArray) -> tuple[IntArray, IntArray]:
        """(block_row, block_col) of each storage position."""
        if self.transposed:
            return position // max(self.block_cols, 1), position % max(self.block_cols, 1)
        return position % max(self.block_rows, 1), position // max(self.block_rows, 1)

    def walk(self, by_rows: bool) -> Iterator[tuple[int, int]]:
        """(block_row, block_col) of every block, row by row or column by column of blocks."""
        if by_rows:
            return ((row, col) for row in range(self.block_rows) for col in range(self.block_cols))
        return ((row, col) for col in range(self.block_cols) for row in range(self.block_rows))


def index_dtype(edge: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The narrowest of uint8, uint16 and uint32 that holds the coordinates 0 .. edge - 1."""
    for dtype in (np.uint8, np.uint16):
        if edge - 1 <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.uint32)


def index_bits(edge: int) -> int:
    """ceil(log2(edge)): the bits of one coordinate as hardware packs it; 0 for an edge of 1."""
    return (edge - 1).bit_length()
