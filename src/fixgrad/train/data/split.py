"""Deterministic hold-out: which images are kept apart depends on nothing that a run can choose."""

import numpy as np
from numpy.typing import NDArray

from fixgrad.numbers import permutation, stream_key


def hold_out(count: int, held: int, stream: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (kept, held out) of `count` images, each ascending, int64 [count - held] and int64 [held].

    The choice is a permutation of the stream (for example ``"split/digits"``) at seed 0: a run's seed must
    not move images between training and test, or runs with different seeds could not be compared.
    """
    order = permutation(count, stream_key(0, 0, stream))
    return np.sort(order[held:]), np.sort(order[:held])
