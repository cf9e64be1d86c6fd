"""Initial weights that are the same on every machine: Kaiming's normal distribution from the counter hash.

Source: K. He et al., "Delving Deep into Rectifiers", ICCV 2015, equation 10: variance 2 / fan_in.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fixgrad.network import Network
from fixgrad.numbers import StreamKey, hash32, stream_key

#: 16-bit uniforms that are added up to a normal number. Twelve have a variance of 2**32 - 1: its root is 2**16.
UNIFORMS = 12
#: Parameters that are drawn at once, so that the hashes of a large layer need little memory.
_CHUNK = 1 << 20


def initial_weights(network: Network, seed: int) -> dict[str, NDArray[np.float64]]:
    """Initial values of every parameter: Kaiming normal for weights (fan_in, rectifier), zero for offsets, 1 for gamma.

    The stream of a weight is ``init/NAME`` at step 0. Only integer additions, one square root and one multiplication are
    involved, all exact or correctly rounded by IEEE 754: no platform's `log` or `cos` can change a bit.
    """
    values = {}
    for name, shape in network.parameters.items():
        if not name.endswith(".weight"):
            values[name] = np.ones(shape) if name.endswith(".gamma") else np.zeros(shape)
        else:
            deviation = math.sqrt(2.0 / math.prod(shape[1:]))
            values[name] = standard_normal(shape, stream_key(seed, 0, f"init/{name}")) * deviation
    return values


def standard_normal(shape: tuple[int, ...], key: StreamKey) -> NDArray[np.float64]:
    """Numbers of mean 0 and variance 1, each a multiple of 2**-17, within +-6.

    Each is the sum of twelve 16-bit uniforms (Irwin-Hall): element e takes both halves of the hashes 6 e to 6 e + 5. The
    sum departs from the normal distribution in the tails beyond 3 deviations, where it has 1 in 500 instead of 1 in 370.
    """
    count = math.prod(shape)
    values = np.empty(count)
    for start in range(0, count, _CHUNK):
        values[start : start + _CHUNK] = _sums(start, min(start + _CHUNK, count), key)
    return values.reshape(shape)


def _sums(start: int, stop: int, key: StreamKey) -> NDArray[np.float64]:
    hashes = UNIFORMS // 2
    bits = hash32(np.arange(start * hashes, stop * hashes), key)
    total = ((bits & np.uint32(0xFFFF)) + (bits >> np.uint32(16))).reshape(-1, hashes).sum(axis=1, dtype=np.int64)
    # A uniform of 0..65535 has the mean 65535/2: doubled, everything stays an integer.
    normal: NDArray[np.float64] = np.ldexp((2 * total - UNIFORMS * 0xFFFF).astype(np.float64), -17)
    return normal
