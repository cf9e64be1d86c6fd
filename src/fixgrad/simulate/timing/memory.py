"""The machine's memory as its units see it: requests go round the channels, ports and DRAM share out the time."""

from math import ceil
from typing import NamedTuple

from fixgrad.machine import Machine
from fixgrad.simulate.dram import Channel, Clock, Fidelity, Transfer, load_standard, open_channel
from fixgrad.simulate.timing.catalogue import Catalogue
from fixgrad.simulate.timing.channel_state import ROUNDING
from fixgrad.simulate.timing.traffic import Bundle, Interleaving, RegionRequest, Request, requests


class Arrival(NamedTuple):
    """When the data of a request are on chip (read) or acknowledged (write), in cycles."""

    first: int
    last: int


class Sample(NamedTuple):
    """Bytes that a channel moved in one service, for the timeline."""

    start: int
    end: int
    channel: int
    bytes: int
    write: bool


class MemorySystem:
    """All channels of a machine. Calls must come in the order of time.

    Attributes:
        channels: see `fixgrad.simulate.dram`.
        interleaving: how they share addresses.
        row_bytes: bytes that DRAM moved for each row of the result, whole bursts.
        samples: what each service moved, if they are kept.
        catalogue: of a compiled memory: requests known beforehand.
        read_latency, write_latency: cycles of one burst on an idle channel.
    """

    def __init__(self, machine: Machine, fidelity: Fidelity, keep_samples: bool = False) -> None:
        memory = machine.memory
        standard = load_standard(memory.standard)
        self.channels: list[Channel] = [open_channel(standard, fidelity) for _ in range(memory.channels)]
        self.interleaving = Interleaving(memory.channels, memory.interleave, standard.burst_bytes)
        self.row_bytes = [0]
        self.catalogue: Catalogue | None = None
        self.samples: list[Sample] | None = [] if keep_samples else None
        self._ns = 1000.0 / machine.clock_mhz
        self._port_bytes = memory.port_bytes
        #: When the read port and the write port of each channel are free.
        self._ports = [[0, 0] for _ in self.channels]
        self._totals = [channel.totals for channel in self.channels]
        clock = Clock(machine.clock_mhz)
        self.read_latency, self.write_latency = (
            clock.cycles(open_channel(standard).serve(0.0, Transfer(standard.burst_bytes, write)).end)
            for write in (False, True)
        )

    def serve(self, now: int, asked: Request | Bundle | RegionRequest, row: int) -> Arrival:
        """Serve what a unit asks for at cycle `now` for the work of `row`; of several requests, the latest times."""
        if not isinstance(asked, RegionRequest):
            return self._serve(now, asked, row)
        arrivals = [self._serve(now, request, row) for request in requests(asked.region, asked.limit, asked.write)]
        if not arrivals:
            return Arrival(now, now)
        return Arrival(max(arrival.first for arrival in arrivals), max(arrival.last for arrival in arrivals))

    def begin(self, rows: int) -> None:
        """Count for a result of `rows` rows."""
        self.row_bytes = [0] * rows

    def finish(self) -> None:
        """Everything has been served."""

    def _serve(self, now: int, request: Request | Bundle, row: int) -> Arrival:
        interleaving = self.interleaving
        if type(request) is Bundle:
            transfers = interleaving.bundle_transfers(request)
        else:
            assert type(request) is Request
            transfers = interleaving.transfers(request)
        first = last = bursts = 0
        ns, cycle = now * self._ns, 1.0 / self._ns
        write = request.write
        for number, transfer in transfers:
            totals, port = self._totals[number], self._ports[number]
            bursts -= totals.bursts
            served = self.channels[number].serve(ns, transfer)
            bursts += totals.bursts
            begin = ceil(served.first_data * cycle - ROUNDING)
            free = port[write]
            ported = (begin if begin > free else free) - -transfer.bytes // self._port_bytes
            end = ceil(served.end * cycle - ROUNDING)
            port[write] = end = ported if ported > end else end
            first = first or begin
            last = end if end > last else last
            if self.samples is not None:
                self.samples.append(Sample(now, end, number, transfer.bytes, write))
        self.row_bytes[row] += bursts * interleaving.burst
        return Arrival(first, last)

    @property
    def bytes(self) -> int:
        """Bytes that DRAM moved, whole bursts."""
        return sum(self.row_bytes)
