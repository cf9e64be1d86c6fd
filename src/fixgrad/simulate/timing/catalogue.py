"""What instructions ask of memory, as arrays for the compiled loops.

Maps are read and written in the same few patterns over and over: a pattern is worked out once, by the functions that the
interpreted simulation uses, and serves for every address that lies a multiple of all pages' common period further.
"""

from math import lcm
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fixgrad.simulate.dram import ClosedForm, Transfer
from fixgrad.simulate.timing.channel_state import Integers, Traffic
from fixgrad.simulate.timing.traffic import Asked, Bundle, BundleArrays, Interleaving, Region, RegionRequest, Request, requests

#: Keys of a transfer's shape: bytes, write, run, stride, offset in its first burst.
_Shape = tuple[int, bool, int | None, int | None, int]


class _Growing:
    """An array that grows at its end."""

    def __init__(self, dtype: DTypeLike, *width: int) -> None:
        self.size = 0
        self.array: NDArray[Any] = np.zeros((1024, *width), dtype)

    def room(self, count: int) -> bool:
        """Make room for `count` more; whether the array had to be moved."""
        if self.size + count <= len(self.array):
            return False
        larger = np.zeros((max(2 * len(self.array), self.size + count), *self.array.shape[1:]), self.array.dtype)
        larger[: self.size] = self.array[: self.size]
        self.array = larger
        return True

    def append(self, value: Any) -> None:
        self.array[self.size] = value
        self.size += 1

    def extend(self, values: NDArray[Any]) -> None:
        self.array[self.size : self.size + len(values)] = values
        self.size += len(values)


