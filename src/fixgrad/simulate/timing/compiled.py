"""Long simulations: the same model, compiled. See `event_loops`, `gap_loops` and `channel_loops`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit
from fixgrad.machine.parameters import GROUPS_PER_UPDATE_LANE
from fixgrad.simulate.dram import ClosedFormChannel, Fidelity
from fixgrad.simulate.timing import channel_loops as loops
from fixgrad.simulate.timing import channel_state as places
from fixgrad.simulate.timing import event_loops, gap_loops
from fixgrad.simulate.timing.attribution import Blocker, Cause, Ledger, LoadRecord, StepRecord
from fixgrad.simulate.timing.catalogue import Catalogue
from fixgrad.simulate.timing.channel_state import Integers, new_channels, new_load
from fixgrad.simulate.timing.compute import Run
from fixgrad.simulate.timing.event_state import CONTROL, COUNT, HALT_NUMBER, HALT_UNIT, HALTED, ROW, new_state
from fixgrad.simulate.timing.gap_loops import Owners
from fixgrad.simulate.timing.memory import Arrival, MemorySystem
from fixgrad.simulate.timing.plan import new_plan
from fixgrad.simulate.timing.traffic import Bundle, RegionRequest, Request
from fixgrad.simulate.timing.work import WAIT_UNITS, Work


class CompiledMemory(MemorySystem):
    """Channels by closed forms, whose state lies in arrays while a simulation runs.

    Args:
        machine: whose memory.
    """

    catalogue: Catalogue

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, Fidelity.CLOSED_FORM)
        self._machine = machine
        self.catalogue = Catalogue(self.interleaving, self._channel.form, machine.lanes, machine.load_words)
        self.begin(1)

    @property
    def _channel(self) -> ClosedFormChannel:
        channel = self.channels[0]
        assert isinstance(channel, ClosedFormChannel)
        return channel

    def begin(self, rows: int) -> None:
        """Count for a result of `rows` rows."""
        self.arrays = new_channels(self._channel, self._machine, rows)

    def serve(self, now: int, asked: Request | Bundle | RegionRequest, row: int) -> Arrival:
        """See `MemorySystem.serve`."""
        found = self.catalogue.find(asked)
        return Arrival(*loops.serve_once(self.arrays, self.catalogue.traffic, found[:2], found.base, now, row))

    def finish(self) -> None:
        """Hand over what the channels have counted."""
        arrays = self.arrays
        self.row_bytes = arrays.row_bytes.tolist()
        for number, channel in enumerate(self.channels):
            counts, times, totals = arrays.integers[number].tolist(), arrays.floats[number].tolist(), channel.totals
            totals.transfers, totals.bursts = counts[places.TRANSFERS], counts[places.BURSTS]
            totals.bytes_read, totals.bytes_written = counts[places.BYTES_READ], counts[places.BYTES_WRITTEN]
            totals.row_misses, totals.turnarounds = counts[places.ROW_MISSES], counts[places.TURNAROUNDS]
            totals.busy_ns, totals.refresh_ns = times[places.BUSY_NS], times[places.REFRESH_NS]


class CompiledGroup:
    """What a group did. See `GroupRuns`.

    Args:
        group: its number.
        found: `State.runs` of it, [computes, 5].
    """

    def __init__(self, group: int, found: Integers) -> None:
        self.group, self._found = group, found

    @property
    def runs(self) -> list[Run]:
        """Every COMPUTE."""
        return [Run(*row) for row in self.run_array().tolist()]

    def run_array(self) -> Integers:
        """Start, end and stolen cycles of every COMPUTE, [computes, 3]."""
        return self._found[:, :3]


class Compiled:
    """A program that has been run by `event_loops`. As `Interpreted`; lists of records are made when they are asked for.

    Args:
        work: the program.
        memory: of the machine; it counts what it moves.
        program_address: where the program lies.
    """

    def __init__(self, work: Work, memory: CompiledMemory, program_address: int) -> None:
        announce_compilation(_known())
        self._work, self._memory = work, memory
        self._plan = plan = new_plan(work, memory.catalogue, program_address)
        self._state = state = new_state(plan)
        event_loops.run(memory.arrays, memory.catalogue.traffic, new_load(work.assumptions, memory.read_latency), plan, state)
        self.cycles = int(state.counters[HALTED])
        assert self.cycles, "the program never reached its HALT"
        self.groups = [CompiledGroup(group, state.runs[:, group]) for group in range(work.machine.groups)]

    def explain(self, ledger: Ledger) -> None:
        """Give every cycle in which a group waited to a cause."""
        plan, state = self._plan, self._state
        cells, counters = np.zeros((len(self._work.rows), len(Cause)), np.int64), state.counters
        latencies = self._memory.read_latency, self._memory.write_latency
        owners = Owners(self._load_owners, self._update_owners, *latencies, GROUPS_PER_UPDATE_LANE)
        halt = int(counters[HALT_UNIT]), int(counters[HALT_NUMBER])
        gap_loops.explain_all(plan, state, owners, cells, self.cycles, halt)
        for row, causes in enumerate(cells.tolist()):
            for cause, cycles in zip(Cause, causes, strict=True):
                ledger.add_group(row, cause, cycles)

    @property
    def _load_owners(self) -> Integers:
        """Block of each LOAD, among those of LOAD."""
        counts = self._plan.blocks[self._plan.load_blocks, COUNT]
        return np.repeat(np.arange(len(counts)), counts)

    @property
    def _update_owners(self) -> Integers:
        """Item of each UPDATE of each group, [UPDATEs, groups]: all groups have as many."""
        first, counts = int(self._plan.item_first[1]), self._plan.item_counts
        of = np.repeat(np.arange(first, len(counts)), counts[first:])
        return np.ascontiguousarray(of.reshape(len(self.groups), -1).T)

    @property
    def loads(self) -> list[LoadRecord]:
        """See `Simulation`."""
        plan, blocks = self._plan, self._plan.load_blocks
        columns = zip(blocks.tolist(), self._state.load_records.tolist(), plan.blocks[blocks, ROW].tolist(), strict=True)
        return [
            LoadRecord(block, _blocker(unit, of), ready, asked, first, end, bus, row)
            for block, (unit, of, ready, asked, first, end, bus), row in columns
        ]

    def _step_records(self, pipeline: int) -> list[StepRecord]:
        plan, queues = self._plan, self._plan.queues[pipeline : pipeline + 2]
        of = self._state.order[slice(*self._plan.item_first[queues].tolist())]
        blocks = plan.items[of]
        columns = zip(blocks.tolist(), self._state.step_records[of].tolist(), plan.blocks[blocks, ROW].tolist(), strict=True)
        return [
            StepRecord(block, _blocker(unit, of), ready, begin, drained, end, busy, row)
            for block, (unit, of, ready, begin, drained, end, busy), row in columns
        ]

    @property
    def posts(self) -> list[StepRecord]:
        """See `Simulation`."""
        return self._step_records(0)

    @property
    def updates(self) -> list[list[StepRecord]]:
        """See `Simulation`."""
        return [self._step_records(1 + lane) for lane in range(len(self._plan.queues) - 2)]


def _blocker(unit: int, number: int) -> Blocker:
    return Blocker(WAIT_UNITS[unit] if unit < CONTROL else Unit.CONTROL, number)


def announce_compilation(known: bool) -> None:
    """Say on a terminal that numba compiles the loops, unless they are `known` from an earlier run."""
    if sys.stderr.isatty() and not known:
        print("compiling the simulator's loops once", file=sys.stderr, flush=True)


def _known() -> bool:
    """Whether numba has the loops in memory, or on disk and not of an older version."""
    kept: Any = event_loops.run  # what numba makes of it
    source = Path(event_loops.__file__).stat().st_mtime
    found = Path(kept.stats.cache_path).glob("event_loops.run-*.nbi")
    return bool(kept.signatures) or any(index.stat().st_mtime > source for index in found)
