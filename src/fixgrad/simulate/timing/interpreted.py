"""A simulation action by action in Python: for programs of any length, every DRAM model, and for a timeline."""

from collections.abc import Callable

from fixgrad.machine.instructions import Unit
from fixgrad.machine.parameters import GROUPS_PER_UPDATE_LANE
from fixgrad.simulate.timing.attribution import Gap, Ledger, LoadRecord, StepRecord, explain
from fixgrad.simulate.timing.compute import ComputeGroup
from fixgrad.simulate.timing.dispatch import Dispatcher
from fixgrad.simulate.timing.events import Action, Agenda, Progress, SharedProgress
from fixgrad.simulate.timing.holds import Hold
from fixgrad.simulate.timing.load import LoadUnit
from fixgrad.simulate.timing.memory import MemorySystem
from fixgrad.simulate.timing.pipeline import PipelineUnit, Queue
from fixgrad.simulate.timing.work import Work


class Interpreted:
    """A program that has been run; a `History`.

    Args:
        work: the program.
        memory: of the machine; it counts what it moves.
        program_address: where the program lies.

    Attributes:
        groups: with their runs.
        cycles: from the start to HALT.
    """

    def __init__(self, work: Work, memory: MemorySystem, program_address: int) -> None:
        machine = work.machine
        self._work, self._memory = work, memory
        self._agenda = agenda = Agenda()
        load, post = Progress(agenda), Progress(agenda)
        self._compute = SharedProgress(agenda, machine.groups)
        self._update = SharedProgress(agenda, machine.groups)
        progress = (load, self._compute, post, self._update)
        self._dispatcher = dispatcher = Dispatcher(work, agenda, memory, progress, program_address)
        begun = [0] * len(work.group_cycles)
        self.groups = [
            ComputeGroup(group, work, agenda, dispatcher, self._compute, begun) for group in range(machine.groups)
        ]
        self._load = LoadUnit(work, agenda, memory, dispatcher, load)
        posts, latency = [Queue(work.numbers(Unit.POST))], work.assumptions.post_end
        self._post = PipelineUnit(work, agenda, memory, dispatcher, posts, latency, _without_number(post), self._drain)
        self.update_owners: list[list[int]] = [[] for _ in range(machine.groups)]
        self._lanes = [self._lane(lane) for lane in range(machine.update_lanes)]
        self.cycles = 0
        self._run()
        self.loads, self.load_owners, self.posts = self._load.records, self._load.owners, self._post.records
        self.updates = [unit.records for unit in self._lanes]
        self.update_last, self.compute_last, self.compute_times = self._update.last, self._compute.last, self._compute.times
        self.compute_rows: list[int] = work.arrays.row[work.numbers(Unit.COMPUTE)].tolist()
        self.read_latency, self.write_latency = memory.read_latency, memory.write_latency

    loads: list[LoadRecord]
    posts: list[StepRecord]

    def _drain(self, group: int, begin: int, end: int, words: int) -> None:
        self.groups[group].drain(begin, end, words, Hold.LANES)

    def _take(self, group: int, begin: int, end: int, words: int) -> None:
        self.groups[group].drain(begin, end, words, Hold.GRADIENTS)

    def _rest(self, group: int) -> int:
        return self.groups[group].rest()

    def _lane(self, lane: int) -> PipelineUnit:
        work, numbers, first = self._work, self._work.numbers(Unit.UPDATE), lane * GROUPS_PER_UPDATE_LANE
        queues = [
            Queue([number for number in numbers if work.update_count(number, group)], group)
            for group in range(first, min(first + GROUPS_PER_UPDATE_LANE, work.machine.groups))
        ]
        blocks = 0

        def complete(time: int, number: int, group: int) -> None:
            nonlocal blocks
            owners = self.update_owners[group]
            for _ in range(work.update_count(number, group)):
                self._update.arrive(group, len(owners), time)
                owners.append(blocks)
            blocks += 1

        parts, latency = (work, self._agenda, self._memory, self._dispatcher), work.assumptions.update_walk
        return PipelineUnit(*parts, queues, latency, complete, self._take, self._rest)

    def _run(self) -> None:
        self._dispatcher.start()
        steps: list[Action] = [unit.step for unit in self.groups]
        steps += [self._load.step, *self._post.calls, *(call for lane in self._lanes for call in lane.calls)]
        for step in steps:
            self._agenda.at(0, step)
        self._halt = self._work.numbers(Unit.CONTROL)[-1]
        self._agenda.at(0, self._stop)
        self._agenda.run()
        assert self.cycles, "the program never reached its HALT"

    def _stop(self, now: int) -> None:
        found = self._dispatcher.ready(self._halt, self._stop)
        if found is not None:
            self.cycles, self._halt_blocker = found

    def explain(self, ledger: Ledger) -> None:
        """Give every cycle in which a group waited to a cause."""
        for group in self.groups:
            for gap in group.gaps:
                explain(gap, self, ledger)
            if group.free < self.cycles:
                row = self._work.blocks[self._halt].row
                explain(Gap(group.group, group.free, self.cycles, self._halt_blocker, row), self, ledger)


def _without_number(progress: Progress) -> Callable[[int, int, int], None]:
    """What completes a block of one instruction."""

    def complete(time: int, number: int, group: int) -> None:
        progress.complete(time)

    return complete
