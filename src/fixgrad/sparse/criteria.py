"""Pruning criteria: a score for each kernel or element, and the choice of the highest scores.

Everything here is deterministic: the same weights give the same mask on every machine, because integer scores
are exact, float scores are added up in one fixed order, and ties go to the lowest linear index.
"""

from collections.abc import Callable, Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np

from fixgrad.errors import DataError, UsageError
from fixgrad.sparse.masks import Array, BoolArray, Mask, check_weight_shape

INT64_LIMIT = 2**63


def magnitude_scores(weight: Array) -> Array:
    """Sum of |weight| over each 2-D kernel (CONV), or |weight| of each element (FC).

    `weight` is [out, in] or [out, in, kh, kw]: integer codes, for which the scores are exact int64, or
    floats, for which they are float64. Returns [out, in]. Raises `DataError` for NaN, for another dtype, and
    for codes so large that a sum could leave int64 (impossible for weights of up to 32 bit).
    """
    check_weight_shape(weight.shape)
    taps = weight.reshape(*weight.shape[:2], int(np.prod(weight.shape[2:])))
    if weight.dtype.kind in "iu":
        _check_sum_fits_int64(weight, taps.shape[2])
        return _sum_of_magnitudes(taps, np.dtype(np.int64))
    if weight.dtype.kind == "f":
        scores = _sum_of_magnitudes(taps, np.dtype(np.float64))
        _check_no_nan(scores)
        return scores
    raise DataError(f"weight of dtype {weight.dtype}: the magnitude criterion takes integers or floats")


def _check_sum_fits_int64(codes: Array, taps: int) -> None:
    if codes.size == 0:
        return
    largest = max(abs(int(codes.min())), abs(int(codes.max())))
    if largest * max(taps, 1) >= INT64_LIMIT:
        raise DataError(f"weight code of magnitude {largest}: a sum of {taps} such taps leaves int64 (2^63)")


def _sum_of_magnitudes(taps: Array, dtype: np.dtype[Any]) -> Array:
    """Sum over the last axis of [out, in, taps], one tap after the other.

    `numpy.sum` adds floats in an order of its own, different from CPU to CPU; and this way only one tap at a time is
    widened.
    """
    scores = np.zeros(taps.shape[:2], dtype=dtype)
    with np.errstate(over="ignore"):  # a float sum beyond the range is infinite, and still the highest
        for tap in range(taps.shape[2]):
            scores += np.abs(taps[:, :, tap].astype(dtype))
    return scores


def _check_no_nan(scores: Array) -> None:
    out, inp = np.nonzero(np.isnan(scores))
    if out.size:
        raise DataError(f"weight[{out[0]}, {inp[0]}] is NaN: it has no magnitude to prune by")


def keep_highest(scores: Array, keep: int, alive: BoolArray) -> BoolArray:
    """The `keep` (at least 1) highest of the alive scores; ties go to the lowest linear index.

    `scores` and `alive` are [out, in], without NaN. What is dead stays dead; where no more than `keep` are
    alive, all of them stay. Linear time: no full sort.
    """
    pool = scores[alive]
    if pool.size <= keep:
        return alive.copy()
    lowest_kept = pool.size - keep
    pool.partition(lowest_kept)
    threshold = pool[lowest_kept]
    kept: BoolArray = alive & (scores > threshold)
    tied = np.flatnonzero(alive & (scores == threshold))
    kept.flat[tied[: keep - np.count_nonzero(kept)]] = True
    return kept


CRITERIA: Mapping[str, Callable[[Array], Array]] = MappingProxyType({"magnitude": magnitude_scores})
"""Name of a criterion -> the function that scores a weight [out, in, ...] as [out, in]."""


def prune(
    weight: Array,
    density: float,
    mask: Mask | None = None,
    criterion: str = "magnitude",
    layer: str = "weight",
) -> Mask:
    """Keep the share `density` of the kernels (CONV) or elements (FC) of `weight`, those that score highest.

    `weight` is [out, in, kh, kw] or [out, in]: stored integer codes or floats. The number kept is
    `keep_count(density, out * in)`. With a `mask`, only what it keeps can be kept again, so a mask can be
    pruned further, and `density` still counts against all of the weight. `layer` names the weight in errors.

    Raises `UsageError` for a density outside 0 < density <= 1 or an unknown criterion, `DataError` for a
    weight that cannot be scored or a mask that does not fit.
    """
    if criterion not in CRITERIA:
        raise UsageError(f"pruning criterion {criterion!r} is unknown; there is {', '.join(CRITERIA)}")
    check_density(density, layer)
    try:
        before = Mask.full(weight.shape) if mask is None else mask
        before.check_fits(weight.shape)
        scores = CRITERIA[criterion](weight)
    except DataError as error:
        raise DataError(f"layer {layer}: {error}") from error
    return Mask(keep_highest(scores, keep_count(density, before.size), before.alive))


def keep_count(density: float, size: int) -> int:
    """round(density * size), a half rounded to even as Python does, and at least 1."""
    return max(1, round(density * size))


def check_density(density: object, layer: str) -> float:
    """`density` as a float; `UsageError` naming layer, value and limit unless 0 < density <= 1."""
    is_number = isinstance(density, Real) and not isinstance(density, bool | np.bool_)
    if not is_number or not 0 < density <= 1:  # type: ignore[operator]  # a NaN fails the comparison too
        raise UsageError(f"layer {layer}: density {density!r} is not a number with 0 < density <= 1")
    return float(density)  # type: ignore[arg-type]
