"""Channels that serve transfers in order: the interface of the timing simulator to memory.

Times are nanoseconds from the start of the simulation. `Clock` converts them to cycles of the accelerator.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import NamedTuple, Protocol

from fixgrad.errors import UsageError
from fixgrad.simulate.dram.address import AddressMap
from fixgrad.simulate.dram.closed_form import ClosedForm, Service, refresh_share, row_cycle
from fixgrad.simulate.dram.standard import DramStandard, load_standard
from fixgrad.simulate.dram.transfer import Transfer

_ROUNDING_NS = 1e-6
"""A time this little past a clock edge counts as on it (floating-point noise of a sum of clocks)."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock of the accelerator, to convert between nanoseconds and its cycles."""

    mhz: float

    def __post_init__(self) -> None:
        if self.mhz <= 0:
            raise UsageError(f"a clock of {self.mhz} MHz; it must be positive")

    def ns(self, cycles: float) -> float:
        """Time of the edge that begins cycle `cycles`."""
        return cycles * 1000.0 / self.mhz

    def cycles(self, ns: float) -> int:
        """First edge at or after `ns`: when logic on this clock can see the event."""
        return ceil((ns - _ROUNDING_NS) * self.mhz / 1000.0)


class Served(NamedTuple):
    """When a transfer was served, in ns."""

    start: float
    """The channel takes up the request (not before it was asked, not before the transfers ahead of it are on their way)."""
    first_data: float
    """The first data are on chip (read) or have reached the memory (write)."""
    end: float
    """The last data are."""


@dataclass(slots=True)
class Totals:
    """What a channel has done so far."""

    transfers: int = 0
    bursts: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    row_misses: int = 0
    turnarounds: int = 0
    busy_ns: float = 0.0
    """Time with work on the channel, refreshes in it included."""
    refresh_ns: float = 0.0
    """The part of `busy_ns` lost to refresh."""

    @property
    def bytes(self) -> int:
        return self.bytes_read + self.bytes_written


class Channel(Protocol):
    """One memory channel, serving transfers in the order of the calls."""

    @property
    def standard(self) -> DramStandard: ...

    @property
    def busy_until(self) -> float:
        """When the data bus has delivered everything asked so far, in ns."""
        ...

    @property
    def last_write(self) -> bool | None:
        """Direction of the last transfer; None before the first."""
        ...

    @property
    def totals(self) -> Totals: ...

    def serve(self, now: float, transfer: Transfer) -> Served:
        """Serve `transfer`, asked for at `now` ns. Calls must be in the order in which the channel is to serve them."""
        ...


class Fidelity(StrEnum):
    CLOSED_FORM = "closed-form"
    BANK_LEVEL = "bank-level"


class _Tail(NamedTuple):
    """The end of a served transfer, some of which may still wait in the controller's queue."""

    page: int
    bursts: int


