"""Runs of short instructions that the timing model takes together.

A chunk of kernels is loaded by dozens of LOAD_KERNELS, and a tile updated by dozens of UPDATEs, which differ in addresses and
counts alone. Taken together they are one stream of requests; their cycles and bytes are added up exactly.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine.instructions import BY_NAME

Ints = NDArray[np.int64]
#: Kinds of which several may be taken together.
JOINED = ("LOAD_KERNELS", "UPDATE")


@dataclass(frozen=True, slots=True)
class Block:
    """Instructions [first, first + count) of the program, of one kind, one row and with the same waits.

    `place` is the first one's number among those of its kind.
    """

    first: int
    count: int
    name: str
    place: int
    row: int
    waits: tuple[int, int, int, int]


_NAMES = {kind.opcode: kind.name for kind in BY_NAME.values()}


class BlockArrays(NamedTuple):
    """Blocks as columns; `waits` is [blocks, 4], and `opcode` that of the kind."""

    first: Ints
    counts: Ints
    opcode: NDArray[np.uint8]
    place: Ints
    row: Ints
    waits: NDArray[np.int32]

    def some(self, of: slice) -> list[Block]:
        """Some of the blocks one by one."""
        first, counts, opcode, place, row, waits = (column[of].tolist() for column in self)
        columns = zip(first, counts, opcode, place, row, map(tuple, waits), strict=True)
        return [Block(begin, number, _NAMES[kind], at, of_row, wait) for begin, number, kind, at, of_row, wait in columns]

    def one(self, number: int) -> Block:
        """One of the blocks."""
        return self.some(slice(number, number + 1))[0]


def cut_blocks(
    opcodes: NDArray[np.uint8], rows: Ints, waits: NDArray[np.int32], sizes: Ints, most: Ints, most_bytes: int
) -> BlockArrays:
    """The program as blocks.

    Args:
        opcodes, rows: of each instruction.
        waits: completed LOAD, COMPUTE, POST, UPDATE that each waits for, [instructions, 4].
        sizes: bytes that each moves, as far as it may be joined.
        most: of each instruction, how many a block of them may hold; 1 joins nothing.
        most_bytes: that a block of several may move, about.
    """
    count = len(opcodes)
    joined = np.isin(opcodes, [BY_NAME[name].opcode for name in JOINED]) & (most > 1)
    new = np.ones(count, np.bool_)
    new[1:] = ~joined[1:] | (opcodes[1:] != opcodes[:-1]) | (rows[1:] != rows[:-1]) | (waits[1:] != waits[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    of = np.cumsum(new) - 1
    before = np.cumsum(sizes) - sizes
    part = np.maximum((np.arange(count) - starts[of]) // most, (before - before[starts][of]) // most_bytes)
    new[1:] |= part[1:] != part[:-1]
    starts = np.flatnonzero(new)
    places = np.zeros(count, np.int64)
    for opcode in np.unique(opcodes):
        at = opcodes == opcode
        places[at] = np.arange(int(at.sum()))
    return BlockArrays(starts, np.diff(starts, append=count), opcodes[starts], places[starts], rows[starts], waits[starts])
