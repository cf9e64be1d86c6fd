"""Which bytes of memory an instruction moves: regions of feature maps as requests, and how channels share a request."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.simulate.dram import Transfer

Ints = NDArray[np.int64]
#: Cycles in which LOAD's engine takes a transfer and asks for its first burst (`BurstSplitter` of the gateware's `axi/burst.py`).
RUN_CYCLES = 2


class Request(NamedTuple):
    """Bytes of a DMA request: `runs` runs of `run` contiguous bytes, `stride` bytes apart, in the machine's address space.

    `runs` is 1 for a contiguous request.
    """

    address: int
    run: int
    runs: int = 1
    stride: int = 0
    write: bool = False

    @property
    def bytes(self) -> int:
        return self.run * self.runs

    def bus_cycles(self, lanes: int, words: int) -> int:
        """Cycles of LOAD's data bus, `words` words of `lanes` bytes each; `RUN_CYCLES` for a run at least."""
        return max(-(-self.bytes // (lanes * words)), RUN_CYCLES * self.runs)


class Bundle(NamedTuple):
    """Many short contiguous requests of one direction, as what each channel moves for all of them.

    Attributes:
        shares: (channel, address of the first, requests, bursts) of each channel that moves any.
        requests, bytes: of all together.
        write: direction.
    """

    shares: tuple[tuple[int, int, int, int], ...]
    requests: int
    bytes: int
    write: bool


class Region(NamedTuple):
    """Part of a feature map: `planes` planes of `rows` rows of `run` bytes each; strides in bytes."""

    address: int
    run: int
    rows: int
    row_stride: int
    planes: int
    plane_stride: int


class RegionRequest(NamedTuple):
    """A region to be read or written, in requests of about `limit` bytes at most."""

    region: Region
    limit: int
    write: bool = False

    @property
    def bytes(self) -> int:
        return self.region.run * self.region.rows * self.region.planes


class Asked(NamedTuple):
    """Requests [first, last) of a `Catalogue`, `base` bytes further in each channel."""

    first: int
    last: int
    base: int


class BundleArrays(NamedTuple):
    """Bundles as arrays.

    Attributes:
        owner, channel, address, pieces, bursts: of each share: the bundle to which it belongs, and as in `Bundle.shares`.
        requests, bytes: of each bundle.
        write: direction of all.
    """

    owner: Ints
    channel: Ints
    address: Ints
    pieces: Ints
    bursts: Ints
    requests: Ints
    bytes: Ints
    write: bool


def requests(region: Region, limit: int, write: bool = False) -> Iterator[Request]:
    """The region as requests of about `limit` bytes at most, in the order of addresses, as few as its strides allow."""
    address, run, rows, row_stride, planes, plane_stride = region
    if run <= 0 or rows <= 0 or planes <= 0:
        return
    if rows == 1 or row_stride == run:
        run, rows, row_stride = run * rows, 1, 0
    if rows == 1 and (planes == 1 or plane_stride == run):
        yield from contiguous(address, run * planes, limit, write)
    elif rows == 1:
        yield from _strided(address, run, planes, plane_stride, limit, write)
    else:
        for plane in range(planes):
            yield from _strided(address + plane * plane_stride, run, rows, row_stride, limit, write)


def contiguous(address: int, size: int, limit: int, write: bool = False) -> Iterator[Request]:
    """`size` contiguous bytes, cut at multiples of `limit` so that each request lies in as few pages as it can."""
    end = address + size
    while address < end:
        stop = min(end, (address // limit + 1) * limit)
        yield Request(address, stop - address, 1, 0, write)
        address = stop


def _strided(address: int, run: int, runs: int, stride: int, limit: int, write: bool) -> Iterator[Request]:
    if run > limit:
        for index in range(runs):
            yield from contiguous(address + index * stride, run, limit, write)
        return
    together = limit // run
    for first in range(0, runs, together):
        yield Request(address + first * stride, run, min(together, runs - first), stride, write)


class Interleaving(NamedTuple):
    """How addresses go round the channels: `interleave` bytes in each, bursts of `burst` bytes."""

    channels: int
    interleave: int
    burst: int

    def transfers(self, request: Request) -> list[tuple[int, Transfer]]:
        """(channel, transfer) for every channel that holds bytes of a request, that of the first byte first.

        A channel's own addresses leave out the other channels' pages, so a contiguous request is contiguous in all of them.
        """
        address, run, runs, stride, write = request
        page, inside = divmod(address, self.interleave)
        turn, channel = divmod(page, self.channels)
        if runs == 1 and inside + run <= self.interleave:
            return [(channel, Transfer(run, write, turn * self.interleave + inside))]
        base = turn * self.interleave
        shares = _shares(channel * self.interleave + inside, run, runs, stride, self.channels, self.interleave)
        return [
            (number, Transfer(size, write, base + offset, length, step)) for number, offset, size, length, step in shares
        ]

    def bundles(self, owners: Ints, count: int, addresses: Ints, sizes: Ints, write: bool) -> list[Bundle]:
        """Contiguous requests ([n] byte addresses and sizes) as `count` bundles; `owners` [n] says which is in which."""
        found = self.bundle_arrays(owners, count, addresses, sizes, write)
        shares: list[list[tuple[int, int, int, int]]] = [[] for _ in range(count)]
        columns = (found.owner, found.channel, found.address, found.pieces, found.bursts)
        for owner, channel, address, pieces, bursts in zip(*(column.tolist() for column in columns), strict=True):
            shares[owner].append((channel, address, pieces, bursts))
        totals = zip(shares, found.requests.tolist(), found.bytes.tolist(), strict=True)
        return [Bundle(tuple(of), number, volume, write) for of, number, volume in totals]

    def bundle_arrays(self, owners: Ints, count: int, addresses: Ints, sizes: Ints, write: bool) -> BundleArrays:
        """As `bundles`, for those who want arrays."""
        kept = sizes > 0
        owners, addresses, sizes = owners[kept], addresses[kept], sizes[kept]
        numbers = np.bincount(owners, minlength=count)
        volumes = np.bincount(owners, weights=sizes, minlength=count).astype(np.int64)
        of, at, size = self._pieces(owners, addresses, sizes)
        bursts = (at + size - 1) // self.burst - at // self.burst + 1
        cell = of * self.channels + at // self.interleave % self.channels
        local = at // (self.interleave * self.channels) * self.interleave + at % self.interleave
        cells, first, pieces = np.unique(cell, return_index=True, return_counts=True)
        moved = np.bincount(cell, weights=bursts, minlength=count * self.channels).astype(np.int64)[cells]
        return BundleArrays(
            cells // self.channels, cells % self.channels, local[first], pieces, moved, numbers, volumes, write
        )

    def _pieces(self, owners: Ints, addresses: Ints, sizes: Ints) -> tuple[Ints, Ints, Ints]:
        """Requests cut at the pages of the channels: (owner, address, size) of each piece."""
        found: list[tuple[Ints, Ints, Ints]] = []
        while sizes.size:
            here = np.minimum(sizes, self.interleave - addresses % self.interleave)
            found.append((owners, addresses, here))
            more = sizes > here
            owners, addresses, sizes = owners[more], (addresses + here)[more], (sizes - here)[more]
        if not found:
            return owners, addresses, sizes
        of, at, size = zip(*found, strict=True)
        return np.concatenate(of), np.concatenate(at), np.concatenate(size)

    def bundle_transfers(self, bundle: Bundle) -> list[tuple[int, Transfer]]:
        """(channel, transfer) of a bundle: its requests lie scattered, each in bursts of its own."""
        found = []
        for channel, address, count, bursts in bundle.shares:
            size = bursts * self.burst
            run = None if count == 1 else self.burst * max(1, round(bursts / count))
            start = address // self.burst * self.burst
            found.append((channel, Transfer(size, bundle.write, start, run)))
        return found


@lru_cache(maxsize=1 << 14)
def _shares(
    place: int, run: int, runs: int, stride: int, channels: int, interleave: int
) -> tuple[tuple[int, int, int, int | None, int | None], ...]:
    """(channel, offset from the page of the first byte, bytes, run, stride) of each channel."""
    pieces: dict[int, list[list[int]]] = {}
    for index in range(runs):
        address = place + index * stride
        end = address + run
        while address < end:
            page, inside = divmod(address, interleave)
            size = min(end - address, interleave - inside)
            turn, channel = divmod(page, channels)
            local = turn * interleave + inside
            found = pieces.setdefault(channel, [])
            if found and sum(found[-1]) == local:
                found[-1][1] += size
            else:
                found.append([local, size])
            address += size
    return tuple((channel, *_as_transfer(found)) for channel, found in pieces.items())


def _as_transfer(pieces: list[list[int]]) -> tuple[int, int, int | None, int | None]:
    """Pieces (address, size) of one channel as one transfer; uneven ones by their mean run and stride."""
    first, total = pieces[0][0], sum(size for _, size in pieces)
    if len(pieces) == 1:
        return first, total, None, None
    run = -(-total // len(pieces))
    stride = max(run, round((pieces[-1][0] - first) / (len(pieces) - 1)))
    return first, total, run, stride
