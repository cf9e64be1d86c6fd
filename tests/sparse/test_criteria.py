"""The magnitude criterion: exact scores, deterministic choice, masks that are pruned again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fixgrad.errors import DataError, UsageError
from fixgrad.sparse import Mask, keep_count, magnitude_scores, prune
from fixgrad.sparse.criteria import keep_highest


def slowly_pruned(scores: list[int], keep: int, alive: list[bool]) -> list[bool]:
    """A full sort by (highest score, lowest position) over what is alive."""
    order = sorted((-score, at) for at, score in enumerate(scores) if alive[at])
    kept = {at for _, at in order[:keep]}
    return [at in kept for at in range(len(scores))]


def test_kernel_scores_are_the_exact_sum_of_magnitudes() -> None:
    weight = np.array([[[[-127, 127], [0, 1]], [[-128, -128], [-128, -128]]]], dtype=np.int8)
    scores = magnitude_scores(weight)
    assert scores.dtype == np.int64
    assert scores.tolist() == [[255, 512]]


def test_scores_of_the_lowest_32_bit_code_do_not_wrap() -> None:
    weight = np.full((1, 2, 3, 3), -(2**31), dtype=np.int32)
    assert magnitude_scores(weight).tolist() == [[9 * 2**31] * 2]


def test_element_scores_are_magnitudes() -> None:
    assert magnitude_scores(np.array([[-3, 2], [0, -128]], dtype=np.int8)).tolist() == [[3, 2], [0, 128]]


def test_float_kernels_are_added_tap_by_tap_in_order() -> None:
    weight = np.random.default_rng(1).standard_normal((4, 3, 5, 5)).astype(np.float32)
    expected = [[0.0] * 3 for _ in range(4)]
    for out in range(4):
        for inp in range(3):
            for tap in weight[out, inp].ravel().tolist():
                expected[out][inp] += abs(tap)
    assert magnitude_scores(weight).tolist() == expected


def test_nan_is_refused_by_place_and_infinity_is_the_highest() -> None:
    weight = np.ones((2, 3, 3, 3), dtype=np.float32)
    weight[1, 2, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"layer conv9: weight\[1, 2\] is NaN"):
        prune(weight, 0.5, layer="conv9")
    weight[1, 2, 0, 0] = -np.inf
    assert prune(weight, 0.01).alive.tolist() == [[False] * 3, [False, False, True]]


def test_a_sum_that_could_leave_int64_is_refused() -> None:
    assert magnitude_scores(np.array([[2**63 - 1]], dtype=np.uint64)).tolist() == [[2**63 - 1]]
    for code in (np.array([[2**63]], dtype=np.uint64), np.array([[-(2**63)]], dtype=np.int64)):
        with pytest.raises(DataError, match="9223372036854775808"):
            magnitude_scores(code)
    with pytest.raises(DataError, match="4611686018427387904"):
        magnitude_scores(np.full((1, 1, 1, 2), 2**62, dtype=np.int64))


@pytest.mark.parametrize("weight", [np.ones((2, 2), dtype=bool), np.ones((2, 2), dtype=complex)])
def test_other_dtypes_are_refused(weight: np.ndarray) -> None:
    with pytest.raises(DataError, match=f"dtype {weight.dtype}"):
        magnitude_scores(weight)


def test_ties_go_to_the_lowest_linear_index() -> None:
    weight = np.full((2, 4), 5, dtype=np.int8)
    weight[1, 1] = 6
    assert prune(weight, 3 / 8).alive.tolist() == [[True, True, False, False], [False, True, False, False]]


def test_ties_do_not_depend_on_how_the_arrays_lie_in_memory() -> None:
    scores, alive = np.full((3, 4), 7), np.arange(12).reshape(3, 4) % 2 == 1
    expected = keep_highest(scores, 4, alive)
    assert np.flatnonzero(expected).tolist() == [1, 3, 5, 7]
    assert np.array_equal(keep_highest(np.asfortranarray(scores), 4, np.asfortranarray(alive)), expected)


@pytest.mark.parametrize(
    ("density", "size", "expected"),
    [(1.0, 7, 7), (0.5, 5, 2), (0.5, 7, 4), (0.001, 10, 1), (0.1, 262144, 26214), (0.9, 192, 173)],
)
def test_number_kept(density: float, size: int, expected: int) -> None:
    assert keep_count(density, size) == expected
    weight = np.arange(size, dtype=np.int32).reshape(size, 1)
    assert prune(weight, density).count == expected


def test_density_one_keeps_all_even_zeros() -> None:
    assert prune(np.zeros((3, 4, 3, 3), dtype=np.int8), 1.0) == Mask.full((3, 4, 3, 3))


def test_pruning_again_keeps_the_dead_dead() -> None:
    weight = np.random.default_rng(2).integers(-127, 128, (16, 8, 3, 3), dtype=np.int8)
    first = prune(weight, 0.5)
    regrown = np.where(first.expand(weight.shape), weight, np.int8(127))
    second = prune(regrown, 0.25, first)
    assert second.count == 32
    assert (second & first) == second
    assert prune(regrown, 0.9, first) == first


def test_nothing_alive_stays_nothing() -> None:
    dead = Mask(np.zeros((2, 2), dtype=bool))
    assert prune(np.ones((2, 2)), 1.0, dead) == dead
    assert prune(np.ones((0, 2)), 0.5).size == 0


@pytest.mark.parametrize("density", [0, -0.1, 1.0001, float("nan"), float("inf"), True, "0.5", None])
def test_impossible_densities_are_refused_by_name_value_and_limit(density: object) -> None:
    with pytest.raises(UsageError, match=r"^layer conv2: density .* 0 < density <= 1$"):
        prune(np.ones((2, 2)), density, layer="conv2")  # type: ignore[arg-type]


def test_unknown_criterion_and_misfitting_mask_are_refused() -> None:
    with pytest.raises(UsageError, match="'luck' is unknown; there is magnitude"):
        prune(np.ones((2, 2)), 0.5, criterion="luck")
    with pytest.raises(DataError, match=r"layer fc: mask \[2, 2\] does not fit a weight \[2, 3\]"):
        prune(np.ones((2, 3)), 0.5, Mask.full((2, 2)), layer="fc")
    with pytest.raises(DataError, match=r"layer fc: weight with 3 axes"):
        prune(np.ones((2, 3, 1)), 0.5, layer="fc")


@given(
    weight=hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-3, 3)),
    density=st.floats(0.01, 1),
    data=st.data(),
)
def test_choice_equals_a_full_sort(weight: np.ndarray, density: float, data: st.DataObject) -> None:
    alive = data.draw(hnp.arrays(np.bool_, weight.shape))
    expected = slowly_pruned(np.abs(weight).ravel().tolist(), keep_count(density, weight.size), alive.ravel().tolist())
    assert prune(weight, density, Mask(alive)).alive.ravel().tolist() == expected
