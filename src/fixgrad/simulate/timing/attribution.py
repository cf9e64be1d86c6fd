"""Where the time goes: every cycle of every PE is given to one layer and phase and to one cause, so that the sums close.

A PE computes, or it waits. Why it waits follows from the instruction that its next COMPUTE waited for, and what that one was
doing or waiting for meanwhile, and so on back to the moment at which the PE became idle.
"""

from enum import StrEnum
from typing import NamedTuple, Protocol

from fixgrad.machine.instructions import Unit
from fixgrad.machine.parameters import GROUPS_PER_UPDATE_LANE


class Cause(StrEnum):
    """What a PE's cycle went into."""

    COMPUTE = "compute"
    """A multiply-accumulate."""
    IMBALANCE = "imbalance"
    """Another PE of the group, or another group, had more kernels."""
    POST = "post-processing"
    """The lane memory was read by POST, or POST or LOSS had to finish first."""
    LOAD_BUS = "load bus"
    """LOAD was distributing words or kernels, at its full rate."""
    BANDWIDTH = "dram bandwidth"
    """Data came more slowly than the data bus takes them, or queued behind other transfers."""
    LATENCY = "dram latency"
    """The first data of an idle memory, or the acknowledgement of the last write."""
    DEPENDENCY = "dependency"
    """UPDATE, or the order of instructions: a transfer could not be asked for earlier because its place was in use."""
    FILL = "fill"
    """Pipelines filling and draining, end marks, dispatch."""


class Blocker(NamedTuple):
    """The instruction whose completion an instruction waited for last; `unit` is CONTROL for dispatch.

    An instruction that could not be dispatched earlier, since the queue of POST was full, waited for POST.
    """

    unit: Unit
    number: int


class LoadRecord(NamedTuple):
    """What a block of LOAD did, in cycles. It waited from `asked` to `first` for data that memory delivered until `end`."""

    block: int
    blocker: Blocker
    ready: int
    asked: int
    first: int
    end: int
    bus: int
    row: int


class StepRecord(NamedTuple):
    """What a block of POST or UPDATE did, in cycles: it worked from `begin` to `drained`, and its writes were done at `end`."""

    block: int
    blocker: Blocker
    ready: int
    begin: int
    drained: int
    end: int
    busy: int
    row: int


class Gap(NamedTuple):
    """Cycles [start, end) in which a group waited before an instruction of `row` began."""

    group: int
    start: int
    end: int
    blocker: Blocker
    row: int


class History(Protocol):
    """What the units remember: records of blocks, and which record each instruction of a unit belongs to."""

    loads: list[LoadRecord]
    load_owners: list[int]
    posts: list[StepRecord]
    #: Of each lane.
    updates: list[list[StepRecord]]
    update_owners: list[list[int]]
    update_last: list[int]
    compute_last: list[int]
    compute_times: list[int]
    compute_rows: list[int]
    read_latency: int
    write_latency: int


class Ledger:
    """PE cycles by row and cause.

    Attributes:
        cycles: row -> cause -> PE cycles.
    """

    def __init__(self, rows: int, pes_per_group: int) -> None:
        self.cycles: list[dict[Cause, int]] = [dict.fromkeys(Cause, 0) for _ in range(rows)]
        self._pes = pes_per_group

    def add_pe(self, row: int, cause: Cause, cycles: int) -> None:
        """Cycles of single PEs."""
        self.cycles[row][cause] += cycles

    def add_group(self, row: int, cause: Cause, cycles: int) -> None:
        """Cycles of all PEs of a group."""
        self.cycles[row][cause] += cycles * self._pes

    @property
    def total(self) -> int:
        """PE cycles of everything."""
        return sum(sum(causes.values()) for causes in self.cycles)


def explain(gap: Gap, history: History, ledger: Ledger) -> None:
    """Give every cycle of a gap to a cause, walking back from its end along what was waited for."""
    _Walk(gap, history, ledger).run()


class _Walk:
    def __init__(self, gap: Gap, history: History, ledger: Ledger) -> None:
        self.low, self.high = gap.start, gap.end
        self.group, self.row = gap.group, gap.row
        self.blocker: Blocker | None = gap.blocker
        self._history, self._ledger = history, ledger

    def run(self) -> None:
        while self.high > self.low:
            blocker = self.blocker
            if blocker is None or blocker.unit is Unit.CONTROL:
                self._give(self.low, Cause.FILL)
            elif blocker.unit is Unit.LOAD:
                self._load(self._history.load_owners[blocker.number])
            elif blocker.unit is Unit.COMPUTE:
                self._compute(blocker.number)
            elif blocker.unit is Unit.POST:
                self._steps(self._history.posts, blocker.number, Cause.POST)
            else:
                group = self._history.update_last[blocker.number]
                number = self._history.update_owners[group][blocker.number]
                self._steps(self._history.updates[group // GROUPS_PER_UPDATE_LANE], number, Cause.DEPENDENCY)

    def _give(self, since: int, cause: Cause) -> None:
        """The cycles from `since` to the end of what is left go to `cause`."""
        since = max(since, self.low)
        if since < self.high:
            self._ledger.add_group(self.row, cause, self.high - since)
            self.high = since

    def _mixed(self, since: int, whole: int, part: int, cause: Cause, rest: Cause) -> None:
        """As `_give`, but only the share `part` of `whole` goes to `cause`."""
        since = max(since, self.low)
        if since < self.high:
            length = self.high - since
            given = length * part // whole if whole > 0 else length
            self._ledger.add_group(self.row, cause, given)
            self._ledger.add_group(self.row, rest, length - given)
            self.high = since

    def _load(self, number: int) -> None:
        """Walk back over a LOAD, and over those before it as long as the bus was busy with them."""
        loads, latency = self._history.loads, self._history.read_latency
        while self.high > self.low:
            record, before = loads[number], loads[number - 1].end if number else 0
            self.row = record.row
            self._give(record.end, Cause.FILL)
            span = record.end - record.first
            self._mixed(record.first, span, min(record.bus, span), Cause.LOAD_BUS, Cause.BANDWIDTH)
            since = max(record.asked, before)
            self._give(since + latency, Cause.BANDWIDTH)
            self._give(since, Cause.LATENCY)
            if not number or before < self.high:
                self._give(record.ready, Cause.FILL)
                self.blocker = record.blocker
                return
            number -= 1

    def _compute(self, number: int) -> None:
        """All groups had to finish: this one waited for a slower one, which is imbalance, or for the order of things."""
        history = self._history
        self.row = history.compute_rows[number]
        slowest = history.compute_last[number]
        self._give(history.compute_times[number], Cause.FILL)
        self._give(self.low, Cause.DEPENDENCY if slowest == self.group else Cause.IMBALANCE)

    def _steps(self, records: list[StepRecord], number: int, cause: Cause) -> None:
        """Walk back over a POST or UPDATE, and over those before it as long as the unit was busy with them."""
        latency = self._history.write_latency
        self.row = records[number].row
        self._give(records[number].end, Cause.FILL)
        self._give(records[number].drained + latency, Cause.BANDWIDTH)
        while self.high > self.low:
            record, before = records[number], records[number - 1].drained if number else 0
            self.row = record.row
            self._give(record.drained, Cause.LATENCY)
            span = record.drained - record.begin
            self._mixed(record.begin, span, min(record.busy, span), cause, Cause.BANDWIDTH)
            if not number or before < record.begin:
                self._give(record.ready, Cause.LATENCY)
                self.blocker = record.blocker
                return
            number -= 1
