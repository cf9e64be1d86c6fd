"""Closed forms: limits worked out by hand, and the bank-level model as the judge away from the reference table."""

from collections.abc import Iterator

import numpy as np
import pytest

from fixgrad.simulate.dram import AddressMap, ClosedForm, Fidelity, Transfer, load_standard, open_channel
from fixgrad.simulate.dram.patterns import share_of_peak

DDR4 = load_standard("ddr4_2400")
INTERLEAVED = ClosedForm(DDR4, AddressMap.BANK_GROUP_LOWEST)
PAGED = ClosedForm(DDR4, AddressMap.COLUMN_LOWEST)
NS_PER_CLOCK = 1000 / 1200 / (1 - (420 + 17 + 17) / 9360)


@pytest.mark.parametrize(
    ("transfer", "clocks", "bound"),
    [
        (Transfer(128 * 1024), 2048 * 4, "bus"),  # 2,048 bursts from all open rows
        (Transfer(1024), 16 * 6.5, "activates"),  # 16 bursts in 16 banks: 16 activates
        (Transfer(64 * 128, run=64, stride=1024), 128 * 6 + 37, "bank"),  # one row, then tRTP + tRP + tRCD - tCCD_L
        (Transfer(64 * 128, run=64, stride=65536), 64 * 56, "bank"),  # two bursts every tRC
        (Transfer(64 * 1000, run=64), 1000 * 6.5, "activates"),
        (Transfer(64 * 128, write=True, run=64, stride=1024), 128 * 6 + 12 + 4 + 18 + 17 + 17 - 6, "bank"),
    ],
)
def test_interleaved_by_hand(transfer: Transfer, clocks: float, bound: str) -> None:
    service = INTERLEAVED.service(transfer)
    assert service.busy_ns == pytest.approx(clocks * NS_PER_CLOCK)
    assert service.bound == bound


@pytest.mark.parametrize(
    ("transfer", "clocks", "bound"),
    [
        (Transfer(8192), 128 * 6, "bank group"),  # one page alone: all in one group
        (Transfer(4096, address=4096), 64 * 6, "bank group"),
        (Transfer(64 * 1000, run=64, stride=8192), 1000 * 6.5, "activates"),
        (Transfer(64 * 1000, run=64, stride=65536), 1000 * 28, "bank"),  # two banks by turns, tRC each
        (Transfer(64 * 100, run=64, stride=131072), 100 * 56, "bank"),  # one bank
    ],
)
def test_paged_by_hand(transfer: Transfer, clocks: float, bound: str) -> None:
    service = PAGED.service(transfer)
    assert service.busy_ns == pytest.approx(clocks * NS_PER_CLOCK)
    assert service.bound == bound


def test_open_rows_need_no_activates() -> None:
    service = INTERLEAVED.service(Transfer(1024), open_rows=True)
    assert service.busy_ns == pytest.approx(64 * NS_PER_CLOCK)
    assert (service.bound, service.row_misses) == ("bus", 0)
    assert INTERLEAVED.service(Transfer(1024)).row_misses == 16


def test_a_neighbour_in_another_group_hides_tccd_l() -> None:
    alone, joined = PAGED.service(Transfer(4096)), PAGED.service(Transfer(4096), joined=True)
    reach = 40 - (17 + 17) / 6 / 2
    assert alone.busy_ns == pytest.approx(64 * 6 * NS_PER_CLOCK)
    assert joined.busy_ns == pytest.approx((64 * 6 - 2 * min(64, 2 * reach)) * NS_PER_CLOCK)


def test_latencies() -> None:
    latency = INTERLEAVED.latency(write=False)
    assert latency.open_row == pytest.approx(55 + 21 / 1.2)
    assert latency.closed_bank == pytest.approx(55 + 38 / 1.2)
    assert latency.row_conflict == pytest.approx(55 + 55 / 1.2)
    assert 70 <= latency.open_row < latency.closed_bank < latency.row_conflict <= 110
    assert INTERLEAVED.latency(write=True).open_row == pytest.approx(55 + 16 / 1.2)


