"""Global allocation, exchange and balance: budgets held exactly, larger budgets keep more, nothing depends on chance."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fixgrad.errors import DataError, UsageError
from fixgrad.sparse import Mask, allocate, cost_of, energy_shares, exchange, keep_balanced, unevenness
from fixgrad.sparse.criteria import keep_highest, magnitude_scores

Scores = dict[str, NDArray[np.int64]]


@st.composite
def networks(draw: st.DrawFn) -> tuple[Scores, dict[str, int]]:
    """Scores and costs of one to four layers, with many equal scores."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores, costs = {}, {}
    for number in range(draw(st.integers(1, 4))):
        shape = draw(st.integers(1, 9)), draw(st.integers(1, 9))
        scores[f"l{number}"] = rng.integers(0, draw(st.sampled_from((3, 1 << 24))), shape)
        costs[f"l{number}"] = draw(st.integers(1, 50))
    return scores, costs


@settings(max_examples=150, deadline=None)
@given(networks(), st.floats(0, 1))
def test_the_budget_is_held_and_no_further_kernel_fits(network: tuple[Scores, dict[str, int]], share: float) -> None:
    scores, costs = network
    whole = {name: np.ones(each.shape, np.bool_) for name, each in scores.items()}
    budget = max(int(share * cost_of(whole, costs)), sum(costs.values()))
    kept = allocate(scores, costs, budget)
    assert all(mask.any() for mask in kept.values())
    left = budget - cost_of(kept, costs)
    assert left >= 0
    dead = [costs[name] for name, mask in kept.items() if not mask.all()]
    assert not dead or left < max(dead)


@settings(max_examples=100, deadline=None)
@given(networks(), st.integers(0, 2000), st.integers(0, 2000))
def test_a_larger_budget_keeps_all_that_a_smaller_one_keeps(network: tuple[Scores, dict[str, int]], a: int, b: int) -> None:
    scores, costs = network
    least = sum(costs.values())
    small, large = (allocate(scores, costs, least + each) for each in sorted((a, b)))
    assert all((large[name] | ~small[name]).all() for name in scores)


def test_no_set_of_the_same_cost_loses_less_energy() -> None:
    """By trying every set, at a budget that the greedy choice fills exactly."""
    rng = np.random.default_rng(4)
    scores = {"a": rng.integers(1, 100, (2, 3)), "b": rng.integers(1, 100, (2, 2))}
    costs, places = {"a": 2, "b": 3}, [("a", i) for i in range(6)] + [("b", i) for i in range(4)]
    shares = {name: energy_shares(each).ravel() for name, each in scores.items()}
    for budget in range(5, 25):
        kept = allocate(scores, costs, budget)
        if cost_of(kept, costs) != budget:
            continue
        energy = sum(shares[name][mask.ravel()].sum() for name, mask in kept.items())
        for count in range(2, 11):
            for chosen in combinations(places, count):
                if sum(costs[name] for name, _ in chosen) <= budget and {name for name, _ in chosen} == {"a", "b"}:
                    assert sum(shares[name][index] for name, index in chosen) <= energy + 1e-12


def test_scale_and_unit_change_nothing() -> None:
    rng = np.random.default_rng(5)
    scores = {"a": rng.integers(1, 1000, (8, 8)), "b": rng.integers(1, 1000, (16, 4))}
    found = allocate(scores, {"a": 1, "b": 9}, 200)
    scaled = allocate({"a": scores["a"] * 4, "b": scores["b"] * 1024}, {"a": 2, "b": 18}, 400)
    assert all(np.array_equal(found[name], scaled[name]) for name in found)


def test_what_is_dead_stays_dead() -> None:
    scores = {"a": np.arange(9).reshape(3, 3)}
    alive = {"a": np.arange(9).reshape(3, 3) < 5}
    assert np.array_equal(allocate(scores, {"a": 1}, 9, alive)["a"], alive["a"])


