"""The machine's memory as its units see it: requests go round the channels, ports and DRAM share out the time."""

from typing import NamedTuple

from fixgrad.machine import Machine
from fixgrad.simulate.dram import Channel, Clock, Fidelity, Transfer, load_standard, open_channel
from fixgrad.simulate.timing.traffic import Request, share_transfers


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
        row_bytes: bytes that DRAM moved for each row of the result, whole bursts.
        samples: what each service moved, if they are kept.
    """

    def __init__(self, machine: Machine, fidelity: Fidelity, rows: int, keep_samples: bool = False) -> None:
        memory = machine.memory
        standard = load_standard(memory.standard)
        self.channels: list[Channel] = [open_channel(standard, fidelity) for _ in range(memory.channels)]
        self.row_bytes = [0] * rows
        self.samples: list[Sample] | None = [] if keep_samples else None
        self._clock = Clock(machine.clock_mhz)
        self._ns = 1000.0 / machine.clock_mhz
        self._burst_bytes = standard.burst_bytes
        self._interleave, self._port_bytes = memory.interleave, memory.port_bytes
        #: When the read port and the write port of each channel are free.
        self._ports = [[0, 0] for _ in self.channels]
        self.read_latency = self._idle(standard.burst_bytes, write=False)
        self.write_latency = self._idle(standard.burst_bytes, write=True)

    def _idle(self, size: int, write: bool) -> int:
        """Cycles of one burst on an idle channel."""
        served = open_channel(self.channels[0].standard).serve(0.0, Transfer(size, write))
        return self._clock.cycles(served.end)

    def serve(self, now: int, request: Request, row: int) -> Arrival:
        """Serve a request that a unit makes at cycle `now` for the work of `row`."""
        first, last, ns = 0, 0, now * self._ns
        cycles, write = self._clock.cycles, request.write
        for number, transfer in share_transfers(request, len(self.channels), self._interleave):
            channel, port = self.channels[number], self._ports[number]
            before = channel.totals.bursts
            served = channel.serve(ns, transfer)
            self.row_bytes[row] += (channel.totals.bursts - before) * self._burst_bytes
            begin, end = cycles(served.first_data), cycles(served.end)
            beats = -(-transfer.bytes // self._port_bytes)
            port[write] = end = max(end, max(port[write], begin) + beats)
            first = first or begin
            last = max(last, end)
            if self.samples is not None:
                self.samples.append(Sample(now, end, number, transfer.bytes, write))
        return Arrival(first, last)

    @property
    def bytes(self) -> int:
        """Bytes that DRAM moved, whole bursts."""
        return sum(self.row_bytes)