class Catalogue:
    """Requests known so far.

    Args:
        interleaving: of the memory.
        form: closed forms of a channel.
        lanes, load_words: of the machine: bytes of a word, and words that LOAD distributes in a cycle.
    """

    def __init__(self, interleaving: Interleaving, form: ClosedForm, lanes: int, load_words: int) -> None:
        self._interleaving, self._form = interleaving, form
        self._lanes, self._load_words = lanes, load_words
        self._patterns: dict[tuple[object, ...], tuple[int, int]] = {}
        self._known: dict[_Shape, int] = {}
        self._first, self._parts = _Growing(np.int64), _Growing(np.int64, 3)
        self._channel, self._address, self._shape = (_Growing(kind) for kind in (np.int64, np.int64, np.int64))
        self._shapes, self._busy = _Growing(np.int64, 4), _Growing(np.float64, 4)
        self._bursts, self._misses = _Growing(np.int64, 4), _Growing(np.int64, 4)
        self._first.append(0)
        self.traffic = self._as_traffic()

    def _as_traffic(self) -> Traffic:
        columns = (self._first, self._parts, self._channel, self._address, self._shape)
        shapes = (self._shapes, self._busy, self._bursts, self._misses)
        return Traffic(*(item.array for item in (*columns, *shapes)))

    def _room(self, requests: int, transfers: int) -> None:
        moved = [item.room(requests) for item in (self._first, self._parts)]
        moved += [item.room(transfers) for item in (self._channel, self._address, self._shape)]
        if any(moved):
            self.traffic = self._as_traffic()

    def find(self, asked: Request | Bundle | RegionRequest, bus: int | None = None) -> Asked:
        """The requests of what a unit asks for.

        Args:
            bus: cycles that LOAD's data bus takes for each of them; those of its words without.
        """
        if type(asked) is Bundle:
            first = self._parts.size
            self._append(self._interleaving.bundle_transfers(asked), (0, asked.requests, asked.bytes))
            return Asked(first, first + 1, 0)
        assert not isinstance(asked, Bundle)
        region = asked.region if isinstance(asked, RegionRequest) else asked
        limit = asked.limit if isinstance(asked, RegionRequest) else 0
        period = self._period(limit)
        turns, address = divmod(region.address, period)
        key = (bus, limit, asked.write, address, *region[1:])
        found = self._patterns.get(key)
        if found is None:
            found = self._patterns[key] = self._add(asked, address, bus)
        return Asked(*found, turns * (period // self._interleaving.channels))

    def _period(self, limit: int) -> int:
        """Bytes after which channels, pages and the cuts of requests repeat."""
        pages = self._interleaving.interleave * self._interleaving.channels
        return lcm(pages, limit) if limit else pages

    def _add(self, asked: Request | RegionRequest, address: int, bus: int | None) -> tuple[int, int]:
        first = self._parts.size
        if isinstance(asked, RegionRequest):
            single = list(requests(asked.region._replace(address=address), asked.limit, asked.write))
        else:
            single = [asked._replace(address=address)]
        for request in single:
            cycles = request.bus_cycles(self._lanes, self._load_words) if bus is None else bus
            self._append(self._interleaving.transfers(request), (cycles, request.runs, request.bytes))
        return first, self._parts.size

    def _append(self, transfers: list[tuple[int, Transfer]], part: tuple[int, int, int]) -> None:
        self._room(1, len(transfers))
        for channel, transfer in transfers:
            self._channel.append(channel)
            self._address.append(transfer.address)
            self._shape.append(self._shape_of(transfer))
        self._parts.append(part)
        self._first.append(self._channel.size)

    def add_regions(self, regions: Integers, limit: int) -> Integers:
        """Regions to be read, rows of `Region`, in requests of about `limit` bytes, as rows of `Asked`."""
        period = self._period(limit)
        turns, phase = np.divmod(regions[:, 0], period)
        patterns, where = np.unique(np.column_stack([phase, regions[:, 1:]]), axis=0, return_inverse=True)
        found = np.array([self.find(RegionRequest(Region(*pattern), limit)) for pattern in patterns.tolist()], np.int64)
        asked: Integers = found[where.ravel()]
        asked[:, 2] = turns * (period // self._interleaving.channels)
        return asked

    def add_requests(self, addresses: Integers, sizes: Integers) -> Integers:
        """Contiguous reads, as rows of `Asked`."""
        period = self._period(0)
        turns, phase = np.divmod(addresses, period)
        patterns, where = np.unique(np.column_stack([phase, sizes]), axis=0, return_inverse=True)
        asked: Integers = np.array([self.find(Request(*pattern)) for pattern in patterns.tolist()], np.int64)[where.ravel()]
        asked[:, 2] = turns * (period // self._interleaving.channels)
        return asked

    def add_bundles(self, bundles: BundleArrays, bus: Integers) -> int:
        """Bundles as requests, a part of LOAD each, of `bus` cycles; returns the number of the first."""
        first, burst = self._parts.size, self._interleaving.burst
        sizes = bundles.bursts * burst
        runs = np.where(bundles.pieces == 1, 0, burst * np.maximum(1, np.round(bundles.bursts / bundles.pieces)).astype(np.int64))
        distinct, where = np.unique(sizes << 24 | runs, return_inverse=True)
        numbers = [
            self._shape_of(Transfer(key >> 24, bundles.write, 0, key & 0xFFFFFF or None)) for key in distinct.tolist()
        ]
        self._room(len(bus), len(sizes))
        self._channel.extend(bundles.channel)
        self._address.extend(bundles.address // burst * burst)
        self._shape.extend(np.array(numbers, np.int64)[where])
        self._parts.extend(np.stack([bus, bundles.requests, bundles.bytes], axis=1))
        start = self._first.array[self._first.size - 1]
        self._first.extend(start + np.cumsum(np.bincount(bundles.owner, minlength=len(bus))))
        return first

    def _shape_of(self, transfer: Transfer) -> int:
        offset = transfer.address % self._interleaving.burst
        key = transfer.bytes, transfer.write, transfer.run, transfer.stride, offset
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = self._shapes.size
            self._add_shape(transfer)
        return number

    def _add_shape(self, transfer: Transfer) -> None:
        last = transfer.last_byte
        services = [self._form.service(transfer, joined, opened) for joined in (False, True) for opened in (False, True)]
        columns = (self._shapes, self._busy, self._bursts, self._misses)
        moved = [column.room(1) for column in columns]
        if any(moved):
            self.traffic = self._as_traffic()
        self._shapes.append(
            (transfer.bytes, transfer.write, -1 if last is None else last - transfer.address, transfer.contiguous)
        )
        self._busy.append([service.busy_ns for service in services])
        self._bursts.append([service.bursts for service in services])
        self._misses.append([service.row_misses for service in services])
