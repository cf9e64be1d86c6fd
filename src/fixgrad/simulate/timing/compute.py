"""COMPUTE: every group takes its kernels at its own pace; POST and UPDATE take cycles from it when they read its memories."""

from collections import deque
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine.instructions import Unit
from fixgrad.simulate.timing.attribution import Blocker, Gap
from fixgrad.simulate.timing.dispatch import Dispatcher
from fixgrad.simulate.timing.events import Agenda, SharedProgress
from fixgrad.simulate.timing.holds import SHARES, Hold
from fixgrad.simulate.timing.work import Work


class Run(NamedTuple):
    """A COMPUTE of one group: cycles [start, end), of which POST and UPDATE took `stolen`."""

    start: int
    end: int
    stolen: int


class GroupRuns(Protocol):
    """What a group did; `runs` is every COMPUTE, `run_array` the same as int64 [computes, 3]."""

    group: int

    @property
    def runs(self) -> list[Run]: ...

    def run_array(self) -> NDArray[np.int64]: ...


class ComputeGroup:
    """The PEs of one group.

    Attributes:
        runs: of every COMPUTE so far.
        gaps: in which it waited.
    """

    def __init__(
        self,
        group: int,
        work: Work,
        agenda: Agenda,
        dispatcher: Dispatcher,
        progress: SharedProgress,
        begun: list[int],
    ) -> None:
        self.group = group
        self.runs: list[Run] = []
        self.gaps: list[Gap] = []
        self.free = 0
        self._work, self._agenda, self._dispatcher, self._progress = work, agenda, dispatcher, progress
        self._blocks = work.numbers(Unit.COMPUTE)
        self._cycles: list[int] = work.group_cycles[:, group].tolist()
        self._holds: list[list[int]] = work.holds.tolist()
        #: Groups that have begun each COMPUTE, shared by all groups: its place in the queue is free after the last.
        self._begun = begun
        self._drains: deque[tuple[int, int, int, int]] = deque()
        self._start = self._end = -1
        self._stolen = 0

    def run_array(self) -> NDArray[np.int64]:
        """`runs` as an array, [computes, 3]."""
        return np.array(self.runs, np.int64).reshape(-1, 3)

    def drain(self, begin: int, end: int, words: int, hold: Hold) -> None:
        """POST reads `words` words of each PE's lane memory between two cycles, or UPDATE as many gradients."""
        if words:
            self._drains.append((begin, end, words, hold))

    def rest(self) -> int:
        """`Hold.REST` of the COMPUTE that runs now."""
        return self._holds[len(self.runs)][Hold.REST] if self._start >= 0 else 0

    def step(self, now: int) -> None:
        """Finish what ends now, and begin the next."""
        if self._start >= 0 and not self._finish(now):
            return
        number = len(self.runs)
        if number == len(self._blocks):
            return
        found = self._dispatcher.ready(self._blocks[number], self.step)
        if found is None:
            return
        ready, blocker = found
        if ready > now:
            self._agenda.at(ready, self.step)
            return
        self._begin(number, max(ready, self.free), blocker)

    def _begin(self, number: int, start: int, blocker: Blocker) -> None:
        block = self._blocks[number]
        if start > self.free:
            self.gaps.append(Gap(self.group, self.free, start, blocker, self._work.blocks[block].row))
        self._begun[number] += 1
        if self._begun[number] == self._work.machine.groups:
            self._dispatcher.begun(block, start)
        self._start, self._stolen = start, 0
        self._end = start + self._cycles[number]
        self._agenda.at(self._end, self.step)

    def _finish(self, now: int) -> bool:
        """Whether the COMPUTE ends now; otherwise it ends later, by the cycles that were taken meanwhile."""
        if now < self._end:
            return False
        stolen = self._stolen_until(now) if self._drains else 0
        if stolen > self._stolen:
            self._end += stolen - self._stolen
            self._stolen = stolen
            self._agenda.at(self._end, self.step)
            return False
        number = len(self.runs)
        self.runs.append(Run(self._start, self._end, self._stolen))
        self.free = self._end
        self._start = -1
        while self._drains and self._drains[0][1] <= now:
            self._drains.popleft()
        self._progress.arrive(self.group, number, self._end)
        return True

    def _stolen_until(self, now: int) -> int:
        """Cycles that POST and UPDATE take between the start and `now`: they spread their words evenly over their steps."""
        stolen, holds = 0, self._holds[len(self.runs)]
        for begin, end, words, hold in self._drains:
            length = max(end - begin, 1)
            before, after = (min(max(time - begin, 0), length) for time in (self._start, now))
            stolen += (words * after // length - words * before // length) * holds[hold]
        return stolen // SHARES
