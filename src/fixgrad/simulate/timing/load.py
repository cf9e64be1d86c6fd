"""LOAD: asks memory ahead of what it distributes, and distributes in order over one data bus."""

from collections import deque
from collections.abc import Iterator

from fixgrad.machine.instructions import Unit
from fixgrad.simulate.timing.attribution import Blocker, LoadRecord
from fixgrad.simulate.timing.dispatch import Dispatcher
from fixgrad.simulate.timing.events import Agenda, Progress
from fixgrad.simulate.timing.memory import MemorySystem
from fixgrad.simulate.timing.work import LoadPart, Work


class LoadUnit:
    """See the module.

    Attributes:
        records: of every block so far.
        owners: of every instruction, the number of its record.
    """

    def __init__(
        self, work: Work, agenda: Agenda, memory: MemorySystem, dispatcher: Dispatcher, progress: Progress
    ) -> None:
        self.records: list[LoadRecord] = []
        self.owners: list[int] = []
        self._work, self._agenda, self._memory = work, agenda, memory
        self._dispatcher, self._progress = dispatcher, progress
        self._blocks = work.numbers(Unit.LOAD)
        self._leads: list[int] = work.leads.tolist()
        self._inside = False
        self._parts: Iterator[LoadPart] | None = None
        self._part: LoadPart | None = None
        #: (when distributed, requests, bytes) of every part that was asked for, oldest first.
        self._outstanding: deque[tuple[int, int, int]] = deque()
        self._requests = self._bytes = 0
        self._bus_free = 0
        self._blocker, self._ready, self._asked, self._first, self._bus = Blocker(Unit.CONTROL, 0), 0, -1, -1, 0

    def step(self, now: int) -> None:
        """Ask for as much as may be asked for now."""
        while self._inside or self._begin(now):
            reached = self._ask_parts(now)
            if reached is None:
                return
            now = reached
            self._finish(now)

    def _ask_parts(self, now: int) -> int | None:
        """Ask for what is left of a block; the cycle at which that is done, or None if LOAD will be called again."""
        assert self._parts is not None
        while self._part is not None:
            free = self._window(now, self._part)
            if free > now:
                self._agenda.at(free, self.step)
                return None
            self._ask(now, self._part)
            self._part = next(self._parts, None)
        return now

    def _begin(self, now: int) -> bool:
        if len(self.records) == len(self._blocks):
            return False
        number = self._blocks[len(self.records)]
        found = self._dispatcher.ready(number, self.step)
        if found is None:
            return False
        self._ready, self._blocker = found
        if self._ready > now:
            self._agenda.at(self._ready, self.step)
            return False
        self._dispatcher.begun(number, now)
        self._inside = True
        self._open(number)
        return True

    def _open(self, number: int) -> None:
        """Look up what a block asks for."""
        self._parts = self._work.load_parts(number)
        self._part = next(self._parts, None)
        self._asked = self._first = -1
        self._bus = 0

    def _window(self, now: int, part: LoadPart) -> int:
        """When the part may be asked for: requests and bytes outstanding are limited, but one part always may be.

        A part of many requests asks for them as places become free; here it counts as half of the places.
        """
        limits, outstanding = self._work.assumptions, self._outstanding
        free = now
        while outstanding and (
            outstanding[0][0] <= free
            or self._requests + min(part.number, -(-limits.load_requests // 2)) > limits.load_requests
            or self._bytes + part.bytes > limits.load_bytes
        ):
            done, requests, held = outstanding.popleft()
            self._requests -= requests
            self._bytes -= held
            free = max(free, done)
        return free

    def _ask(self, now: int, part: LoadPart) -> None:
        number = self._blocks[len(self.records)]
        row = self._work.blocks[number].row
        first, last = now, max(now, self._dispatcher.dispatched(number))
        for request in part.requests:
            arrival = self._memory.serve(now, request, row)
            first, last = max(first, arrival.first), max(last, arrival.last)
        limit = self._work.assumptions.load_requests
        if part.number > limit:  # no more than `limit` requests are on their way at a time
            last = max(last, now + part.number * self._memory.read_latency // limit)
        lead = self._leads[len(self.records)] if self._asked < 0 else 0
        begin = max(self._bus_free + lead, first)
        end = max(begin + part.bus, last)
        if self._asked < 0:
            self._asked, self._first = now, begin
        self._bus += part.bus
        self._bus_free = end
        self._outstanding.append((end, min(part.number, -(-limit // 2)), part.bytes))
        self._requests += min(part.number, -(-limit // 2))
        self._bytes += part.bytes

    def _finish(self, now: int) -> None:
        number = self._blocks[len(self.records)]
        block = self._work.blocks[number]
        asked, first = (self._asked, self._first) if self._asked >= 0 else (now, now)
        end = max(self._bus_free, first)
        self._inside = False
        self.owners.extend([len(self.records)] * block.count)
        self.records.append(LoadRecord(number, self._blocker, self._ready, asked, first, end, self._bus, block.row))
        self._progress.complete(end, block.count)
