"""Which kernels each queue takes for a tile, and in which chunks of input channels they come."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.matrix import KernelMatrix
from fixgrad.machine.parameters import TAPS_PER_WORD

Ints = NDArray[np.int64]
#: The end mark that closes a chunk in every queue.
END_WORDS = 1


class KernelLoad(NamedTuple):
    """One LOAD_KERNELS: entries [start, start + count) of a layer for one queue, and what to add to their coordinates."""

    queue: int
    start: int
    count: int
    out_base: int
    in_base: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """The work of one COMPUTE: input channels [first, last) (NG: rows of the matrix), and the kernels that read them.

    Attributes:
        loads: in order of queues.
        counts: kernels of each queue.
    """

    first: int
    last: int
    loads: tuple[KernelLoad, ...]
    counts: Ints

    @property
    def channels(self) -> int:
        return self.last - self.first


def entry_words(taps: int, with_data: bool) -> int:
    """Queue words of a kernel: 9 weights a word, or its coordinates alone."""
    return -(-taps // TAPS_PER_WORD) if with_data else 1


def cut(words: Ints, most: int, limit: int, period: int) -> Iterator[tuple[int, int]]:
    """Cut columns into ranges whose words fit every queue.

    Args:
        words: that each column puts into each queue, [queues, columns].
        most: columns of a range at most.
        limit: words that a range may put into any queue.
        period: no range crosses a multiple of it.
    """
    sums = np.zeros((words.shape[0], words.shape[1] + 1), np.int64)
    np.cumsum(words, axis=1, out=sums[:, 1:])
    live = np.flatnonzero(words.any(axis=0))
    position = 0
    while position < len(live):
        first = int(live[position])
        fits = min(int(np.searchsorted(row, row[first] + limit, "right")) for row in sums) - 1
        last = max(min(first + most, (first // period + 1) * period, fits), first + 1)
        position = int(np.searchsorted(live, last))
        yield first, int(live[position - 1]) + 1


def row_chunks(
    matrix: KernelMatrix, rows: int, size: int, queues: int, *, most: int, limit: int, period: int, words: int
) -> list[Chunk]:
    """FF and WG: `queues` sets of `size` rows from `rows` on, in chunks of at most `most` columns.

    Args:
        limit: queue words of a chunk, the end mark apart.
        words: queue words of a kernel.
        period: columns that a chunk must not cross: those of one pixel.
    """
    counts = matrix.by_rows(rows, size, queues)
    return [
        row_chunk(matrix, rows, size, counts[:, first:last].sum(axis=1), first, last)
        for first, last in cut(counts * words, most, limit, period)
    ]


def row_chunk(matrix: KernelMatrix, rows: int, size: int, counts: Ints, first: int, last: int) -> Chunk:
    """The kernels of columns [first, last) for sets of `size` rows from `rows` on."""
    loads = []
    for queue in np.flatnonzero(counts).tolist():
        start = rows + queue * size
        for run in matrix.runs((start, min(start + size, matrix.grid.rows)), (first, last)):
            loads.append(KernelLoad(queue, run.start, run.count, run.row - start, run.column - first))
    return Chunk(first, last, tuple(loads), counts)


def column_chunks(
    matrix: KernelMatrix, columns: tuple[int, int], size: int, queues: int, *, most: int, limit: int, words: int
) -> list[Chunk]:
    """NG: `queues` sets of `size` columns from columns[0] to columns[1], in chunks of at most `most` rows (whole blocks)."""
    height, rows = matrix.block_rows, matrix.grid.rows
    counts = matrix.by_columns(*columns, size, queues)
    chunks = []
    for first, last in cut(counts * words, max(most // height, 1), limit, matrix.grid.block_rows):
        span = first * height, min(last * height, rows)
        taken = counts[:, first:last].sum(axis=1)
        chunks += _column_parts(matrix, columns, size, taken, span, (0, size), max(limit // words, 1))
    return chunks


def _column_parts(
    matrix: KernelMatrix, columns: tuple[int, int], size: int, counts: Ints, rows: tuple[int, int], part: tuple[int, int], most: int
) -> list[Chunk]:
    """One chunk, or several of fewer columns each where a block row alone has more kernels than a queue takes.

    Args:
        part: columns [first, last) of every set.
    """
    if counts.max() <= most or part[1] - part[0] == 1:
        return [Chunk(*rows, tuple(_column_loads(matrix, columns, size, rows, part)), counts)]
    middle = sum(part) // 2
    chunks = []
    for half in ((part[0], middle), (middle, part[1])):
        starts = np.minimum(columns[0] + size * np.arange(len(counts)) + half[0], columns[1])
        ends = np.minimum(starts + half[1] - half[0], columns[1])
        taken = matrix.count(rows, starts, ends)
        chunks += _column_parts(matrix, columns, size, taken, rows, half, most)
    return [chunk for chunk in chunks if chunk.loads]


def _column_loads(
    matrix: KernelMatrix, columns: tuple[int, int], size: int, rows: tuple[int, int], part: tuple[int, int]
) -> Iterator[KernelLoad]:
    for queue, start in enumerate(range(columns[0], columns[1], size)):
        span = min(start + part[0], columns[1]), min(start + part[1], columns[1])
        for run in matrix.runs(rows, span):
            yield KernelLoad(queue, run.start, run.count, run.column - start, run.row - rows[0])
