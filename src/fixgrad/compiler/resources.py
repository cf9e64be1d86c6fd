"""What is free on the chip, and which completions say so: every wait of a program comes from here.

All units take their instructions in program order, so "instruction n of a unit has completed" implies it of all before.
A resource therefore remembers, for each part of it, the latest instruction of each unit that uses it.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Waits(NamedTuple):
    """Completed instructions of each unit that an instruction waits for (UPDATE: of every group)."""

    load: int = 0
    compute: int = 0
    post: int = 0
    update: int = 0

    def join(self, *others: "Waits") -> "Waits":
        """Waits for all of them."""
        load, compute, post, update = self
        for other in others:
            load, compute = max(load, other[0]), max(compute, other[1])
            post, update = max(post, other[2]), max(update, other[3])
        return Waits(load, compute, post, update)


@dataclass(slots=True, eq=False)
class _Segment:
    start: int
    end: int
    key: object
    compute: int = 0


class InputRing:
    """The input buffers, handed out in a circle; the content of a segment stays usable until it is handed out again.

    Args:
        words: of a PE's input buffer.
    """

    def __init__(self, words: int) -> None:
        self._words = words
        self._segments: deque[_Segment] = deque()
        self._head = 0

    def find(self, key: object) -> int | None:
        """First word of the segment that holds `key`, if one does."""
        return next((segment.start for segment in self._segments if segment.key == key), None)

    def take(self, words: int, key: object) -> tuple[int, Waits]:
        """Hand out `words` for `key`: the first of them, and what must have completed before they are overwritten."""
        start = self._place(words)
        end, over = start + words, self._over(start, words)
        for segment in over:
            self._segments.remove(segment)
        self._segments.append(_Segment(start, end, key))
        self._head = end
        return start, Waits(compute=max((segment.compute for segment in over), default=0))

    def _over(self, start: int, words: int) -> list[_Segment]:
        """What lies where `words` from `start` on would."""
        return [segment for segment in self._segments if segment.start < start + words and start < segment.end]

    def _place(self, words: int) -> int:
        """Where to put `words`: over what has been used longest ago, so that as many as possible of as many words fit behind. Of
        equal places the one where an older segment begins, lest a shorter one leave the others askew for good.
        """
        starts = {segment.start for segment in self._segments}
        places = [at for at in sorted({self._head, *starts}) if at >= self._head and at + words <= self._words] or [0]

        def cost(at: int) -> tuple[int, int, bool]:
            wait = max((segment.compute for segment in self._over(at, words)), default=0)
            return wait, -((self._words - at) // max(words, 1)), at not in starts

        return min(places, key=cost)

    def used(self, key: object, compute: int) -> None:
        """COMPUTE instruction number `compute` (from 1) reads what `key` names."""
        for segment in reversed(self._segments):
            if segment.key == key:
                segment.compute = compute
                return


class KernelQueues:
    """The kernel queues of all PEs: how far ahead of COMPUTE they may be filled.

    Args:
        words: of a PE's queue.
    """

    def __init__(self, words: int) -> None:
        self._words = words
        self._pending: deque[tuple[int, Ints]] = deque()
        self._filled: Ints | int = 0
        self._drained = 0

    def take(self, words: Ints, compute: int) -> Waits:
        """Fill every queue by `words` [groups, pes] for COMPUTE number `compute`; what must have completed before."""
        while self._pending and int((self._filled + words).max()) > self._words:
            self._drained, freed = self._pending.popleft()
            self._filled = self._filled - freed
        self._filled = self._filled + words
        self._pending.append((compute, words))
        return Waits(compute=self._drained)


#: Nothing to wait for.
NO_WAITS = Waits()


@dataclass(slots=True)
class Half:
    """One half of a lane memory or gradient memory, or all of it: the latest instruction of each unit that uses it."""

    uses: Waits = NO_WAITS
    holds: object = None


@dataclass(slots=True)
class Halves:
    """Two halves that take turns."""

    halves: tuple[Half, Half] = field(default_factory=lambda: (Half(), Half()))
    _next: int = 0

    def turn(self) -> int:
        """Number of the half whose turn it is; the next call gives the other."""
        number, self._next = self._next, 1 - self._next
        return number


class MapReady:
    """When each part of a feature map has been written.

    Args:
        shape: (micro-batches, channels, rows); columns are written and read together.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._posts = np.zeros(shape, np.int32)

    def written(self, micro_batch: int, channels: slice, rows: slice, post: int) -> None:
        """POST instruction number `post` (from 1) writes this part."""
        self._posts[micro_batch, channels, rows] = post

    def reading(self, micro_batch: int, channels: slice, rows: slice) -> Waits:
        """What must have completed before this part is read."""
        return Waits(post=int(self._posts[micro_batch, channels, rows].max(initial=0)))
