"""Which kernels each queue takes for a tile, and in which chunks of input channels they come.

A tile of output channels is dealt to queues; a chunk of input channels is what one COMPUTE reads. What a queue takes of a
chunk lies in one run for each CSB block that the two share. Large layers have 10^5 runs: they are worked out all at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.matrix import KernelMatrix
from fixgrad.machine.parameters import TAPS_PER_WORD

Ints = NDArray[np.int64]
Span = tuple[int, int]
#: The end mark that closes a chunk in every queue.
END_WORDS = 1


class Runs(NamedTuple):
    """Runs of entries, one LOAD_KERNELS each; int64 arrays of one length.

    Attributes:
        chunk, queue: to which they belong.
        start, entries: first entry of the layer, and how many.
        out_base, in_base: what to add to their coordinates.
    """

    chunk: Ints
    queue: Ints
    start: Ints
    entries: Ints
    out_base: Ints
    in_base: Ints

    def sorted(self) -> "Runs":
        """Chunk by chunk and queue by queue, the order in memory within."""
        order = np.lexsort((self.start, self.queue, self.chunk))
        return Runs(*(column[order] for column in self))

    def live(self) -> "Runs":
        """As arrays of one length, sorted, without empty runs."""
        flat = Runs(*(column.ravel() for column in np.broadcast_arrays(*self)))
        return Runs(*(column[flat.entries > 0] for column in flat)).sorted()


@dataclass(frozen=True, slots=True)
class Chunk:
    """The work of one COMPUTE: input channels [first, last) (NG: rows of the matrix).

    Attributes:
        counts: kernels of each queue.
    """

    first: int
    last: int
    counts: Ints

    @property
    def channels(self) -> int:
        return self.last - self.first


class TileKernels(NamedTuple):
    """The chunks of a tile and all their runs."""

    chunks: list[Chunk]
    runs: Runs


def entry_words(taps: int, with_data: bool) -> int:
    """Queue words of a kernel: 9 weights a word, or its coordinates alone."""
    return -(-taps // TAPS_PER_WORD) if with_data else 1


def cut(words: Ints, most: int, limit: int, period: int, start: int = 0) -> Iterator[Span]:
    """Cut columns into ranges whose words fit every queue; dead columns at the ends of a range are left out.

    Args:
        words: that each column puts into each queue, [queues, columns].
        most: columns of a range at most.
        limit: words that a range may put into any queue.
        period: no range crosses a multiple of it, counted from column -start.
        start: number of the first column.
    """
    sums = np.zeros((words.shape[0], words.shape[1] + 1), np.int64)
    np.cumsum(words, axis=1, out=sums[:, 1:])
    # The queue that is full first ends a range: where that would be, of every column with which the range might begin.
    reach = np.full(words.shape[1], words.shape[1])
    for filled in sums:
        np.minimum(reach, np.searchsorted(filled, filled[:-1] + limit, "right") - 1, out=reach)
    live = np.flatnonzero(words.any(axis=0))
    behind = np.searchsorted(live, np.arange(words.shape[1] + 1))
    position = 0
    while position < len(live):
        first = int(live[position])
        last = min(first + most, ((start + first) // period + 1) * period - start, max(int(reach[first]), first + 1))
        position = int(behind[last])
        yield start + first, start + int(live[position - 1]) + 1


def row_kernels(
    matrix: KernelMatrix, rows: int, size: int, counts: Ints, columns: Span, *, most: int, limit: int, period: int, words: int
) -> TileKernels:
    """FF and WG: sets of `size` rows from `rows` on, in chunks of columns.

    Args:
        counts: live kernels of each set in each column, [queues, all columns].
        columns: [first, last) that are wanted.
        most: columns of a chunk at most.
        limit: queue words of a chunk, the end mark apart.
        period: columns that a chunk must not cross: those of one pixel.
        words: queue words of a kernel.
    """
    wanted = counts[:, columns[0] : columns[1]]
    chunks = [
        Chunk(first, last, counts[:, first:last].sum(axis=1))
        for first, last in cut(wanted * words, most, limit, period, columns[0])
    ]
    return TileKernels(chunks, _row_runs(matrix, rows, size, len(counts), [(chunk.first, chunk.last) for chunk in chunks]))


def _row_runs(matrix: KernelMatrix, rows: int, size: int, queues: int, spans: Sequence[Span]) -> Runs:
    height, width = matrix.grid.block
    pieces = np.array(list(_pieces(spans, width)), np.int64).reshape(-1, 4)
    chunk, first, last, base = pieces.T
    blocks = np.arange(rows // height, min(-(-(rows + size * queues) // height), matrix.grid.block_rows))[:, None]
    queue = (blocks * height - rows) // size
    start, entries = matrix.run(blocks, first, last)
    return Runs(chunk, queue, start, entries, blocks * height - rows - queue * size, base).live()


def _pieces(spans: Sequence[Span], width: int) -> Iterator[tuple[int, int, int, int]]:
    """Spans cut at the edges of blocks: (number of the span, first, last, first column of the block - that of the span)."""
    for number, (first, last) in enumerate(spans):
        if first == last:  # the set of a queue for which no columns are left: it would begin behind the last one
            continue
        for edge in range(first // width * width, last, width):
            yield number, max(first, edge), min(last, edge + width), edge - first


def column_kernels(
    matrix: KernelMatrix, columns: Span, size: int, queues: int, *, most: int, limit: int, words: int
) -> TileKernels:
    """NG: `queues` sets of `size` columns from columns[0] to columns[1], in chunks of at most `most` rows (whole blocks)."""
    height, rows = matrix.block_rows, matrix.grid.rows
    counts, room = matrix.by_columns(*columns, size, queues), max(limit // words, 1)
    chunks, found = list[Chunk](), dict[Span, list[tuple[int, int, int]]]()
    for first, last in cut(counts * words, max(most // height, 1), limit, matrix.grid.block_rows):
        whole = counts[:, first:last].sum(axis=1)
        parts = [(0, size)] if whole.max() <= room else _parts(matrix, columns, size, queues, (first, last), room)
        for part in parts:
            taken = whole if part == (0, size) else matrix.count((first, last), *_edges(columns, size, queues, part))
            if taken.any():
                found.setdefault(part, []).append((len(chunks), first, last))
                chunks.append(Chunk(first * height, min(last * height, rows), taken))
    runs = [_column_runs(matrix, columns, size, queues, part, np.array(of)) for part, of in found.items()]
    return TileKernels(chunks, Runs(*(np.concatenate(column) for column in zip(*runs, strict=True))) if runs else _NO_RUNS)


_NO_RUNS = Runs(*(np.zeros(0, np.int64) for _ in Runs._fields))


def _edges(columns: Span, size: int, queues: int, part: Span) -> tuple[Ints, Ints]:
    """First and last column of a part of each queue's set."""
    bases = columns[0] + size * np.arange(queues)
    return np.minimum(bases + part[0], columns[1]), np.minimum(bases + part[1], columns[1])