def test_dear_kernels_go_first() -> None:
    scores = {"cheap": np.full((4, 4), 7), "dear": np.full((4, 4), 7)}
    kept = allocate(scores, {"cheap": 1, "dear": 10}, 56)
    assert {name: int(mask.sum()) for name, mask in kept.items()} == {"cheap": 16, "dear": 4}


def test_energy_shares_sum_to_one() -> None:
    assert energy_shares(np.array([[3, 4]])).tolist() == [[0.36, 0.64]]
    assert energy_shares(np.zeros((2, 2), np.int64)).tolist() == [[0, 0], [0, 0]]


def test_impossible_allocations_are_refused() -> None:
    scores = {"a": np.ones((2, 2), np.int64), "b": np.ones((2, 2), np.int64)}
    with pytest.raises(UsageError, match="a budget of 9 is below 10, the cost of one kernel in each of 2 layers"):
        allocate(scores, {"a": 5, "b": 5}, 9)
    with pytest.raises(UsageError, match="layer b: a kernel costs 0; a cost is at least 1"):
        allocate(scores, {"a": 5, "b": 0}, 100)
    with pytest.raises(DataError, match="layer b: nothing of it is alive"):
        allocate(scores, {"a": 1, "b": 1}, 8, {"b": np.zeros((2, 2), np.bool_)})


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0, 1))
def test_an_exchange_keeps_the_count_and_takes_the_extremes(seed: int, live: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    weight, gradient = (rng.integers(-50, 50, (6, 7, 3, 3)) for _ in range(2))
    alive = np.zeros(42, np.bool_)
    alive[rng.permutation(42)[:live]] = True
    mask = Mask(alive.reshape(6, 7))
    after = exchange(weight, gradient, mask, share)
    assert after.count == mask.count
    dropped, grown = mask.alive & ~after.alive, after.alive & ~mask.alive
    assert dropped.sum() == grown.sum() == min(int(share * live), 42 - live)
    if dropped.any():
        magnitude, wanted = magnitude_scores(weight), magnitude_scores(gradient)
        assert not (mask.alive & after.alive).any() or magnitude[dropped].max() <= magnitude[mask.alive & after.alive].min()
        left = ~mask.alive & ~after.alive
        assert not left.any() or wanted[grown].min() >= wanted[left].max()


def test_exchanges_that_make_no_sense_are_refused() -> None:
    mask = Mask(np.eye(2, dtype=np.bool_))
    with pytest.raises(UsageError, match=r"layer fc: share 1.5 of exchanged kernels"):
        exchange(np.ones((2, 2)), np.ones((2, 2)), mask, 1.5, "fc")
    with pytest.raises(DataError, match=r"layer fc: the gradient \[2, 3\] has not the shape of the weight \[2, 2\]"):
        exchange(np.ones((2, 2)), np.ones((2, 3)), mask, 0.5, "fc")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0, 0.9))
def test_balance_keeps_the_count_and_all_that_matters(seed: int, keep: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    scores, alive = rng.integers(100, 200, (8, 8)), rng.random((8, 8)) < 0.9
    plain, balanced = keep_highest(scores, keep, alive), keep_balanced(scores, keep, alive, tolerance)
    assert balanced.sum() == plain.sum()
    assert not (balanced & ~alive).any()
    threshold = scores[plain].min()
    assert (balanced | ~(plain & (scores > threshold * (1 + tolerance)))).all()
    assert scores[balanced].min() >= threshold * (1 - tolerance)


def test_equal_scores_are_spread_evenly() -> None:
    scores = np.full((8, 8), 5)
    assert unevenness(keep_highest(scores, 16, scores > 0), 4) == 1.0
    balanced = keep_balanced(scores, 16, scores > 0)
    assert set(balanced.sum(axis=0)) == set(balanced.sum(axis=1)) == {2}
    assert unevenness(balanced, 4) == 0.0


def test_a_tolerance_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="balance tolerance 1 is not a number with 0 <= tolerance < 1"):
        keep_balanced(np.ones((2, 2)), 1, np.ones((2, 2), np.bool_), 1)
