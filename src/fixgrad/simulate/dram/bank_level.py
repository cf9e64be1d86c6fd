"""Every burst through the bank-level scheduler: a whole schedule at once, or transfer by transfer as a channel."""

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np

from fixgrad.simulate.dram.address import AddressMap, decode
from fixgrad.simulate.dram.bank_state import (
    COMMAND_NAMES,
    LOGGED,
    READS,
    REFRESHES,
    ROW_HITS,
    TURNAROUNDS,
    WRITES,
    Integers,
    Requests,
    copy_state,
    new_state,
    shape_of,
)
from fixgrad.simulate.dram.channel import Served, Totals
from fixgrad.simulate.dram.scheduler import run
from fixgrad.simulate.dram.standard import DramStandard
from fixgrad.simulate.dram.transfer import Transfer, burst_addresses

_NO_LOG = np.zeros((0, 4), dtype=np.int64)


def make_requests(
    standard: DramStandard, address_map: AddressMap, arrival: Integers, addresses: Integers, write: Integers
) -> Requests:
    """Requests of the scheduler for bursts at byte `addresses` that arrive at clocks `arrival` (all [n], int64)."""
    place = decode(addresses, address_map, standard)
    n = addresses.size
    return Requests(
        arrival=np.ascontiguousarray(arrival, dtype=np.int64),
        bank=place.flat_bank(standard),
        row=place.row,
        write=np.ascontiguousarray(write, dtype=np.int64),
        data_end=np.full(n, -1, dtype=np.int64),
        opened=np.zeros(n, dtype=np.int64),
    )


class Command(NamedTuple):
    """A command on the bus of a channel. `bank` counts over the channel; for PREA and REF it is the rank, `row` is -1."""

    clock: int
    name: str
    bank: int
    row: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """The outcome of a list of bursts. Arrays [bursts], int64."""

    data_end: Integers
    """Clock after the last data of each burst."""
    opened: Integers
    """1 where a row was opened for the burst."""
    refreshes: int
    turnarounds: int
    commands: list[Command]
    """Empty unless asked for."""


def schedule(
    standard: DramStandard,
    address_map: AddressMap,
    arrival: Integers,
    addresses: Integers,
    write: Integers,
    log_commands: bool = False,
) -> Schedule:
    """Serve bursts at byte `addresses` that arrive at clocks `arrival` (all [n], int64; `arrival` does not decrease)."""
    requests = make_requests(standard, address_map, arrival, addresses, write)
    state = new_state(standard)
    last = int(arrival[-1]) if arrival.size else 0
    # At most an activate, a precharge and a column command a burst, and a few for each refresh until the worst end.
    worst_clocks = last + arrival.size * 4 * standard.timing.t_rc + 4 * standard.timing.t_refi
    room = 4 * arrival.size + (3 + standard.banks) * standard.ranks * (worst_clocks // standard.timing.t_refi + 1)
    log = np.zeros((room if log_commands else 0, 4), dtype=np.int64)
    run(standard.timing, shape_of(standard), state, requests, 0, 0, 0, True, log)
    entries = log[: state.scalars[LOGGED]].tolist()
    return Schedule(
        requests.data_end,
        requests.opened,
        int(state.counters[REFRESHES]),
        int(state.counters[TURNAROUNDS]),
        [Command(clock, COMMAND_NAMES[kind], bank, row) for clock, kind, bank, row in entries],
    )


class BankLevelChannel:
    """See `Channel`. A transfer's end is found by looking ahead on a copy of the channel as if nothing followed it.

    The channel itself stops where the last burst of the transfer has entered the queue, so that the next transfer's
    bursts join those that still wait, as they do behind a DMA engine that keeps requests outstanding.
    """

    def __init__(self, standard: DramStandard, address_map: AddressMap) -> None:
        self.standard = standard
        self.address_map = address_map
        self.busy_until = 0.0
        self.last_write: bool | None = None
        self.totals = Totals()
        self._state = new_state(standard)
        self._shape = shape_of(standard)
        self._served = 0
        self._refreshes = 0

    def serve(self, now: float, transfer: Transfer) -> Served:
        """See `Channel.serve`."""
        s = self.standard
        arrival = max(0, ceil(now / s.clock_ns - 1e-6))
        addresses = burst_addresses(transfer, s)
        n = addresses.size
        requests = make_requests(s, self.address_map, np.full(n, arrival), addresses, np.full(n, int(transfer.write)))
        nothing = make_requests(s, self.address_map, addresses[:0], addresses[:0], addresses[:0])
        run(s.timing, self._shape, self._state, nothing, self._served, 0, arrival, False, _NO_LOG)
        refreshes = max(self._refreshes, int(self._state.counters[REFRESHES]))
        run(s.timing, self._shape, self._state, requests, self._served, 0, arrival, False, _NO_LOG)
        ahead = copy_state(self._state)
        run(s.timing, self._shape, ahead, requests, self._served, n, arrival, True, _NO_LOG)
        self._served += n
        self._refreshes = int(ahead.counters[REFRESHES])
        front = s.controller.front_end_ns
        first = int(requests.data_end.min()) * s.clock_ns + front
        free = max(now, self.busy_until)
        bus_end = int(requests.data_end.max()) * s.clock_ns
        self._count(transfer, n, ahead.counters, max(0.0, bus_end - free), self._refreshes - refreshes)
        self.busy_until = max(self.busy_until, bus_end)
        self.last_write = transfer.write
        return Served(min(free, first), first, bus_end + front)

    def _count(self, transfer: Transfer, bursts: int, counters: Integers, busy_ns: float, refreshes: int) -> None:
        totals = self.totals
        totals.transfers += 1
        totals.bursts += bursts
        totals.row_misses = int(counters[READS] + counters[WRITES] - counters[ROW_HITS])
        totals.turnarounds = int(counters[TURNAROUNDS])
        totals.busy_ns += busy_ns
        totals.refresh_ns += refreshes * self.standard.timing.t_rfc * self.standard.clock_ns
        if transfer.write:
            totals.bytes_written += transfer.bytes
        else:
            totals.bytes_read += transfer.bytes
