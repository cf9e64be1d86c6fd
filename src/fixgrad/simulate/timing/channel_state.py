"""The state of memory channels and of LOAD as arrays and tuples that numba takes as they are."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine import Machine
from fixgrad.simulate.dram import ClosedFormChannel
from fixgrad.simulate.timing.assumptions import Assumptions

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
#: A time this little (in cycles) past a clock edge counts as on it, as in `fixgrad.simulate.dram.Clock`.
ROUNDING = 1e-6
#: Places in `Channels.integers`.
LAST_WRITE, LAST_PAGE, WRITES_IN_TURN, TRANSFERS, BURSTS, BYTES_READ, BYTES_WRITTEN, ROW_MISSES, TURNAROUNDS = range(9)
#: Places in `Channels.floats`.
BUSY_UNTIL, BUSY_NS, REFRESH_NS = range(3)
#: Places in `LoadState.integers`.
HEAD, TAIL, REQUESTS, BYTES, BUS_FREE, ASKED, BEGUN, BUS, PART, NOW, LEAD = range(11)
#: Parts that LOAD has outstanding at most; its limits keep it far below.
OUTSTANDING = 4096


class Channels(NamedTuple):
    """All channels of a machine. C channels, directions 0 (read) and 1 (write).

    Attributes:
        integers: int64 [C, 9]; -1 for no direction or page.
        floats: float64 [C, 3], ns.
        tails: last transfers that the queue can hold together, oldest first, int64 [C, 2, depth + 2, (page, bursts)].
        tail_counts: of them, int64 [C, 2].
        bank_free: float64 [C, banks], ns.
        ports: cycle from which the port is free, int64 [C, 2].
        row_bytes: bytes moved for each row of the result, int64.
        cycle_ns: of a row that serves 1, 2, ... bursts, float64 [2, bursts of a page].
        lead_ns: before the data of a transfer to (closed, open) rows, float64 [2, 2].
        gap_ns: of a turnaround to the direction, float64 [2].
        refresh_share, front_ns, first_burst_ns, reordered_ns, depth, page_bytes, pages_together, burst_bytes, bank_groups,
            banks_per_group: as in `ClosedFormChannel` and its standard.
        ns: of a cycle of the machine; `cycle`: cycles of a ns.
        port_bytes: that a port moves in a cycle.
    """

    integers: Integers
    floats: Floats
    tails: Integers
    tail_counts: Integers
    bank_free: Floats
    ports: Integers
    row_bytes: Integers
    cycle_ns: Floats
    lead_ns: Floats
    gap_ns: Floats
    refresh_share: float
    front_ns: float
    first_burst_ns: float
    reordered_ns: float
    ns: float
    cycle: float
    depth: int
    page_bytes: int
    pages_together: int
    burst_bytes: int
    bank_groups: int
    banks_per_group: int
    port_bytes: int


class Traffic(NamedTuple):
    """Requests and what they ask of the channels; arrays may be longer than what is known so far.

    Attributes:
        request_first: first transfer of each request, and one more.
        parts: what a request is to LOAD: (cycles of the data bus, requests, bytes).
        channel, address, shape: of each transfer; addresses are those inside of the channel.
        shapes: (bytes, write, last byte - first byte or -1 if scattered, contiguous) of each shape.
        busy_ns, bursts, row_misses: of each shape, [shapes, 4]: 2 x joined + open rows.
    """

    request_first: Integers
    parts: Integers
    channel: Integers
    address: Integers
    shape: Integers
    shapes: Integers
    busy_ns: Floats
    bursts: Integers
    row_misses: Integers


class LoadState(NamedTuple):
    """What LOAD knows between two calls: counters, (when distributed, requests, bytes) of parts outstanding, and its limits."""

    integers: Integers
    outstanding: Integers
    requests: int
    bytes: int
    read_latency: int


def new_channels(channel: ClosedFormChannel, machine: Machine, rows: int) -> Channels:
    """Idle channels like `channel`, for a result of `rows` rows."""
    standard, count = channel.standard, machine.memory.channels
    integers = np.zeros((count, 9), np.int64)
    integers[:, [LAST_WRITE, LAST_PAGE]] = -1
    ns = 1000.0 / machine.clock_mhz
    return Channels(
        integers=integers,
        floats=np.zeros((count, 3)),
        tails=np.zeros((count, 2, channel.depth + 2, 2), np.int64),
        tail_counts=np.zeros((count, 2), np.int64),
        bank_free=np.zeros((count, standard.banks)),
        ports=np.zeros((count, 2), np.int64),
        row_bytes=np.zeros(rows, np.int64),
        cycle_ns=np.array(channel.cycle_ns),
        lead_ns=np.array(channel.lead_ns),
        gap_ns=np.array(channel.gap_ns),
        refresh_share=channel.refresh_share,
        front_ns=channel.front_ns,
        first_burst_ns=channel.first_burst_ns,
        reordered_ns=channel.reordered_ns,
        ns=ns,
        cycle=1.0 / ns,
        depth=channel.depth,
        page_bytes=standard.page_bytes,
        pages_together=channel.pages_together,
        burst_bytes=standard.burst_bytes,
        bank_groups=standard.bank_groups,
        banks_per_group=standard.banks_per_group,
        port_bytes=machine.memory.port_bytes,
    )


def new_load(assumptions: Assumptions, read_latency: int) -> LoadState:
    """LOAD before its first block."""
    return LoadState(
        np.zeros(LEAD + 1, np.int64),
        np.zeros((OUTSTANDING, 3), np.int64),
        assumptions.load_requests,
        assumptions.load_bytes,
        read_latency,
    )
