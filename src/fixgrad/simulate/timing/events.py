"""The event queue, and what instructions wait for: completions of other units, dispatch, and each other's memory."""

from collections.abc import Callable
from heapq import heappop, heappush

#: What a unit does when it may go on, at a cycle.
Action = Callable[[int], None]


class Agenda:
    """Actions in the order of time; those of the same cycle in the order in which they were asked for."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Action]] = []
        self._number = 0
        self.now = 0

    def at(self, time: int, action: Action) -> None:
        """Do `action` at cycle `time`."""
        self._number += 1
        heappush(self._heap, (time, self._number, action))

    def next_time(self, never: int) -> int:
        """Cycle of the next action, or `never`."""
        return self._heap[0][0] if self._heap else never

    def run(self) -> None:
        """Do everything."""
        heap = self._heap
        while heap:
            self.now, _, action = heappop(heap)
            action(self.now)


class Progress:
    """Completions of a unit, in program order. A time may lie ahead of the agenda's: it is known before it comes."""

    def __init__(self, agenda: Agenda) -> None:
        self.times: list[int] = []
        self._agenda = agenda
        self._waiting: list[tuple[int, Action]] = []

    def complete(self, time: int, count: int = 1) -> None:
        """The next `count` instructions complete at `time`, or with the one before them if that is later."""
        times = self.times
        if times and times[-1] > time:
            time = times[-1]
        if count == 1:
            times.append(time)
        else:
            times.extend([time] * count)
        if self._waiting:
            known = len(times)
            ready = [action for count, action in self._waiting if count <= known]
            if ready:
                self._waiting = [item for item in self._waiting if item[0] > known]
                for action in ready:
                    self._agenda.at(max(time, self._agenda.now), action)

    def when_known(self, count: int, action: Action) -> None:
        """Do `action` when `count` instructions have completed."""
        self._waiting.append((count, action))


class SharedProgress(Progress):
    """Completions of a unit that several groups share: an instruction has completed when it has in every group.

    Attributes:
        last: of each instruction, the group that completed it last.
    """

    def __init__(self, agenda: Agenda, groups: int) -> None:
        super().__init__(agenda)
        self.last: list[int] = []
        self._groups = groups
        self._arrived: list[int] = []
        self._latest: list[int] = []

    def arrive(self, group: int, number: int, time: int) -> None:
        """Instruction `number` (from 0) completes in one group."""
        if number == len(self._arrived):
            self._arrived.append(0)
            self._latest.append(0)
            self.last.append(group)
        self._arrived[number] += 1
        if time >= self._latest[number]:
            self._latest[number] = time
            self.last[number] = group
        if self._arrived[number] == self._groups:
            self.complete(self._latest[number])
