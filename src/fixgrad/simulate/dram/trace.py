"""Run a list of requests through a channel: share of the bandwidth, row hits, latency percentiles."""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fixgrad.errors import UsageError
from fixgrad.simulate.dram.address import AddressMap
from fixgrad.simulate.dram.channel import Fidelity, open_channel
from fixgrad.simulate.dram.closed_form import refresh_share
from fixgrad.simulate.dram.standard import DramStandard, load_standard
from fixgrad.simulate.dram.transfer import Transfer, burst_addresses

Floats = npt.NDArray[np.float64]
PERCENTILES = (50, 90, 99, 100)


class TraceRequest(NamedTuple):
    """A contiguous read or write of `bytes` bytes at byte `address`, asked for at `time_ns`."""

    time_ns: float
    address: int
    bytes: int
    write: bool = False


@dataclass(frozen=True, slots=True)
class TraceReport:
    """What a trace cost.

    `bandwidth_share` is the bytes asked for over what the data bus could have moved from the first request to the last
    data; `row_hit_share` the bursts that found their row open; `latency_ns` the time from a request to its last data, by
    percentile (50, 90, 99, 100).
    """

    requests: int
    bursts: int
    bytes: int
    span_ns: float
    bandwidth_share: float
    row_hit_share: float
    refreshes: int
    turnarounds: int
    latency_ns: dict[int, float]


def _percentiles(latencies: Floats) -> dict[int, float]:
    return {p: float(np.percentile(latencies, p)) for p in PERCENTILES}


def _check_order(requests: list[TraceRequest]) -> None:
    if not requests:
        raise UsageError("an empty trace: give at least one request")
    for i, (before, after) in enumerate(pairwise(requests)):
        if after.time_ns < before.time_ns:
            raise UsageError(
                f"trace: request {i + 1} at {after.time_ns} ns comes after one at {before.time_ns} ns; sort it by time"
            )


def run_trace(
    requests: list[TraceRequest],
    standard: DramStandard | str,
    fidelity: Fidelity = Fidelity.BANK_LEVEL,
    address_map: AddressMap = AddressMap.BANK_GROUP_LOWEST,
) -> TraceReport:
    """Serve `requests`, sorted by time. Raises UsageError if they are not, or if there are none."""
    _check_order(requests)
    standard = load_standard(standard) if isinstance(standard, str) else standard
    transfers = [Transfer(r.bytes, r.write, r.address) for r in requests]
    model = _bank_level if fidelity is Fidelity.BANK_LEVEL else _closed_form
    return model(requests, transfers, standard, address_map)


def _closed_form(
    requests: list[TraceRequest], transfers: list[Transfer], standard: DramStandard, address_map: AddressMap
) -> TraceReport:
    channel = open_channel(standard, Fidelity.CLOSED_FORM, address_map)
    served = [channel.serve(r.time_ns, t) for r, t in zip(requests, transfers, strict=True)]
    totals = channel.totals
    span = channel.busy_until - requests[0].time_ns
    return TraceReport(
        requests=len(requests),
        bursts=totals.bursts,
        bytes=totals.bytes,
        span_ns=span,
        bandwidth_share=totals.bytes / (span * standard.peak_bytes_per_ns),
        row_hit_share=1 - totals.row_misses / totals.bursts,
        refreshes=round(totals.refresh_ns / (refresh_share(standard) * standard.timing.t_refi * standard.clock_ns)),
        turnarounds=totals.turnarounds,
        latency_ns=_percentiles(np.array([s.end - r.time_ns for s, r in zip(served, requests, strict=True)])),
    )


def _bank_level(
    requests: list[TraceRequest], transfers: list[Transfer], standard: DramStandard, address_map: AddressMap
) -> TraceReport:
    from fixgrad.simulate.dram.bank_level import schedule  # numba, only when asked for

    bursts = [burst_addresses(t, standard) for t in transfers]
    counts = np.array([b.size for b in bursts])
    times = np.array([r.time_ns for r in requests])
    arrival = np.repeat(np.ceil(times / standard.clock_ns - 1e-6).astype(np.int64), counts)
    write = np.repeat(np.array([int(r.write) for r in requests], dtype=np.int64), counts)
    outcome = schedule(standard, address_map, arrival, np.concatenate(bursts), write)
    firsts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    ends = np.maximum.reduceat(outcome.data_end, firsts) * standard.clock_ns
    span = float(ends.max()) - requests[0].time_ns
    total = sum(r.bytes for r in requests)
    return TraceReport(
        requests=len(requests),
        bursts=int(counts.sum()),
        bytes=total,
        span_ns=span,
        bandwidth_share=total / (span * standard.peak_bytes_per_ns),
        row_hit_share=1 - float(outcome.opened.mean()),
        refreshes=outcome.refreshes,
        turnarounds=outcome.turnarounds,
        latency_ns=_percentiles(ends + standard.controller.front_end_ns - times),
    )
