"""Softmax cross-entropy in integers, by table, so that nothing in a step depends on a platform's `exp`.

With d = max(logits) - logit >= 0, exp(-d) = 2**-(d * log2 e) is a shift by the integer part and a table of 256 entries for
the fraction. The probability is a rounded integer division; the error is probability minus one-hot with 15 fractional bits.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fixgrad.network.cross_entropy import loss_sum, mean_of_loss_sum
from fixgrad.numbers.rounding import shift_nearest

#: log2(e) with 14 fractional bits.
LOG2_E: Final = round(math.log2(math.e) * (1 << 14))
#: 2**(-i/256) with 16 fractional bits.
EXP2_TABLE: Final[NDArray[np.int64]] = np.array([round(2.0 ** (16 - i / 256)) for i in range(256)], np.int64)
#: Fractional bits of probabilities and of the error before it is requantised.
ERROR_FRAC: Final = 15
#: Powers 2**-24 and below are zero.
_DEEPEST: Final = 24


def exponentials(logits: NDArray[np.integer], frac: int) -> NDArray[np.int64]:
    """exp(logit - max) of each row with 16 fractional bits, int64, 0 to 65,536.

    Args:
        logits: integer codes [batch, classes], up to 16 bits.
        frac: their fractional bits.
    """
    wide = np.asarray(logits, np.int64)
    distance = (wide.max(axis=1, keepdims=True) - wide) * LOG2_E
    cut = frac + 14 - 8
    # Both clamps only reach values whose power is zero anyway.
    power = shift_nearest(distance, min(cut, 62)) if cut >= 0 else np.minimum(distance, 1 << 24) << min(-cut, 32)
    whole = np.minimum(power >> 8, _DEEPEST)
    return np.where(whole < _DEEPEST, EXP2_TABLE[power & 255] >> whole, 0)


def loss_gradient(logits: NDArray[np.integer], frac: int, labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Gradient of the cross-entropy summed over the batch: int64 [batch, classes], 15 fractional bits, |error| <= 32,767."""
    powers = exponentials(logits, frac)
    total = powers.sum(axis=1, keepdims=True)
    error = ((powers << ERROR_FRAC) + total // 2) // total
    error[np.arange(len(labels)), labels] -= 1 << ERROR_FRAC
    clipped: NDArray[np.int64] = np.clip(error, -(1 << ERROR_FRAC) + 1, (1 << ERROR_FRAC) - 1)
    return clipped


def mean_loss(logits: NDArray[np.integer], frac: int, labels: NDArray[np.integer]) -> float:
    """Mean cross-entropy of the batch in nats, for people to read: no step depends on it, yet it is the same everywhere."""
    return mean_of_loss_sum(loss_sum(logits, frac, labels), len(labels))
