"""Shares of a budget among layers: which kernels of a whole network are worth what they cost.

Pruning kernel k of layer l changes the layer's weights by s_k, the kernel's magnitude, of sqrt(sum s^2) in all. So

    e_k = s_k^2 / sum over the layer of s^2

is the share of the layer's energy that goes with it: layers of any size and scale compare, and all shares of a layer sum to 1.
Among all sets of kernels whose costs stay within the budget, the least energy is lost by the one that takes kernels in falling
order of e_k / cost_k (the greedy solution of the fractional knapsack problem; Dantzig, Operations Research 5, 1957), up to the
one kernel that no longer fits. The order does not depend on the budget: a larger budget keeps all that a smaller one keeps.
"""

from collections.abc import Mapping
from math import fsum

import numpy as np

from fixgrad.errors import DataError, UsageError
from fixgrad.sparse.masks import Array, BoolArray


def energy_shares(scores: Array) -> Array:
    """Share of the layer's energy of each kernel or element: float64 [out, in], their sum is 1 (0 in a layer of zeros).

    `scores` are magnitudes, see `magnitude_scores`. The same on every machine: one rounded multiplication and division for
    each, and a sum that is rounded once.
    """
    squares = scores.astype(np.float64) ** 2
    total = fsum(squares.ravel().tolist())
    return squares / total if total else np.zeros_like(squares)


def allocate(
    scores: Mapping[str, Array], costs: Mapping[str, int], budget: int, alive: Mapping[str, BoolArray] | None = None
) -> dict[str, BoolArray]:
    """The kernels and elements to keep of all layers, bool [out, in] by layer, whose costs sum to at most `budget`.

    Each layer keeps its strongest one, or the network would be cut in two. The others are taken in falling order of the share
    of energy over the cost (see above), equal ones in the order of layers and then of linear indices, until the next does not
    fit: what is left of the budget is less than the cost of one kernel.

    Args:
        scores: magnitudes [out, in] by layer.
        costs: of one kernel or element, by layer: weights, multiply-accumulates or cycles, at least 1.
        budget: in the same unit.
        alive: what may be kept; layers left out: all.

    Raises:
        UsageError: a cost below 1, or a budget that is too small for one kernel of each layer.
        DataError: a layer has nothing that is alive.
    """
    for name, cost in costs.items():
        if cost < 1:
            raise UsageError(f"layer {name}: a kernel costs {cost}; a cost is at least 1")
    before = {name: _pool(name, each, alive) for name, each in scores.items()}
    worth = {name: energy_shares(each) / costs[name] for name, each in scores.items()}
    first = {name: _strongest(worth[name], before[name]) for name in scores}
    left = budget - sum(costs[name] for name in scores)
    if left < 0:
        raise UsageError(
            f"a budget of {budget:,} is below {budget - left:,}, the cost of one kernel in each of {len(scores)} layers: allow more"
        )
    kept = {name: np.zeros(each.shape, np.bool_) for name, each in scores.items()}
    for name, strongest in first.items():
        kept[name].flat[strongest] = True
    numbers, places, values, prices = [], [], [], []
    for position, name in enumerate(scores):
        rest = np.flatnonzero(before[name] & ~kept[name])
        numbers.append(np.full(len(rest), position))
        places.append(rest)
        values.append(worth[name].flat[rest])
        prices.append(np.full(len(rest), costs[name], np.int64))
    number, place, price = np.concatenate(numbers), np.concatenate(places), np.concatenate(prices)
    order = np.argsort(-np.concatenate(values), kind="stable")
    fits = order[: int(np.searchsorted(np.cumsum(price[order]), left, side="right"))]
    for position, name in enumerate(scores):
        kept[name].flat[place[fits[number[fits] == position]]] = True
    return kept


def cost_of(kept: Mapping[str, BoolArray], costs: Mapping[str, int]) -> int:
    """What the kernels of the masks [out, in] cost together."""
    return sum(costs[name] * int(np.count_nonzero(mask)) for name, mask in kept.items())


def _pool(name: str, scores: Array, alive: Mapping[str, BoolArray] | None) -> BoolArray:
    pool = np.ones(scores.shape, np.bool_) if alive is None or name not in alive else alive[name]
    if not pool.any():
        raise DataError(f"layer {name}: nothing of it is alive, so no kernel can be kept")
    return pool


def _strongest(worth: Array, pool: BoolArray) -> int:
    return int(np.argmax(np.where(pool, worth, -1.0)))
