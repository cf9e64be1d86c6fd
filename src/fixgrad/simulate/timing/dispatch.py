"""Fetch and dispatch: instructions come from memory in order and wait in front of their units."""

from fixgrad.machine.instructions import INSTRUCTION_BYTES, Unit
from fixgrad.simulate.timing.attribution import Blocker
from fixgrad.simulate.timing.events import Action, Agenda, Progress
from fixgrad.simulate.timing.memory import MemorySystem
from fixgrad.simulate.timing.traffic import Request
from fixgrad.simulate.timing.work import UNIT_OF, WAIT_UNITS, Work

_DISPATCH = Blocker(Unit.CONTROL, 0)
#: A queue in front of a unit; each group has one for UPDATE.
Queue = tuple[Unit, int]


class Dispatcher:
    """Fetches the program and hands its instructions to the units' queues; says when a block may begin.

    A block of several instructions is handed over as one, when there is room for all of them; its unit begins with the first
    one, and does not end before the last one has come.

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
        self._latency, self._completion = machine.latencies.dispatch, work.assumptions.completion
        self._beats = max(1, INSTRUCTION_BYTES // machine.memory.port_bytes)
        self._page = work.fetch_instructions
        #: When the first instruction of each block may begin, and when the last one may.
        self._times: list[int] = []
        self._last: list[int] = []
        self._first = 0
        #: When the first instruction of each page is on chip; the others follow at the rate of the port, at which they leave.
        self._fetched: list[int] = []
        #: Instructions of the block to be dispatched next that have been dispatched.
        self._inside = 0
        self._free = 0
        #: What dispatch waited for last, other than memory: POST, whose queue was full. Of each block, what it was then.
        self._held_by = _DISPATCH
        self._holders: list[Blocker] = []
        self._post_numbers = {number: place for place, number in enumerate(work.numbers(Unit.POST))}
        self._waiting: dict[int, list[Action]] = {}
        self._ready: dict[int, tuple[int, Blocker]] = {}
        depth = work.assumptions.queue_instructions
        self._depth = depth
        self._room: dict[Queue, int] = {(unit, 0): depth for unit in Unit}
        self._room.update({(Unit.UPDATE, group): depth for group in range(machine.groups)})
        self._full: Queue | None = None

    def _taken(self, number: int) -> list[tuple[Queue, int]]:
        """The queues that a block joins, and the places that it takes in each."""
        block, depth = self._work.blocks[number], self._depth
        unit = UNIT_OF[block.name]
        if unit is not Unit.UPDATE:
            return [((unit, 0), block.count if block.count < depth else depth)]
        counts = ((group, self._work.update_count(number, group)) for group in range(self._work.machine.groups))
        return [((unit, group), min(count, depth)) for group, count in counts if count]

    def start(self) -> None:
        """Begin to fetch."""
        for _ in range(self._work.assumptions.fetch_bursts):
            self._agenda.at(0, self._fetch)
        self._agenda.at(0, self.run)

    def _fetch(self, now: int) -> None:
        first = len(self._fetched) * self._page
        count = min(self._page, self._work.instructions - first)
        if count <= 0:
            return
        block = min(len(self._times), len(self._work.blocks) - 1)
        request = Request(self._address + first * INSTRUCTION_BYTES, count * INSTRUCTION_BYTES)
        self._fetched.append(self._memory.serve(now, request, self._work.blocks[block].row).first)

    def run(self, now: int) -> None:
        """Dispatch as many instructions as have been fetched and find room."""
        blocks = self._work.blocks
        self._full = None
        self._free = max(self._free, now)
        while len(self._times) < len(blocks):
            number = len(self._times)
            taken = self._taken(number)
            for queue, count in taken:
                if self._room[queue] < count:
                    self._full = queue
                    return
            if not self._pass(blocks[number].first, blocks[number].count):
                return
            for queue, count in taken:
                self._room[queue] -= count
            self._inside = 0
            time = self._first + self._latency
            self._times.append(time)
            self._last.append(self._free + self._latency)
            self._holders.append(self._held_by)
            for action in self._waiting.pop(number, ()):
                self._agenda.at(max(time, now), action)

    def _pass(self, first: int, count: int) -> bool:
        """Dispatch the instructions of a block page by page; False if the next page is not there yet."""
        while self._inside < count:
            page, place = divmod(first + self._inside, self._page)
            if page >= len(self._fetched):  # its fetch is on the agenda before this
                self._agenda.at(self._free, self.run)
                return False
            if self._fetched[page] > self._free:
                self._agenda.at(self._fetched[page], self.run)
                return False
            if place == 0:
                self._agenda.at(self._free, self._fetch)
            here = min(count - self._inside, self._page - place)
            if not self._inside:
                self._first = self._free + self._beats
            self._inside += here
            self._free += here * self._beats
        return True

    def begun(self, number: int, now: int, group: int = 0) -> None:
        """A unit has taken a block out of its queue (UPDATE: the queue of `group`)."""
        block = self._work.blocks[number]
        unit = UNIT_OF[block.name]
        count = self._work.update_count(number, group) if unit is Unit.UPDATE else block.count
        self._ready.pop(number, None)
        queue = unit, group
        self._room[queue] += min(count, self._depth)
        if self._full == queue:
            if unit is Unit.POST and self._post_numbers[number]:
                self._held_by = Blocker(Unit.POST, self._post_numbers[number] - 1)
            self._full = None
            self._agenda.at(now, self.run)

    def dispatched(self, number: int) -> int:
        """When the last instruction of a block that is ready may begin."""
        return self._last[number]

    def ready(self, number: int, action: Action) -> tuple[int, Blocker] | None:
        """When a block may begin, and what it waited for last; None if that is not known yet.

        In that case `action` is put on the agenda for when more is known.
        """
        known = self._ready.get(number)
        if known is not None:
            return known
        if number >= len(self._times):
            self._waiting.setdefault(number, []).append(action)
            return None
        time, blocker = self._times[number], self._holders[number]
        for unit, progress, count in zip(WAIT_UNITS, self._progress, self._work.blocks[number].waits, strict=True):
            if not count:
                continue
            if count > len(progress.times):
                progress.when_known(count, action)
                return None
            if progress.times[count - 1] + self._completion > time:
                time, blocker = progress.times[count - 1] + self._completion, Blocker(unit, count - 1)
        self._ready[number] = time, blocker
        return time, blocker
