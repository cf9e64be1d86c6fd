"""Memory and LOAD of long simulations: the same model, with its inner loops compiled. See `channel_loops`."""

import numpy as np

from fixgrad.machine import Machine
from fixgrad.simulate.dram import ClosedFormChannel, Fidelity
from fixgrad.simulate.timing import channel_loops as loops
from fixgrad.simulate.timing import channel_state as places
from fixgrad.simulate.timing.catalogue import Catalogue
from fixgrad.simulate.timing.channel_state import new_channels, new_load
from fixgrad.simulate.timing.dispatch import Dispatcher
from fixgrad.simulate.timing.events import Agenda, Progress
from fixgrad.simulate.timing.load import LoadUnit
from fixgrad.simulate.timing.memory import Arrival, MemorySystem
from fixgrad.simulate.timing.traffic import Asked, Bundle, RegionRequest, Request
from fixgrad.simulate.timing.work import Work

_NEVER = np.iinfo(np.int64).max


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

    def serve(self, now: int, asked: Request | Bundle | RegionRequest | Asked, row: int) -> Arrival:
        """See `MemorySystem.serve`."""
        found = asked if isinstance(asked, Asked) else self.catalogue.find(asked)
        return Arrival(*loops.serve(self.arrays, self.catalogue.traffic, found[:2], found.base, now, row))

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


class CompiledLoad(LoadUnit):
    """LOAD with its requests in the catalogue of `memory`; it goes on by itself as long as no other unit has anything to do."""

    def __init__(
        self, work: Work, agenda: Agenda, memory: CompiledMemory, dispatcher: Dispatcher, progress: Progress
    ) -> None:
        super().__init__(work, agenda, memory, dispatcher, progress)
        self._compiled = memory
        self._state = new_load(work.assumptions, memory.read_latency)
        self._asks = Asked(0, 0, 0)
        self._known = work.add_loads(memory.catalogue)

    def _open(self, number: int) -> None:
        asks = Asked(*self._known[len(self.records)].tolist())
        self._asks = asks if asks.first >= 0 else self._compiled.catalogue.find(*self._work.load_request(number))
        counters = self._state.integers
        counters[places.PART] = counters[places.BUS] = 0
        counters[places.ASKED] = counters[places.BEGUN] = -1

    def _ask_parts(self, now: int) -> int | None:
        number, memory = self._blocks[len(self.records)], self._compiled
        times = now, self._agenda.next_time(_NEVER), self._dispatcher.dispatched(number)
        requests, base = self._asks[:2], self._asks.base
        row = self._work.blocks[number].row
        free = loops.ask_parts(memory.arrays, memory.catalogue.traffic, self._state, requests, base, times, row)
        counters = self._state.integers
        now = self._agenda.now = int(counters[places.NOW])
        if free != loops.DONE:
            self._agenda.at(free, self.step)
            return None
        self._asked, self._first = int(counters[places.ASKED]), int(counters[places.BEGUN])
        self._bus, self._bus_free = int(counters[places.BUS]), int(counters[places.BUS_FREE])
        return now
