"""Fetch and dispatch: instructions come from memory in order and wait in front of their units."""

from fixgrad.machine.instructions import INSTRUCTION_BYTES, Unit
from fixgrad.simulate.timing.attribution import Blocker
from fixgrad.simulate.timing.events import Action, Agenda, Progress
from fixgrad.simulate.timing.memory import MemorySystem
from fixgrad.simulate.timing.traffic import Request
from fixgrad.simulate.timing.work import WAIT_UNITS, Work

_DISPATCH = Blocker(Unit.CONTROL, 0)


class Dispatcher:
    """Fetches the program and hands its instructions to the units' queues; says when an instruction may begin.

    Args:
        work: the program.
        agenda, memory: shared by all units.
        progress: completions of LOAD, COMPUTE, POST and UPDATE.
        program_address: where the program lies.
    """

    def __init__(
        self, work: Work, agenda: Agenda, memory: MemorySystem, progress: tuple[Progress, ...], program_address: int
    ) -> None:
        self._work, self._agenda, self._memory, self._progress = work, agenda, memory, progress
        self._address = program_address
        machine = work.machine
        self._latency = machine.latencies.dispatch
        self._beats = max(1, INSTRUCTION_BYTES // machine.memory.port_bytes)
        self._block = max(1, work.assumptions.fetch_bytes // INSTRUCTION_BYTES)
        self._times: list[int] = []
        self._fetched: list[int] = []
        self._free = 0
        self._waiting: dict[int, list[Action]] = {}
        self._ready: dict[int, tuple[int, Blocker]] = {}
        #: Instructions of each queue that have been dispatched and begun: LOAD, POST, COMPUTE, and UPDATE of each group.
        self._queue = [self._queue_of(position) for position in range(work.count)]
        self._room = dict.fromkeys(set(self._queue), work.assumptions.queue_instructions)
        self._full: tuple[Unit, int] | None = None

    def _queue_of(self, position: int) -> tuple[Unit, int]:
        unit = self._work.units[position]
        return unit, self._work.group_of(position) if unit is Unit.UPDATE else 0

    def start(self) -> None:
        """Begin to fetch."""
        self._agenda.at(0, self._fetch)
        self._agenda.at(0, self.run)

    def _fetch(self, now: int) -> None:
        first = len(self._fetched) * self._block
        count = min(self._block, self._work.count - first)
        if count <= 0:
            return
        request = Request(self._address + first * INSTRUCTION_BYTES, count * INSTRUCTION_BYTES)
        self._fetched.append(self._memory.serve(now, request, self._work.row[first]).last)

    def run(self, now: int) -> None:
        """Dispatch as many instructions as have been fetched and find room."""
        work, times, room = self._work, self._times, self._room
        self._full = None
        free = max(self._free, now)
        while len(times) < work.count:
            position = len(times)
            block, inside = divmod(position, self._block)
            if self._fetched[block] > free:
                self._agenda.at(self._fetched[block], self.run)
                break
            queue = self._queue[position]
            if not room[queue]:
                self._full = queue
                break
            room[queue] -= 1
            if inside == 0:
                self._agenda.at(free, self._fetch)
            free += self._beats
            times.append(free + self._latency)
            for action in self._waiting.pop(position, ()):
                self._agenda.at(times[position], action)
            if inside == self._block - 1:  # the next block's fetch, asked for above, must have been served
                self._agenda.at(free, self.run)
                break
        self._free = free

    def begun(self, position: int, now: int) -> None:
        """A unit has taken an instruction out of its queue."""
        queue = self._queue[position]
        self._room[queue] += 1
        if self._full == queue:
            self._full = None
            self._agenda.at(now, self.run)

    def ready(self, position: int, action: Action) -> tuple[int, Blocker] | None:
        """When an instruction may begin, and what it waited for last; None if that is not known yet.

        In that case `action` is put on the agenda for when more is known.
        """
        known = self._ready.get(position)
        if known is not None:
            return known
        if position >= len(self._times):
            self._waiting.setdefault(position, []).append(action)
            return None
        time, blocker = self._times[position], _DISPATCH
        for unit, progress, count in zip(WAIT_UNITS, self._progress, self._work.waits[position], strict=True):
            if not count:
                continue
            if count > len(progress.times):
                progress.when_known(count, action)
                return None
            if progress.times[count - 1] > time:
                time, blocker = progress.times[count - 1], Blocker(unit, count - 1)
        self._ready[position] = time, blocker
        return time, blocker
