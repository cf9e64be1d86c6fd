"""The memory image of a random program: regions handed out one after another, filled with random codes."""

from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ALIGNMENT = 64


class Region(NamedTuple):
    """Bytes [address, address + bytes) of the image."""

    name: str
    address: int
    bytes: int


class MemoryBuilder:
    """Hands out regions and remembers their contents. Between them lie random gaps of bytes that nothing may touch.

    Attributes:
        regions: by name.
    """

    def __init__(self, random: Random) -> None:
        self.regions: dict[str, Region] = {}
        self._random = random
        self._rng = np.random.default_rng(random.getrandbits(64))
        self._contents: list[tuple[int, NDArray[np.uint8]]] = []
        self._end = 0

    def allocate(self, name: str, size: int, alignment: int = ALIGNMENT) -> int:
        """A region of `size` bytes; its address. Equal names are numbered."""
        start = -(-(self._end + self._random.choice((0, 0, 64, 192))) // alignment) * alignment
        unique = name if name not in self.regions else f"{name}.{len(self.regions)}"
        self.regions[unique] = Region(unique, start, size)
        self._end = start + size
        return start

    def put(self, address: int, values: Array) -> None:
        """Write an array's bytes at `address`."""
        self._contents.append((address, np.ascontiguousarray(values).view(np.uint8).reshape(-1)))

    def store(self, name: str, values: Array, alignment: int = ALIGNMENT) -> int:
        """A region that holds `values`; its address."""
        address = self.allocate(name, values.nbytes, alignment)
        self.put(address, values)
        return address

    def integers(self, low: int, high: int, shape: tuple[int, ...], dtype: str) -> Array:
        """Random integers from `low` to `high`, some of them exactly there, little endian."""
        values = self._rng.integers(low, high + 1, shape, np.int64)
        extreme = self._rng.random(shape)
        values[extreme < 0.03], values[extreme > 0.97] = low, high
        return values.astype(dtype)

    def codes(self, shape: tuple[int, ...], bits: int) -> Array:
        """Symmetric codes of `bits` bits, int32."""
        limit = (1 << (bits - 1)) - 1
        return self.integers(-limit, limit, shape, "<i4")

    def image(self) -> NDArray[np.uint8]:
        """Everything so far; bytes that nothing was put at are random, so that reading them by mistake shows."""
        image = self._rng.integers(0, 256, self._end, np.uint8)
        for region in self.regions.values():
            image[region.address : region.address + region.bytes] = 0
        for address, data in self._contents:
            image[address : address + len(data)] = data
        return image


def narrow(codes: Array, width: int) -> NDArray[np.uint8]:
    """The low `width` bytes of each int32, as stored weights and momenta lie in memory."""
    return np.ascontiguousarray(codes.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :width]).reshape(-1)
