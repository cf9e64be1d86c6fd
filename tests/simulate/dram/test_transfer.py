"""Bursts of transfers against a byte-by-byte oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.errors import UsageError
from fixgrad.simulate.dram import Transfer, burst_addresses, burst_count, load_standard

DDR4 = load_standard("ddr4_2400")


def bursts_by_bytes(t: Transfer) -> list[int]:
    """Every byte in turn, and the burst that holds it."""
    run = t.run or t.bytes
    stride = t.stride or run
    places = (t.address + i // run * stride + i % run for i in range(t.bytes))
    found: list[int] = []
    for place in places:
        if not found or found[-1] != place // 64:
            found.append(place // 64)
    return [burst * 64 for burst in found]


@given(size=st.integers(1, 3000), run=st.integers(1, 400), gap=st.integers(0, 500), address=st.integers(0, 10_000))
def test_strided_runs(size: int, run: int, gap: int, address: int) -> None:
    t = Transfer(size, address=address, run=run, stride=run + gap)
    expected = bursts_by_bytes(t)
    assert burst_addresses(t, DDR4).tolist() == expected
    assert burst_count(t, DDR4) == len(expected)
    assert t.last_byte is not None
    assert t.last_byte // 64 * 64 == expected[-1]


@given(size=st.integers(1, 5000), address=st.integers(0, 10_000))
def test_contiguous(size: int, address: int) -> None:
    t = Transfer(size, address=address)
    assert burst_addresses(t, DDR4).tolist() == bursts_by_bytes(t)
    assert burst_count(t, DDR4) == len(bursts_by_bytes(t))


@given(size=st.integers(2, 5000), run=st.integers(1, 500))
def test_scattered_runs_are_whole_and_repeatable(size: int, run: int) -> None:
    t = Transfer(size, run=min(run, size - 1))
    found = burst_addresses(t, DDR4)
    assert burst_count(t, DDR4) >= found.size  # neighbours may fall into the same slot by chance
    assert (found % 64 == 0).all()
    assert (found < DDR4.capacity_bytes).all()
    assert (found == burst_addresses(t, DDR4)).all()
    assert t.last_byte is None


def test_scattered_runs_use_all_banks_evenly() -> None:
    found = burst_addresses(Transfer(64 * 16_000, run=64), DDR4)
    counts = [int((found // 64 % 16 == k).sum()) for k in range(16)]
    # 16,000 draws over 16 banks: 1,000 each, standard deviation 30.6; five of them are 153.
    assert all(abs(c - 1000) < 153 for c in counts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bytes": 0}, "a transfer of 0 bytes"),
        ({"bytes": 64, "address": -1}, "from address -1"),
        ({"bytes": 64, "run": 0}, "runs of 0 bytes"),
        ({"bytes": 64, "run": 16, "stride": 8}, "a stride of 8 bytes is shorter than the run of 16"),
        ({"bytes": 64, "stride": 8}, "a stride of 8 bytes is shorter than the run of 64"),
    ],
)
def test_impossible_transfers_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Transfer(**arguments)
