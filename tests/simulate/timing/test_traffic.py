"""Requests against the bytes that they stand for, counted one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.simulate.timing.traffic import Interleaving, Region, Request, contiguous, requests

sizes = st.integers(1, 300)


def bytes_of(request: Request) -> list[int]:
    return [request.address + i * request.stride + b for i in range(request.runs) for b in range(request.run)]


@given(
    st.integers(0, 1000), st.integers(1, 40), st.integers(1, 5), st.integers(0, 30), st.integers(1, 4), st.integers(0, 90),
    st.integers(16, 200),
)  # fmt: skip
def test_requests_of_a_region_are_its_bytes_once_each(
    address: int, run: int, rows: int, row_gap: int, planes: int, plane_gap: int, limit: int
) -> None:
    row_stride = run + row_gap
    plane_stride = rows * row_stride + plane_gap
    region = Region(address, run, rows, row_stride, planes, plane_stride)
    expected = [
        address + p * plane_stride + r * row_stride + b for p in range(planes) for r in range(rows) for b in range(run)
    ]
    asked = list(requests(region, limit))
    assert [place for request in asked for place in bytes_of(request)] == expected
    assert all(request.bytes <= max(limit, run) for request in asked)


def test_whole_planes_become_one_contiguous_request() -> None:
    assert list(requests(Region(64, 32, 4, 32, 3, 128), 4096)) == [Request(64, 384)]
    assert list(requests(Region(64, 32, 4, 32, 3, 256), 4096)) == [Request(64, 128, 3, 256)]
    assert list(requests(Region(0, 0, 4, 32, 3, 256), 4096)) == []


def test_contiguous_requests_are_cut_at_multiples_of_the_limit() -> None:
    assert list(contiguous(100, 300, 128)) == [Request(100, 28), Request(128, 128), Request(256, 128), Request(384, 16)]


def by_hand(request: Request, of: Interleaving) -> dict[int, list[int]]:
    """Local addresses of the bytes of each channel."""
    found: dict[int, list[int]] = {}
    for address in bytes_of(request):
        page, inside = divmod(address, of.interleave)
        found.setdefault(page % of.channels, []).append(page // of.channels * of.interleave + inside)
    return found


@given(st.integers(0, 5000), st.integers(1, 2000), st.sampled_from([1, 2, 3, 8]))
def test_a_contiguous_request_is_contiguous_in_every_channel(address: int, size: int, channels: int) -> None:
    of = Interleaving(channels, 256, 64)
    shares = of.transfers(Request(address, size))
    expected = by_hand(Request(address, size), of)
    assert shares[0][0] == address // 256 % channels
    assert {channel: t.bytes for channel, t in shares} == {channel: len(places) for channel, places in expected.items()}
    for channel, transfer in shares:
        assert transfer.contiguous
        assert transfer.address == min(expected[channel])
        assert transfer.last_byte == max(expected[channel])


@given(st.integers(0, 3000), st.integers(1, 200), st.integers(2, 20), st.integers(0, 600), st.sampled_from([1, 2, 4]))
def test_a_strided_request_moves_the_bytes_of_every_channel(
    address: int, run: int, runs: int, gap: int, channels: int
) -> None:
    of, request = Interleaving(channels, 512, 64), Request(address, run, runs, run + gap, write=True)
    shares = of.transfers(request)
    expected = by_hand(request, of)
    assert {channel: t.bytes for channel, t in shares} == {channel: len(places) for channel, places in expected.items()}
    assert all(t.write and t.address == min(expected[channel]) for channel, t in shares)


def test_rows_that_all_fall_into_one_channel_stay_there() -> None:
    shares = Interleaving(2, 4096, 64).transfers(Request(0, 1024, 8, 8192))
    assert [(channel, t.bytes, t.run, t.stride) for channel, t in shares] == [(0, 8192, 1024, 4096)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4000), st.integers(0, 700)), min_size=1, max_size=12))
def test_bundles_count_the_bursts_of_every_request(items: list[tuple[int, int, int]]) -> None:
    of = Interleaving(2, 256, 64)
    owners, addresses, lengths = (np.array(column, np.int64) for column in zip(*items, strict=True))
    bundles = of.bundles(owners, 4, addresses, lengths, write=False)
    for owner, bundle in enumerate(bundles):
        mine = [(address, size) for of_owner, address, size in items if of_owner == owner and size]
        assert bundle.requests == len(mine)
        assert bundle.bytes == sum(size for _, size in mine)
        bursts = {0: 0, 1: 0}
        for address, size in mine:
            touched = {(b // 256 % 2, b // 64) for b in range(address, address + size)}
            for channel, _ in touched:
                bursts[channel] += 1
        assert {channel: count for channel, _, _, count in bundle.shares} == {c: n for c, n in bursts.items() if n}
        for channel, transfer in of.bundle_transfers(bundle):
            assert transfer.bytes == 64 * bursts[channel]


@pytest.mark.parametrize("count", [0, 2])
def test_empty_bundles(count: int) -> None:
    nothing = np.zeros(count, np.int64)
    (bundle,) = Interleaving(2, 4096, 64).bundles(nothing, 1, nothing, nothing, write=True)
    assert bundle == ((), 0, 0, True)
