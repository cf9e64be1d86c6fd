"""POST and UPDATE: units that read, work and write in steps, reading ahead and writing behind."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fixgrad.machine.instructions import Unit
from fixgrad.simulate.timing.attribution import Blocker, StepRecord
from fixgrad.simulate.timing.dispatch import Dispatcher
from fixgrad.simulate.timing.events import Agenda
from fixgrad.simulate.timing.memory import MemorySystem
from fixgrad.simulate.timing.steps import Step
from fixgrad.simulate.timing.work import Work


class _Current(NamedTuple):
    """The block that is being read."""

    number: int
    blocker: Blocker
    ready: int
    steps: Iterator[Step]


class _Piece(NamedTuple):
    """A step that has been read, or (without a step) the end of a block."""

    of: _Current
    step: Step | None
    begin: int
    end: int


class PipelineUnit:
    """See the module.

    Args:
        latency: from the last word read until it may be written.
        blocks: numbers of the blocks that it executes.
        completed: told the cycle at which each block completes and its number, in order.
        group: whose UPDATEs it executes.
        drain: told (group, begin, end, words) for what a step takes from lane memories.

    Attributes:
        records: of every block so far.
    """

    def __init__(
        self,
        work: Work,
        agenda: Agenda,
        memory: MemorySystem,
        dispatcher: Dispatcher,
        blocks: list[int],
        latency: int,
        completed: Callable[[int, int], None],
        group: int = 0,
        drain: Callable[[int, int, int, int], None] | None = None,
    ) -> None:
        self.records: list[StepRecord] = []
        self._work, self._agenda, self._memory, self._dispatcher = work, agenda, memory, dispatcher
        self._blocks, self._latency, self._group = blocks, latency, group
        self._completed, self._drain = completed, drain
        self._begun = 0
        self._current: _Current | None = None
        self._pieces: deque[_Piece] = deque()
        self._ahead = 0
        self._free = 0
        self._written: deque[int] = deque([0] * work.assumptions.steps_ahead, maxlen=work.assumptions.steps_ahead)
        self._begin, self._busy, self._last_write = -1, 0, 0
        #: When the last block ended, and whether it and the next one may not overlap.
        self._ended, self._alone = 0, [False]
        if drain is not None:
            self._alone += [work.stands_alone(number) for number in blocks]
        #: Whether the unit will be called for the next instruction.
        self._waiting = False

    def step(self, now: int) -> None:
        """Begin the next block, which may begin now."""
        self._waiting = False
        self._read_ahead(now)

    def _read_ahead(self, now: int) -> None:
        while self._ahead < self._work.assumptions.steps_ahead:
            if self._current is None and not self._next(now):
                return
            assert self._current is not None
            step = next(self._current.steps, None)
            if step is None:
                self._end_block(now)
            else:
                self._read(now, step)

    def _next(self, now: int) -> bool:
        if self._waiting or self._begun == len(self._blocks):
            return False
        number = self._blocks[self._begun]
        alone = self._stands_alone()
        if alone and self._pieces:
            return False
        found = self._dispatcher.ready(number, self.step)
        if found is None:
            self._waiting = True
            return False
        ready, blocker = found
        if alone and self._ended > ready:
            ready, blocker = self._ended, Blocker(Unit.POST, self._begun - 1)
        if ready > now:
            self._waiting = True
            self._agenda.at(ready, self.step)
            return False
        self._begun += 1
        self._dispatcher.begun(number, now, self._group)
        self._current = _Current(number, blocker, ready, self._work.steps(number, self._group))
        return True

    def _stands_alone(self) -> bool:
        """Whether the next block begins when the one before has ended."""
        return any(self._alone[self._begun : self._begun + 2])

    def _read(self, now: int, step: Step) -> None:
        assert self._current is not None
        row = self._work.blocks[self._current.number].row
        arrivals = [self._memory.serve(now, request, row) for request in step.reads]
        begin = max(self._free, now, max((arrival.first for arrival in arrivals), default=0))
        end = max(begin + step.cycles, max((arrival.last for arrival in arrivals), default=0), self._written[0])
        self._free = end
        self._ahead += 1
        self._pieces.append(_Piece(self._current, step, begin, end))
        if self._drain is not None:
            for drain in step.drains:
                self._drain(drain.group, begin, end, drain.words)
        self._agenda.at(end + self._latency, self._write)

    def _end_block(self, now: int) -> None:
        assert self._current is not None
        self._pieces.append(_Piece(self._current, None, now, max(now, self._free)))
        self._current = None
        if len(self._pieces) == 1:
            self._close()

    def _write(self, now: int) -> None:
        piece = self._pieces.popleft()
        assert piece.step is not None
        row = self._work.blocks[piece.of.number].row
        if self._begin < 0:
            self._begin = piece.begin
        self._busy += piece.step.cycles
        written = max((self._memory.serve(now, request, row).last for request in piece.step.writes), default=now)
        self._written.append(written)
        self._last_write = max(self._last_write, written, now)
        self._ahead -= 1
        self._close()
        self._read_ahead(now)

    def _close(self) -> None:
        """Complete the blocks whose last step is written."""
        while self._pieces and self._pieces[0].step is None:
            piece = self._pieces.popleft()
            empty = self._begin < 0
            begin, drained = (piece.end, piece.end) if empty else (self._begin, piece.end)
            end = max(drained, self._last_write, self._dispatcher.dispatched(piece.of.number))
            self._ended = end
            row, of = self._work.blocks[piece.of.number].row, piece.of
            self.records.append(StepRecord(of.number, of.blocker, of.ready, begin, drained, end, self._busy, row))
            self._begin, self._busy = -1, 0
            self._completed(end, of.number)


