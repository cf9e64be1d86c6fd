"""Which bytes of memory an instruction moves: regions of feature maps as requests, and how channels share a request."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from fixgrad.simulate.dram import Transfer


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


class Region(NamedTuple):
    """Part of a feature map: `planes` planes of `rows` rows of `run` bytes each; strides in bytes."""

    address: int
    run: int
    rows: int
    row_stride: int
    planes: int
    plane_stride: int


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


class Share(NamedTuple):
    """What one channel moves of a request; `offset` is relative to the channel's page of the request's first byte."""

    channel: int
    offset: int
    bytes: int
    run: int | None
    stride: int | None


def share_transfers(request: Request, channels: int, interleave: int) -> list[tuple[int, Transfer]]:
    """(channel, transfer) for every channel that holds bytes of a request, that of the first byte first.

    Addresses go round the channels every `interleave` bytes; a channel's own addresses leave out the others' pages, so a
    contiguous request is contiguous in every channel.
    """
    circle = interleave * channels
    turn, place = divmod(request.address, circle)
    base = turn * interleave
    return [
        (share.channel, Transfer(share.bytes, request.write, base + share.offset, share.run, share.stride))
        for share in _shares(place, request.run, request.runs, request.stride, channels, interleave)
    ]


@lru_cache(maxsize=1 << 14)
def _shares(place: int, run: int, runs: int, stride: int, channels: int, interleave: int) -> tuple[Share, ...]:
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
    return tuple(_share(channel, found) for channel, found in pieces.items())


def _share(channel: int, pieces: list[list[int]]) -> Share:
    """Pieces (address, size) of one channel as one transfer; uneven ones by their mean run and stride."""
    first, total = pieces[0][0], sum(size for _, size in pieces)
    if len(pieces) == 1:
        return Share(channel, first, total, None, None)
    run = -(-total // len(pieces))
    stride = max(run, round((pieces[-1][0] - first) / (len(pieces) - 1)))
    return Share(channel, first, total, run, stride)
