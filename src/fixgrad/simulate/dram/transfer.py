"""What a DMA engine asks of a channel: a number of bytes in runs, contiguous, strided or scattered."""

from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

from fixgrad.errors import UsageError
from fixgrad.simulate.dram.standard import DramStandard

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Transfer:
    """`bytes` bytes in runs of `run` contiguous bytes (the last run may be shorter).

    Runs start `stride` bytes apart from `address` on. Without a stride they lie scattered over the channel. `run` of None
    is one contiguous run. Raises UsageError for sizes that are not positive, or runs that overlap.
    """

    bytes: int
    write: bool = False
    address: int = 0
    run: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.bytes < 1:
            raise UsageError(f"a transfer of {self.bytes} bytes; it must move at least 1")
        if self.address < 0:
            raise UsageError(f"a transfer from address {self.address}; it must not be negative")
        if self.run is not None and self.run < 1:
            raise UsageError(f"a transfer in runs of {self.run} bytes; a run must hold at least 1")
        if self.stride is not None and (self.run is None or self.stride < self.run):
            raise UsageError(f"a stride of {self.stride} bytes is shorter than the run of {self.run or self.bytes}")

    @property
    def contiguous(self) -> bool:
        return self.run is None or self.run >= self.bytes or self.stride == self.run

    @property
    def scattered(self) -> bool:
        """Whether each run lies anywhere."""
        return not self.contiguous and self.stride is None

    @property
    def runs(self) -> int:
        return 1 if self.contiguous or self.run is None else -(-self.bytes // self.run)

    @property
    def last_byte(self) -> int | None:
        """Address of the last byte; None if scattered."""
        if self.scattered:
            return None
        if self.contiguous or self.run is None or self.stride is None:
            return self.address + self.bytes - 1
        tail = self.bytes - (self.runs - 1) * self.run
        return self.address + (self.runs - 1) * self.stride + tail - 1


def _bursts_between(first: Integers, last: Integers) -> Integers:
    """All whole numbers of the inclusive ranges, in order, each once even where ranges share an end."""
    lengths = last - first + 1
    starts = np.repeat(first - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
    bursts = starts + np.arange(int(lengths.sum()), dtype=np.int64)
    keep = np.ones(bursts.size, dtype=np.bool_)
    keep[1:] = bursts[1:] != bursts[:-1]
    return bursts[keep]


def _scattered_slots(transfer: Transfer, slots: int) -> Integers:
    """A slot of the channel for each run, by a counter hash (splitmix64) of address and run: the same on every run."""
    x = np.arange(transfer.runs, dtype=np.uint64) + np.uint64(transfer.address)
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(slots)).astype(np.int64)


def burst_addresses(transfer: Transfer, standard: DramStandard) -> Integers:
    """Byte addresses ([bursts], int64, multiples of the burst) that a transfer touches, in order."""
    size = standard.burst_bytes
    if transfer.contiguous or transfer.run is None:
        first = np.array([transfer.address], dtype=np.int64)
        lengths = np.array([transfer.bytes], dtype=np.int64)
    else:
        lengths = np.full(transfer.runs, transfer.run, dtype=np.int64)
        lengths[-1] = transfer.bytes - (transfer.runs - 1) * transfer.run
        if transfer.stride is None:
            slot = -(-transfer.run // size) * size
            first = _scattered_slots(transfer, standard.capacity_bytes // slot) * slot
        else:
            first = transfer.address + np.arange(transfer.runs, dtype=np.int64) * transfer.stride
    return _bursts_between(first // size, (first + lengths - 1) // size) * size


def burst_count(transfer: Transfer, standard: DramStandard) -> int:
    """Number of bursts that `burst_addresses` would return (two runs inside one burst count once).

    The alignment of strided runs repeats after at most `burst_bytes` runs, so the count costs no more than that many steps.
    """
    size = standard.burst_bytes
    if transfer.contiguous or transfer.run is None:
        return (transfer.address + transfer.bytes - 1) // size - transfer.address // size + 1
    tail = transfer.bytes - (transfer.runs - 1) * transfer.run
    if transfer.stride is None:
        return (transfer.runs - 1) * -(-transfer.run // size) + -(-tail // size)
    return _strided_bursts(transfer.address % size, transfer.run, transfer.stride, transfer.runs, tail, size)


def _strided_bursts(offset: int, run: int, stride: int, runs: int, tail: int, size: int) -> int:
    period = size // gcd(stride, size)

    def new_bursts(index: int) -> int:
        """Bursts of full run `index` that the run before it has not touched."""
        first, last = offset + index * stride, offset + index * stride + run - 1
        shared = index > 0 and (first - stride + run - 1) // size == first // size
        return last // size - first // size + (0 if shared else 1)

    full = runs - 1
    count = sum(new_bursts(i) for i in range(min(full, period)))
    if full > period:
        cycles, rest = divmod(full - period, period)
        cycle = [new_bursts(period + i) for i in range(period)]
        count += cycles * sum(cycle) + sum(cycle[:rest])
    first = offset + full * stride
    shared = full > 0 and (first - stride + run - 1) // size == first // size
    return count + (first + tail - 1) // size - first // size + (0 if shared else 1)