def _parts(matrix: KernelMatrix, columns: Span, size: int, queues: int, blocks: Span, most: int) -> Iterator[Span]:
    """All columns of the sets at once, or fewer where some block rows have more kernels than a queue takes."""
    waiting = [(0, size)]
    while waiting:
        part = waiting.pop()
        starts, ends = _edges(columns, size, queues, part)
        if part[1] - part[0] == 1 or matrix.count(blocks, starts, ends).max() <= most:
            yield part
        else:
            middle = sum(part) // 2
            waiting += [(middle, part[1]), (part[0], middle)]


def _column_runs(matrix: KernelMatrix, columns: Span, size: int, queues: int, part: Span, chunks: Ints) -> Runs:
    """The runs of all chunks that take the same part of each queue's set.

    Args:
        chunks: number, first and last block row of each, [n, 3].
    """
    height, width = matrix.grid.block
    starts, ends = _edges(columns, size, queues, part)
    pieces = np.array(list(_pieces(list(zip(starts.tolist(), ends.tolist(), strict=True)), width)), np.int64).reshape(-1, 4)
    queue, first, last, base = pieces.T
    heights = chunks[:, 2] - chunks[:, 1]
    number, top = (np.repeat(chunks[:, place], heights)[:, None] for place in (0, 1))
    below = (np.arange(len(number)) - np.repeat(np.cumsum(heights) - heights, heights))[:, None]
    start, entries = matrix.run(top + below, first, last)
    out_base = base + starts[queue] - columns[0] - queue * size
    return Runs(number, queue, start, entries, out_base, below * height).live()
