"""The counter hash: fixed for ever (golden values), a bijection, and random enough for rounding and sampling.

All statistics are of fixed keys, so a test passes or fails for good; the bounds are those of a fair source: at 5
standard deviations one statistic in 1.7 million would fail by chance.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from fixgrad.numbers import StreamKey, hash32, permutation, stream_key, uniform_below
from fixgrad.numbers.counter_hash import HASH_KEY_ROUND, HASH_ROUNDS

SIGMAS = 5.0
KEYS = [stream_key(0, 0, ""), stream_key(1, 2, "error/conv2"), stream_key(-1, 10**6, "w"), StreamKey(0, 0)]
COUNT = 1 << 18
#: 2**28 elements: more than any tensor of a training step has. The avalanche of higher index bits is weaker.
TENSOR_BITS = 28


def uniform(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Mean 0 and variance 1 if the words are uniform."""
    return (words / 2.0**32 - 0.5) * math.sqrt(12)


def chi_square_sigmas(cells: NDArray[np.integer], count: int) -> float:
    """How far a chi-square of cell numbers in [0, count) is from its expectation, in standard deviations."""
    expected = cells.size / count
    chi_square = ((np.bincount(cells.ravel(), minlength=count) - expected) ** 2).sum() / expected
    return float((chi_square - (count - 1)) / math.sqrt(2 * (count - 1)))


def test_golden_keys() -> None:
    assert stream_key(0, 0, "") == (4282176703, 1210155558)
    assert stream_key(1, 2, "error/conv2") == (2512934776, 3648089102)
    assert stream_key(-1, 10**6, "w") == (4093572969, 165082069)


def test_golden_words() -> None:
    elements = np.array([0, 1, 2, 2**32 - 1])
    error = [0x5B4EE7DD, 0x118CE788, 0xB45086F5, 0x19E7679C]
    zero = [0xB02828B6, 0x4DCBAD59, 0xCBACFC10, 0x37C45018]
    assert hash32(elements, stream_key(1, 2, "error/conv2")).tolist() == error
    assert hash32(elements, StreamKey(0, 0)).tolist() == zero


def test_golden_permutation_and_draws() -> None:
    key = stream_key(5, 0, "shuffle")
    assert permutation(10, key).tolist() == [0, 5, 7, 1, 2, 3, 6, 4, 8, 9]
    assert uniform_below(np.arange(10), key, 9).tolist() == [0, 4, 4, 4, 5, 1, 5, 2, 7, 8]


def test_the_seed_counts_modulo_2_to_64() -> None:
    assert stream_key(-3, 1, "x") == stream_key(2**64 - 3, 1, "x")
    assert stream_key(0, 1, "x") != stream_key(2**32, 1, "x")


def test_keys_of_a_run_are_all_different() -> None:
    keys = {
        stream_key(seed, step, name)
        for seed in range(-5, 5)
        for step in range(300)
        for name in ("a", "b", "ab", "ba", "", "error/conv1", "error/conv2", "w\0", "é")
    }
    assert len(keys) == 10 * 300 * 9


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint32, np.int64, np.uint64])
def test_scalars_and_arrays_of_any_type_agree(dtype: type[np.integer]) -> None:
    elements = np.arange(100).astype(dtype).reshape(4, 25)
    words = hash32(elements, KEYS[1])
    assert words.dtype == np.uint32
    assert words.shape == (4, 25)
    assert words.tolist() == [[hash32(int(element), KEYS[1]) for element in row] for row in elements]


def test_elements_count_modulo_2_to_32() -> None:
    elements = np.array([-1, -(2**31), 2**32, 2**40 + 7])
    assert hash32(elements, KEYS[0]).tolist() == [hash32(element, KEYS[0]) for element in (2**32 - 1, 2**31, 0, 7)]


def test_no_dimensions_and_no_elements() -> None:
    assert hash32(np.array(7), KEYS[0]).shape == ()
    assert hash32(np.array(7), KEYS[0]) == hash32(7, KEYS[0])
    assert hash32(np.zeros((0, 3), np.int64), KEYS[0]).shape == (0, 3)


def test_the_element_array_is_not_changed() -> None:
    elements = np.arange(16, dtype=np.uint32)
    hash32(elements, KEYS[1])
    assert (elements == np.arange(16)).all()


