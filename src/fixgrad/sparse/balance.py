"""Masks whose rows and columns are alike, where magnitudes hardly differ.

A machine deals the output channels of a layer to groups of PEs for FF and WG, and its input channels for NG; all groups wait for
the one with the most live kernels. Kernels near the threshold of pruning differ little in magnitude: which of them stay can
follow the balance instead.
"""

import heapq

import numpy as np

from fixgrad.errors import UsageError
from fixgrad.sparse.criteria import keep_highest
from fixgrad.sparse.masks import Array, BoolArray

#: Kernels whose score is within this share of the threshold count as equal.
TOLERANCE = 0.1


def keep_balanced(scores: Array, keep: int, alive: BoolArray, tolerance: float = TOLERANCE) -> BoolArray:
    """The `keep` highest of the alive scores, but among those near the threshold the ones that balance rows and columns.

    Scores above threshold * (1 + tolerance) stay, those below threshold * (1 - tolerance) go. The rest of `keep` is filled one
    by one with the kernel whose row and column are the emptiest (rows in shares of their length, columns likewise); among
    equals with the higher score, then with the lower linear index. `keep` is met exactly, as by `keep_highest`.

    Args:
        scores, alive: [out, in].
        tolerance: 0 to below 1; 0 changes nothing.

    Raises:
        UsageError: a tolerance out of range.
    """
    if not 0 <= tolerance < 1:
        raise UsageError(f"balance tolerance {tolerance!r} is not a number with 0 <= tolerance < 1")
    kept = keep_highest(scores, keep, alive)
    if tolerance == 0 or kept.sum() == alive.sum():
        return kept
    threshold = float(scores[kept].min())
    sure = kept & (scores > threshold * (1 + tolerance))
    near = alive & ~sure & (scores >= threshold * (1 - tolerance))
    chosen = _fill(scores, sure, near, int(kept.sum() - sure.sum()))
    return sure | chosen


def _fill(scores: Array, sure: BoolArray, near: BoolArray, count: int) -> BoolArray:
    """`count` of `near`, each time from the emptiest row and column."""
    outs, ins = sure.shape
    rows, cols = sure.sum(axis=1).tolist(), sure.sum(axis=0).tolist()
    chosen = np.zeros_like(sure)
    where = np.flatnonzero(near)
    heap = []
    for index, score in zip(where.tolist(), scores.flat[where].tolist(), strict=True):
        row, col = divmod(index, ins)
        heap.append((rows[row] * outs + cols[col] * ins, -score, index))
    heapq.heapify(heap)
    while count:
        filled, negative, index = heapq.heappop(heap)
        row, col = divmod(index, ins)
        # In units of 1/(in * out): a row of `in` places and a column of `out`.
        now = rows[row] * outs + cols[col] * ins
        if now != filled:
            heapq.heappush(heap, (now, negative, index))
            continue
        chosen.flat[index] = True
        rows[row] += 1
        cols[col] += 1
        count -= 1
    return chosen


def unevenness(alive: BoolArray, groups: int) -> float:
    """How much longer than the mean the fullest of `groups` takes, where rows go to the groups in turn: 0 is even."""
    loads = np.bincount(np.arange(alive.shape[0]) % groups, alive.sum(axis=1), minlength=groups)
    return float(loads.max() / loads.mean() - 1) if loads.any() else 0.0