def test_the_array_form_is_the_scalar_form() -> None:
    rng = np.random.default_rng(5)
    sizes, runs = rng.integers(1, 20_000, 200), rng.integers(1, 2000, 200)
    strides = runs + rng.integers(0, 4000, 200)
    runs[:20], strides[10:40] = 0, 0  # contiguous; scattered
    writes = rng.random(200) < 0.5
    times = INTERLEAVED.service_ns(sizes, runs, strides, writes)
    for k in range(200):
        run = int(runs[k]) or None
        stride = (int(strides[k]) or None) if run else None
        one = INTERLEAVED.service(Transfer(int(sizes[k]), bool(writes[k]), 0, run, stride))
        assert times[k] == one.busy_ns


def patterns(kind: str, count: int, seed: int) -> Iterator[Transfer]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        if kind == "powers of two":
            run = 64 * 2 ** int(rng.integers(0, 9))
            stride: int | None = run * 2 ** int(rng.integers(1, 8))
        else:
            run = int(rng.integers(16, 8192))
            stride = run + int(rng.integers(1, 65_536)) if kind == "any stride" else None
        runs = max(2, 8000 * 64 // max(run, 64))
        yield Transfer(run * runs, bool(rng.integers(2)), 0, run, stride)


def errors(address_map: AddressMap, kind: str, count: int) -> list[float]:
    """Closed form over bank-level model, less one, for `count` patterns."""
    found = []
    for transfer in patterns(kind, count, seed=17):
        closed, bank = (share_of_peak(open_channel(DDR4, f, address_map), iter([transfer])) for f in Fidelity)
        found.append(abs(closed / bank - 1))
    return sorted(found)


@pytest.mark.parametrize("kind", ["powers of two", "any stride", "scattered"])
def test_interleaved_agrees_with_the_bank_model(kind: str) -> None:
    found = errors(AddressMap.BANK_GROUP_LOWEST, kind, 20)
    assert found[10] < 0.01
    assert found[-1] < 0.05


@pytest.mark.parametrize(
    ("kind", "median", "worst"), [("powers of two", 0.01, 0.03), ("any stride", 0.05, 0.16), ("scattered", 0.03, 0.06)]
)
def test_paged_agrees_with_the_bank_model(kind: str, median: float, worst: float) -> None:
    """Strides that are no multiple of the page are the weak spot: runs straddle pages in ever new ways."""
    found = errors(AddressMap.COLUMN_LOWEST, kind, 20)
    assert found[10] < median
    assert found[-1] < worst


@pytest.mark.parametrize("address_map", AddressMap)
@pytest.mark.parametrize("writes", [0.0, 0.3, 0.5])
@pytest.mark.parametrize(("smallest", "largest"), [(256, 4096), (1024, 65536)])
def test_random_tiles_agree_with_the_bank_model(address_map: AddressMap, writes: float, smallest: int, largest: int) -> None:
    """Tiles of any size anywhere, reads and writes mixed: what a training step sends."""
    rng = np.random.default_rng(3)
    slots = DDR4.capacity_bytes // 64 - largest
    tiles = [
        Transfer(int(rng.integers(smallest, largest)), bool(rng.random() < writes), int(rng.integers(slots)) * 64)
        for _ in range(400)
    ]
    closed, bank = (share_of_peak(open_channel(DDR4, f, address_map), iter(tiles)) for f in Fidelity)
    assert closed == pytest.approx(bank, rel=0.05)


@pytest.mark.parametrize("writes", [0.0, 0.5])
def test_short_tiles_in_the_same_banks_are_bound_by_them(writes: float) -> None:
    """Tiles of 64 B to 1 KB that all begin in bank 0: each opens a new row there, one row cycle after the other."""
    rng = np.random.default_rng(3)
    tiles = [
        Transfer(int(rng.integers(1, 16)) * 64, bool(rng.random() < writes), int(rng.integers(1 << 16)) * 65536)
        for _ in range(1500)
    ]
    closed, bank = (share_of_peak(open_channel(DDR4, f), iter(tiles)) for f in Fidelity)
    assert bank < 0.55  # activates alone would allow 0.585
    assert closed == pytest.approx(bank, rel=0.07)
