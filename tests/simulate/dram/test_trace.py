"""Traces of requests."""

import pytest

from fixgrad.errors import UsageError
from fixgrad.simulate.dram import AddressMap, Fidelity, TraceRequest, run_trace

both = pytest.mark.parametrize("fidelity", Fidelity)


@both
def test_dependent_accesses(fidelity: Fidelity) -> None:
    """One at a time, far apart: all latency, no bandwidth."""
    requests = [TraceRequest(2000.0 * i, i * 1_000_000, 64) for i in range(400)]
    report = run_trace(requests, "ddr4_2400", fidelity)
    assert (report.requests, report.bursts, report.bytes) == (400, 400, 25_600)
    assert 70 <= report.latency_ns[50] <= 110
    assert report.bandwidth_share < 0.01
    assert report.row_hit_share < 0.01


@both
def test_a_full_stream(fidelity: Fidelity) -> None:
    requests = [TraceRequest(0.0, i * 4096, 4096) for i in range(1000)]
    report = run_trace(requests, "ddr4_2400", fidelity)
    assert report.bandwidth_share == pytest.approx(0.95, rel=0.03)
    assert report.row_hit_share > 0.98
    assert report.turnarounds == 0
    assert report.refreshes == pytest.approx(report.span_ns / 7800, abs=1)
    assert report.latency_ns[100] == pytest.approx(report.span_ns + 55, rel=0.001)
    assert report.latency_ns[50] < report.latency_ns[90] < report.latency_ns[99] < report.latency_ns[100]


def test_refresh_shows_in_the_tail() -> None:
    """Reads of open rows every 50 ns: the median waits for nothing, the worst one for a refresh (350 ns)."""
    requests = [TraceRequest(50.0 * i, i % 64 * 64, 64) for i in range(4000)]
    report = run_trace(requests, "ddr4_2400")
    assert report.latency_ns[50] == pytest.approx(55 + 21 / 1.2, abs=1.0)
    assert 350 < report.latency_ns[100] < 600


def test_the_map_matters() -> None:
    requests = [TraceRequest(0.0, i * 1024, 64) for i in range(4000)]
    paged = run_trace(requests, "ddr4_2400", address_map=AddressMap.COLUMN_LOWEST)
    interleaved = run_trace(requests, "ddr4_2400", address_map=AddressMap.BANK_GROUP_LOWEST)
    assert paged.bandwidth_share == pytest.approx(0.95, rel=0.03)
    assert interleaved.bandwidth_share == pytest.approx(0.61, rel=0.03)


def test_bad_traces_are_refused() -> None:
    with pytest.raises(UsageError, match="an empty trace"):
        run_trace([], "ddr4_2400")
    with pytest.raises(UsageError, match=r"request 1 at 5.0 ns comes after one at 10.0 ns"):
        run_trace([TraceRequest(10.0, 0, 64), TraceRequest(5.0, 0, 64)], "ddr4_2400")
