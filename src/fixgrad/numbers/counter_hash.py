"""Random bits from a counter: the same in every executor, on every device and after a resume.

A *stream* is named by (seed, step, name of the tensor and its use). Its 64-bit key is derived once on the
host; each element then hashes its own index with the key, so no executor has to draw in any order. The
element hash uses only 32-bit additions, shifts and XORs: it costs a few hundred LUTs and no DSP in hardware,
and vectorises on a CPU.
"""

from functools import lru_cache
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

_MASK64 = (1 << 64) - 1
_MASK32 = (1 << 32) - 1

#: The rounds of the element hash, in order: a = (a + constant) + (a << left), then a ^= a >> right. Every
#: executor and the gateware read them from here. The shifts were chosen by a search for the flattest
#: avalanche (tests/numbers/test_hash.py).
HASH_ROUNDS: tuple[tuple[int, int, int], ...] = (
    (0x9E3779B9, 15, 7),
    (0x6A09E667, 5, 10),
    (0xBB67AE85, 14, 6),
    (0x3C6EF373, 12, 16),
)
#: The high half of the key is XORed in after this many rounds, so that streams whose low halves meet still
#: differ.
HASH_KEY_ROUND = 2


class StreamKey(NamedTuple):
    """The two 32-bit halves of a stream's key, as the hardware's key registers hold them."""

    low: int
    high: int


def _mix64(value: int) -> int:
    """A 64-bit bijection with full avalanche: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK64
    return value ^ (value >> 31)


@lru_cache(maxsize=16)
def _stream_start(seed: int, step: int) -> int:
    """What all streams of a step begin with."""
    state = _mix64((seed + 0x9E3779B97F4A7C15) & _MASK64)
    return _mix64((state + step * 0xD1342543DE82EF95) & _MASK64)


@lru_cache(maxsize=4096)
def stream_key(seed: int, step: int, stream: str) -> StreamKey:
    """Key of the random stream `stream` (for example ``"error/conv2"``) at a step.

    Args:
        seed: the run's seed, any integer (its low 64 bits count).
        step: the training step (or the epoch, for streams that are drawn once an epoch), >= 0.
        stream: name of the tensor and its use.
    """
    state = _stream_start(seed, step)
    for byte in stream.encode():
        state = _mix64((state ^ byte) + 0x9E3779B97F4A7C15 & _MASK64)
    return StreamKey(state & _MASK32, state >> 32)


@overload
def hash32(element: int, key: StreamKey) -> int: ...
@overload
def hash32(element: NDArray[np.integer], key: StreamKey) -> NDArray[np.uint32]: ...


def hash32(element: int | NDArray[np.integer], key: StreamKey) -> int | NDArray[np.uint32]:
    """32 random bits for each element index of a stream; uint32, in the shape of `element`.

    For a fixed key the map is a bijection of 32-bit integers: no two elements of a tensor share their bits.
    Element indices are taken modulo 2**32.
    """
    if isinstance(element, int):
        return int(hash32(np.asarray([element & _MASK32], np.uint32), key)[0])
    a = np.atleast_1d(element).astype(np.uint32) ^ np.uint32(key.low)  # scalars would warn that they wrap
    for index, (constant, left, right) in enumerate(HASH_ROUNDS):
        if index == HASH_KEY_ROUND:
            a ^= np.uint32(key.high)
        a = (a + np.uint32(constant)) + (a << np.uint32(left))
        a ^= a >> np.uint32(right)
    return a.reshape(element.shape)


def uniform_below(element: NDArray[np.integer], key: StreamKey, bound: int) -> NDArray[np.int64]:
    """An integer in [0, bound) for each element: the high half of hash * bound.

    No value is off 1/bound by more than 2**-32. `bound` is 1 to 2**32.
    """
    return ((hash32(element, key).astype(np.uint64) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def permutation(count: int, key: StreamKey) -> NDArray[np.int64]:
    """A permutation of range(count): the indices sorted by their hash (a bijection, so there are no ties)."""
    return np.argsort(hash32(np.arange(count), key), kind="stable").astype(np.int64)