class ClosedFormChannel:
    """A channel by closed forms: a few microseconds a transfer."""

    def __init__(self, form: ClosedForm) -> None:
        self.form = form
        self.standard = s = form.standard
        self.busy_until = 0.0
        self.last_write: bool | None = None
        self.totals = Totals()
        self.depth = s.controller.queue_depth
        self._page_bytes, self._groups = s.page_bytes, s.bank_groups
        # Pages whose rows are open together: all banks of a rank if neighbouring bursts lie in different banks.
        together = form.address_map is AddressMap.BANK_GROUP_LOWEST
        self.pages_together = s.banks // s.ranks if together else 1
        self.first_burst_ns = s.timing.burst * s.clock_ns
        self.front_ns = s.controller.front_end_ns
        hidden = self.front_ns + self.first_burst_ns
        latencies = (form.latency(False), form.latency(True))
        self.lead_ns = tuple((x.row_conflict - hidden, x.open_row - hidden) for x in latencies)
        self.gap_ns = (form.turnaround_ns(False), form.turnaround_ns(True))
        self.refresh_share = refresh_share(s)
        self._tails: tuple[deque[_Tail], deque[_Tail]] = (deque(), deque())
        """Per direction, the last transfers that the queue can hold together, newest first."""
        self._writes_in_turn = 0
        """Bursts written since the last turnaround."""
        self._last_page: int | None = None
        self._bank_free = [0.0] * s.banks
        """When each bank could open its next row if the rows asked of it so far were served one after the other."""
        ns_per_clock = s.clock_ns / (1 - self.refresh_share)
        self.cycle_ns = tuple(
            [row_cycle(s, hits, write) * ns_per_clock for hits in range(1, s.bursts_per_page + 1)] for write in (False, True)
        )
        self.reordered_ns = s.controller.queue_depth * s.timing.burst * s.clock_ns

    def serve(self, now: float, transfer: Transfer) -> Served:
        """See `Channel.serve`. The latency of a transfer that waits behind others is hidden by them."""
        write, last = transfer.write, transfer.last_byte
        page = None if last is None else transfer.address // self._page_bytes
        turned = self.last_write is not None and write != self.last_write
        open_rows = self._rows_open(page)
        joined = now <= self.busy_until and self._joined(page, write, turned)
        service = self.form.service(transfer, joined, open_rows)
        gap = self._turnaround_ns(write, service.bursts) if turned else 0.0
        start = max(now, self.busy_until)
        bus_start = max(now + self.lead_ns[write][open_rows], self.busy_until + gap)
        end = bus_start + service.busy_ns
        if transfer.contiguous and not open_rows and service.bursts <= self.depth:
            end = max(end, self._banks_allow(transfer, bus_start, service.bursts))
        self._count(transfer, service, turned, end - start)
        self._remember(write, None if last is None else last // self._page_bytes, service.bursts, turned)
        self.busy_until = end
        first = bus_start + self.front_ns + self.first_burst_ns
        return Served(start, first, max(first, end + self.front_ns))

    def _turnaround_ns(self, write: bool, bursts: int) -> float:
        """Writes are drained a queue at a time, so that short ones share a turnaround."""
        written = bursts if write else self._writes_in_turn
        return self.gap_ns[write] * min(1.0, written / self.depth)

    def _banks_allow(self, transfer: Transfer, start: float, bursts: int) -> float:
        """Earliest end that the banks of a short transfer allow.

        Short transfers that keep asking rows of the same few banks are bound by the row cycle of those banks; what the
        queue can serve meanwhile from others is allowed for.
        """
        s, free, count = self.standard, self._bank_free, len(self._bank_free)
        if self.pages_together == 1:
            first, touched, hits = transfer.address // self._page_bytes, 1, bursts
            group, bank = first % s.bank_groups, first // s.bank_groups % s.banks_per_group
            banks = [(group * s.banks_per_group + bank) % count]
        else:
            first, touched = transfer.address // s.burst_bytes, min(bursts, self.pages_together)
            hits = -(-bursts // touched)
            banks = [(first + i) % count for i in range(touched)]
        cycle = self.cycle_ns[transfer.write][min(hits, s.bursts_per_page) - 1]
        latest = 0.0
        for b in banks:
            free[b] = latest_of_bank = max(free[b], start) + cycle
            latest = max(latest, latest_of_bank)
        return latest - self.reordered_ns

    def _rows_open(self, page: int | None) -> bool:
        """Whether a transfer that begins in `page` begins in the rows where the last one ended."""
        if page is None or self._last_page is None:
            return False
        return page // self.pages_together == self._last_page // self.pages_together

    def _joined(self, page: int | None, write: bool, turned: bool) -> bool:
        """Whether bursts of this direction still wait in another bank group.

        Writes are drained before reads resume, reads are not before writes: so only reads wait over a turnaround.
        """
        if page is None or (turned and write):
            return False
        groups = self._groups
        return any((page - tail.page) % groups for tail in self._tails[write])

    def _remember(self, write: bool, page: int | None, bursts: int, turned: bool) -> None:
        tails = self._tails[write]
        if write:
            if turned:
                tails.clear()
                self._writes_in_turn = 0
            self._writes_in_turn += bursts
        self.last_write = write
        self._last_page = page
        if page is None:
            return
        if bursts >= self.depth:
            tails.clear()
        tails.appendleft(_Tail(page, bursts))
        while len(tails) > 1 and sum(tail.bursts for tail in tails) - tails[-1].bursts >= self.depth:
            tails.pop()

    def _count(self, transfer: Transfer, service: Service, turned: bool, busy_ns: float) -> None:
        totals = self.totals
        totals.transfers += 1
        totals.bursts += service.bursts
        totals.row_misses += service.row_misses
        totals.turnarounds += turned
        totals.busy_ns += busy_ns
        totals.refresh_ns += service.busy_ns * self.refresh_share
        if transfer.write:
            totals.bytes_written += transfer.bytes
        else:
            totals.bytes_read += transfer.bytes


def open_channel(
    standard: DramStandard | str,
    fidelity: Fidelity = Fidelity.CLOSED_FORM,
    address_map: AddressMap = AddressMap.BANK_GROUP_LOWEST,
) -> Channel:
    """A new, idle channel. Raises UsageError for an unknown standard."""
    standard = load_standard(standard) if isinstance(standard, str) else standard
    if fidelity is Fidelity.CLOSED_FORM:
        return ClosedFormChannel(ClosedForm(standard, address_map))
    from fixgrad.simulate.dram.bank_level import BankLevelChannel  # numba, only when asked for

    return BankLevelChannel(standard, address_map)


def transfer_ns(
    transfer: Transfer,
    standard: DramStandard | str,
    address_map: AddressMap = AddressMap.BANK_GROUP_LOWEST,
) -> float:
    """Closed form of one transfer on an idle channel, from the request to its last data on chip, in ns."""
    return open_channel(standard, Fidelity.CLOSED_FORM, address_map).serve(0.0, transfer).end


def transfer_cycles(
    transfer: Transfer,
    standard: DramStandard | str,
    clock: Clock,
    address_map: AddressMap = AddressMap.BANK_GROUP_LOWEST,
) -> int:
    """`transfer_ns` in cycles of the accelerator's clock, rounded up."""
    return clock.cycles(transfer_ns(transfer, standard, address_map))
