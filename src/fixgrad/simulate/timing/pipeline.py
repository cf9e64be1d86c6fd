"""POST and the lanes of UPDATE: units that read, work and write in steps, reading ahead and writing behind."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fixgrad.machine.instructions import Unit
from fixgrad.simulate.timing.attribution import Blocker, StepRecord
from fixgrad.simulate.timing.dispatch import Dispatcher
from fixgrad.simulate.timing.events import Action, Agenda
from fixgrad.simulate.timing.holds import SHARES
from fixgrad.simulate.timing.memory import MemorySystem
from fixgrad.simulate.timing.steps import Step
from fixgrad.simulate.timing.work import Work


@dataclass(slots=True)
class Queue:
    """A queue in front of a unit: its blocks, the group whose UPDATEs they are, and how many of them have begun."""

    blocks: list[int]
    group: int = 0
    begun: int = 0
    #: Whether the unit will be called for the next one.
    called: bool = False


class _Current(NamedTuple):
    """The block that is being read. `opens`: when its first step may be read."""

    number: int
    blocker: Blocker
    ready: int
    steps: Iterator[Step]
    opens: int
    group: int


class _Piece(NamedTuple):
    """A step that has been read, or (without a step) the end of a block."""

    of: _Current
    step: Step | None
    begin: int
    end: int


class PipelineUnit:
    """See the module.

    Args:
        queues: whose blocks it executes, in turn.
        latency: from the last word read until it may be written.
        completed: told the cycle at which each block completes, its number and its group, in order.
        drain: told (group, begin, end, words) for what a step takes from memories of PEs.
        rest: asked for a group what its COMPUTE leaves of a step's cycles, see `Hold.REST`.

    Attributes:
        records: of every block so far.
    """

    def __init__(
        self,
        work: Work,
        agenda: Agenda,
        memory: MemorySystem,
        dispatcher: Dispatcher,
        queues: list[Queue],
        latency: int,
        completed: Callable[[int, int, int], None],
        drain: Callable[[int, int, int, int], None],
        rest: Callable[[int], int] | None = None,
    ) -> None:
        self.records: list[StepRecord] = []
        self._work, self._agenda, self._memory, self._dispatcher = work, agenda, memory, dispatcher
        self._queues, self._latency = queues, latency
        self._completed, self._drain, self._rest = completed, drain, rest
        self._calls = [self._call_of(queue) for queue in queues]
        self._turn = 0
        self._current: _Current | None = None
        self._opening, self._opened = False, 0
        self._pieces: deque[_Piece] = deque()
        self._ahead = 0
        self._free = 0
        self._written: deque[int] = deque([0] * work.assumptions.steps_ahead, maxlen=work.assumptions.steps_ahead)
        self._begin, self._busy, self._last_write = -1, 0, 0
        #: When the last block ended, and whether it and the next one of POST may not overlap.
        self._ended = 0
        self._alone = [False, *(work.stands_alone(number) for number in queues[0].blocks)] if rest is None else []

    @property
    def calls(self) -> list[Action]:
        """What begins the next block of each queue."""
        return self._calls

    def _call_of(self, queue: Queue) -> Action:
        def call(now: int) -> None:
            queue.called = False
            self._read_ahead(now)

        return call

    def _read_ahead(self, now: int) -> None:
        while self._ahead < self._work.assumptions.steps_ahead:
            if self._current is None and not self._next(now):
                return
            assert self._current is not None
            if self._current.opens > now:  # it has just been taken
                if not self._opening:
                    self._opening = True
                    self._agenda.at(self._current.opens, self._open)
                return
            step = next(self._current.steps, None)
            if step is None:
                self._end_block(now)
            else:
                self._read(now, step)

    def _open(self, now: int) -> None:
        self._opening = False
        self._read_ahead(now)

    def _next(self, now: int) -> bool:
        """Take the next block of the queue whose turn it is, of those that have one which may begin."""
        count = len(self._queues)
        for place in (*range(self._turn, count), *range(self._turn)):
            queue, call = self._queues[place], self._calls[place]
            if queue.called or queue.begun == len(queue.blocks):
                continue
            number, alone = queue.blocks[queue.begun], any(self._alone[queue.begun : queue.begun + 2])
            if alone and self._pieces:
                continue
            found = self._dispatcher.ready(number, call)
            if alone and found is not None and self._ended > found[0]:
                found = self._ended, Blocker(Unit.POST, queue.begun - 1)
            if found is None or found[0] > now:
                queue.called = True
                if found is not None:
                    self._agenda.at(found[0], call)
                continue
            queue.begun += 1
            self._turn = (place + 1) % count
            self._dispatcher.begun(number, now, queue.group)
            # It has been prepared since it might begin, as soon as that before was.
            opens = max(now, max(found[0], self._opened) + self._work.setup(number, queue.group))
            self._opened = opens
            self._current = _Current(number, found[1], found[0], self._work.steps(number, queue.group), opens, queue.group)
            return True
        return False

    def _read(self, now: int, step: Step) -> None:
        assert self._current is not None
        row = self._work.blocks[self._current.number].row
        arrivals = [self._memory.serve(now, request, row) for request in step.reads]
        begin = max(self._free, now, max((arrival.first for arrival in arrivals), default=0))
        cycles = step.cycles if self._rest is None else step.cycles + step.cycles * self._rest(self._current.group) // SHARES
        end = max(begin + cycles, max((arrival.last for arrival in arrivals), default=0), self._written[0])
        self._free = end
        self._ahead += 1
        self._pieces.append(_Piece(self._current, step, begin, end))
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
            self._completed(end, of.number, of.group)