def undo_right_xor(word: int, shift: int) -> int:
    result = word
    for _ in range(32 // shift):
        result = word ^ (result >> shift)
    return result


def inverse_hash(word: int, key: StreamKey) -> int:
    """Undo the rounds: x + (x << l) is a product with the odd 2**l + 1, so it has an inverse modulo 2**32."""
    for index in reversed(range(len(HASH_ROUNDS))):
        constant, left, right = HASH_ROUNDS[index]
        word = (undo_right_xor(word, right) - constant) * pow((1 << left) + 1, -1, 1 << 32) % (1 << 32)
        if index == HASH_KEY_ROUND:
            word ^= key.high
    return word ^ key.low


@pytest.mark.parametrize("key", KEYS)
def test_every_round_can_be_undone_so_the_hash_is_a_bijection(key: StreamKey) -> None:
    elements = np.concatenate([np.arange(2000), 2**32 - 1 - np.arange(2000), 1 << np.arange(32)])
    assert [inverse_hash(int(word), key) for word in hash32(elements, key)] == elements.tolist()


@pytest.mark.parametrize("key", KEYS)
def test_no_collisions_among_a_million_elements(key: StreamKey) -> None:
    count = 1 << 20
    assert np.unique(hash32(np.arange(count), key)).size == count


@pytest.mark.parametrize("key", KEYS[:3])
def test_avalanche_of_the_element(key: StreamKey) -> None:
    """Each bit of an index flips each bit of the word with probability 1/2, within 0.02 (measured: 0.016)."""
    elements = np.arange(COUNT)
    words = hash32(elements, key)
    outputs = np.arange(32, dtype=np.uint32)[:, None]
    for bit in range(TENSOR_BITS):
        flipped = words ^ hash32(elements ^ (1 << bit), key)
        flips = ((flipped >> outputs) & 1).mean(axis=1)
        assert (np.abs(flips - 0.5) <= 0.02).all(), bit


@pytest.mark.parametrize("change", ["seed", "step", "name"])
def test_avalanche_of_the_key(change: str) -> None:
    """A stream whose seed, step or name is one further has a key in which half of the bits differ."""
    distances = []
    for index in range(2000):
        near = {"seed": (index + 1, 0, "t0"), "step": (0, index + 1, "t0"), "name": (0, 0, f"t{index + 1}")}
        far = {"seed": (index, 0, "t0"), "step": (0, index, "t0"), "name": (0, 0, f"t{index}")}
        first, second = stream_key(*near[change]), stream_key(*far[change])
        distances.append(((first.low ^ second.low) | (first.high ^ second.high) << 32).bit_count())
    assert abs(np.mean(distances) - 32) <= SIGMAS * 4 / math.sqrt(2000)


@pytest.mark.parametrize("key", KEYS)
def test_every_bit_is_balanced(key: StreamKey) -> None:
    words = hash32(np.arange(COUNT), key)
    shares = ((words >> np.arange(32, dtype=np.uint32)[:, None]) & 1).mean(axis=1)
    assert (np.abs(shares - 0.5) <= SIGMAS * 0.5 / math.sqrt(COUNT)).all()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("low_bit", range(0, 25, 4))
def test_bytes_are_uniform(key: StreamKey, low_bit: int) -> None:
    words = hash32(np.arange(COUNT), key)
    assert abs(chi_square_sigmas((words >> np.uint32(low_bit)).astype(np.int64) & 255, 256)) <= SIGMAS


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 9, 16, 31, 32, 64, 100, 128, 1024, 4096, 65536])
def test_no_serial_correlation(key: StreamKey, lag: int) -> None:
    """Neighbours in any of the tensor's dimensions: the image, the pixel, the row, the channel."""
    series = uniform(hash32(np.arange(COUNT), key))
    assert abs((series[lag:] * series[:-lag]).mean()) <= SIGMAS / math.sqrt(COUNT - lag)
    top = hash32(np.arange(COUNT), key) >> np.uint32(27)
    pairs = top[lag:].astype(np.int64) * 32 + top[:-lag]
    assert abs(chi_square_sigmas(pairs, 1024)) <= SIGMAS


@pytest.mark.parametrize("change", ["seed", "step", "name"])
def test_streams_are_independent(change: str) -> None:
    """Neighbouring streams at the same elements: no correlation, and pairs of their top bits are uniform."""
    count, streams = 1 << 14, 64
    keys = {
        "seed": [stream_key(seed, 0, "error/conv1") for seed in range(streams)],
        "step": [stream_key(0, step, "error/conv1") for step in range(streams)],
        "name": [stream_key(0, 0, f"error/conv{layer}") for layer in range(streams)],
    }[change]
    words = np.stack([hash32(np.arange(count), key) for key in keys])
    series = uniform(words)
    correlations = series @ series.T / count
    apart = correlations[np.triu_indices(streams, 1)]
    assert np.abs(apart).max() <= SIGMAS / math.sqrt(count)
    assert abs(math.sqrt(apart.size * count) * apart.mean()) <= SIGMAS
    top = (words >> np.uint32(28)).astype(np.int64)
    assert abs(chi_square_sigmas(top[1:] * 16 + top[:-1], 256)) <= SIGMAS


def test_means_of_streams_scatter_like_those_of_a_fair_source() -> None:
    """Neither wider, so that rounding is noisier than it should be, nor narrower, as low-discrepancy sequences."""
    count, streams = 1 << 10, 4000
    means = np.array(
        [uniform(hash32(np.arange(count), stream_key(seed, 7, "means"))).mean() * math.sqrt(count) for seed in range(streams)]
    )
    assert abs(means.mean()) <= SIGMAS / math.sqrt(streams)
    assert abs(means.std() - 1) <= SIGMAS / math.sqrt(2 * streams)
    assert np.abs(means).max() <= SIGMAS


@pytest.mark.parametrize("count", [0, 1, 2, 17, 1000])
def test_a_permutation_has_every_index_once(count: int) -> None:
    order = permutation(count, stream_key(0, 3, "shuffle"))
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))


def test_permutations_of_epochs_are_uniform() -> None:
    epochs = [permutation(6, stream_key(0, epoch, "shuffle")) for epoch in range(14400)]
    ranks = np.array([int("".join(map(str, order)), 6) for order in epochs])
    _, cells = np.unique(ranks, return_inverse=True)
    assert int(cells.max()) == math.factorial(6) - 1
    assert abs(chi_square_sigmas(cells, math.factorial(6))) <= SIGMAS


@pytest.mark.parametrize("bound", [1, 2, 3, 9, 10, 255, 1000])
def test_draws_below_a_bound_are_uniform(bound: int) -> None:
    draws = uniform_below(np.arange(COUNT), stream_key(0, 0, f"below {bound}"), bound)
    assert draws.min() == 0
    assert draws.max() == bound - 1
    if bound > 1:
        assert abs(chi_square_sigmas(draws, bound)) <= SIGMAS


def test_the_widest_bound_gives_the_word_itself() -> None:
    assert (uniform_below(np.arange(99), KEYS[1], 2**32) == hash32(np.arange(99), KEYS[1])).all()
