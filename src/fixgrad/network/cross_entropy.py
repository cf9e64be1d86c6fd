"""The value of the loss in integers, so that what a run remembers of it depends on no platform's `exp` and `log`.

No step depends on it, but checkpoints hold it, and it is summed over the images of all workers: integers have one sum.
With y = (max - logit) * log2(e), the powers 2**-y are products of tables, for 8 bits of the fraction each. The logarithm of
their sum S = 2**k * (1 + i/256) * (1 + e) is k ln 2, a table of ln(1 + i/256), and three terms of the series of ln(1 + e).
Each image's loss is within 1e-6 of the real one, or within 1e-6 of its size where that is larger.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fixgrad.numbers.rounding import shift_nearest

#: Fractional bits of the loss of an image, in nats.
LOSS_FRAC: Final = 24
#: Fractional bits on the way there.
_FRAC: Final = 30
#: log2(e) with 40 fractional bits.
_LOG2_E: Final = round(math.log2(math.e) * (1 << 40))
_LN_2: Final = round(math.log(2) * (1 << _FRAC))
#: 2**(-i / 2**8), 2**(-i / 2**16) and 2**(-i / 2**24).
_POWERS: Final = tuple(
    np.array([round(2.0 ** (_FRAC - i / (1 << bits))) for i in range(256)], np.int64) for bits in (8, 16, 24)
)
#: ln(1 + i / 256).
_LOGARITHMS: Final = np.array([round(math.log1p(i / 256) * (1 << _FRAC)) for i in range(257)], np.int64)
#: A power of two this deep is zero.
_DEEPEST: Final = 40
#: The largest loss of an image: 2**20 nats.
_LARGEST: Final = 1 << (20 + LOSS_FRAC)


def loss_sum(logits: NDArray[np.integer], frac: int, labels: NDArray[np.integer]) -> int:
    """Cross-entropy summed over the batch, in nats with 24 fractional bits.

    Args:
        logits: integer codes [batch, classes], up to 16 bits.
        frac: their fractional bits.
        labels: [batch], 0 to classes - 1.
    """
    wide = np.asarray(logits, np.int64)
    distance = wide.max(axis=1, keepdims=True) - wide
    of_label = distance[np.arange(len(labels)), labels]
    losses = _scaled(of_label, frac, LOSS_FRAC) + shift_nearest(_logarithm(_exponentials(distance, frac)), _FRAC - LOSS_FRAC)
    return int(np.minimum(losses, _LARGEST).sum())


def mean_of_loss_sum(total: int, images: int) -> float:
    """Mean loss in nats of a sum of `images` losses: the quotient of two integers, rounded once."""
    return total / (images << LOSS_FRAC)


def _exponentials(distance: NDArray[np.int64], frac: int) -> NDArray[np.int64]:
    """Sum over the classes of exp(-distance), with 30 fractional bits: 1 or more."""
    depth = np.minimum(_scaled(distance * _LOG2_E, frac + 40, 24), _DEEPEST << 24)
    power = _POWERS[0][depth >> 16 & 255]
    for table, shift in zip(_POWERS[1:], (8, 0), strict=True):
        power = shift_nearest(power * table[depth >> shift & 255], _FRAC)
    sums: NDArray[np.int64] = (power >> (depth >> 24)).sum(axis=1)
    return sums


def _logarithm(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """ln of values of 1 and more, both with 30 fractional bits."""
    octave = np.zeros_like(values)
    for bits in (16, 8, 4, 2, 1):
        above = values >> octave >= 1 << (_FRAC + bits)
        octave += bits * above
    mantissa = values >> octave
    index = (mantissa - (1 << _FRAC)) >> (_FRAC - 8)
    grid = (256 + index) << (_FRAC - 8)
    rest = ((mantissa - grid) << _FRAC) // grid
    square = (rest * rest) >> _FRAC
    series = rest - (square >> 1) + ((square * rest) >> _FRAC) // 3
    logarithm: NDArray[np.int64] = octave * _LN_2 + _LOGARITHMS[index] + series
    return logarithm


def _scaled(values: NDArray[np.int64], frac: int, wanted: int) -> NDArray[np.int64]:
    """Values of 0 and more at `wanted` fractional bits, held at 2**44 and above that where that would wrap."""
    if frac >= wanted:
        return shift_nearest(values, min(frac - wanted, 62))
    left = min(wanted - frac, 62)
    return np.minimum(values, _LARGEST >> left if _LARGEST >> left else 1) << min(left, 44)
