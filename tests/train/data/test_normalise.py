"""Pixels to codes: the formula, its saturation, and the choice of mean and scale for an unknown set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.train.data import Normalise, normalise_for
from fixgrad.train.data.cifar10 import NORMALISE as CIFAR10
from fixgrad.train.data.digits import NORMALISE as DIGITS
from fixgrad.train.data.normalise import pixel_counts

MEANS = st.lists(st.integers(0, 255), min_size=1, max_size=3).map(tuple)


def code_of(pixel: int, mean: int, normalise: Normalise) -> int:
    """The definition, in Python's unbounded integers."""
    product = (pixel - mean) * normalise.multiplier
    rounded = (2 * product + (1 << normalise.shift)) // (2 << normalise.shift)
    return max(-127, min(127, rounded))


@given(MEANS, st.integers(1, 255), st.integers(0, 15))
def test_every_level_has_the_code_of_the_formula(mean: tuple[int, ...], multiplier: int, shift: int) -> None:
    normalise = Normalise(mean, multiplier, shift, 6)
    expected = [[code_of(pixel, level, normalise) for pixel in range(256)] for level in mean]
    assert normalise.table().tolist() == expected


@given(MEANS, st.integers(0, 2**32 - 1))
def test_images_go_through_the_table_of_their_channel(mean: tuple[int, ...], seed: int) -> None:
    normalise = Normalise(mean, 3, 1, 6)
    images = np.random.default_rng(seed).integers(0, 256, (4, len(mean), 5, 3)).astype(np.uint8)
    codes = normalise.codes(images)
    assert codes.dtype == np.int8
    for place in np.ndindex(images.shape):
        assert codes[place] == code_of(int(images[place]), mean[place[1]], normalise)


def test_the_range_is_symmetric() -> None:
    table = Normalise((128,), 255, 0, 6).table()
    assert (table.min(), table.max()) == (-127, 127)


@pytest.mark.parametrize(("normalise", "top"), [(CIFAR10, 255), (DIGITS, 16)])
def test_the_mean_is_code_0_and_order_is_kept(normalise: Normalise, top: int) -> None:
    table = normalise.table()[:, : top + 1]
    assert all(table[channel, mean] == 0 for channel, mean in enumerate(normalise.mean))
    assert (np.diff(table.astype(int), axis=1) >= 0).all()
    assert (np.diff(table[:, : top * 9 // 10].astype(int), axis=1) > 0).all()  # no two levels merge below


def test_digits_use_the_range_without_saturating() -> None:
    assert DIGITS.table()[0, :17].tolist() == [11 * (pixel - 5) for pixel in range(17)]


def test_values_are_the_codes_in_steps_of_the_fraction() -> None:
    codes = np.arange(-127, 128).astype(np.int8)
    values = Normalise((0,), 1, 0, 6).values(codes)
    assert values.dtype == np.float32
    assert (values * 64 == codes).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (((), 1, 0, 6), r"normalise mean is \(\): give a pixel level"),
        (((256,), 1, 0, 6), r"normalise mean is \(256,\)"),
        (((-1,), 1, 0, 6), r"normalise mean is \(-1,\)"),
        (((1,), 0, 0, 6), "normalise multiplier is 0: choose 1 to 255"),
        (((1,), 256, 0, 6), "normalise multiplier is 256"),
        (((1,), 1, -1, 6), "normalise shift is -1: choose 0 to 15"),
        (((1,), 1, 16, 6), "normalise shift is 16"),
    ],
)
def test_fields_out_of_range_are_refused(fields: tuple[tuple[int, ...], int, int, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Normalise(*fields)


def slow_scale(images: NDArray[np.uint8], mean: tuple[int, ...]) -> tuple[int, int]:
    """(multiplier, shift) by trying: the largest scale at which under 5 % of the pixels exceed 127."""
    distance = [abs(int(pixel) - level) for c, level in enumerate(mean) for pixel in images[:, c].ravel()]
    for multiplier in (16, 8, 4, 2, 1):
        if sum(d * multiplier > 127 for d in distance) < len(distance) / 20:
            return multiplier, 0
    return 1, 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(0, 255), st.integers(0, 255))
def test_mean_and_scale_of_an_unknown_set(seed: int, channels: int, one: int, other: int) -> None:
    low, high = min(one, other), max(one, other)
    shape = (6, channels, 4, 5)
    images = np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(np.uint8)
    chosen = normalise_for(images)
    sums = [int(images[:, channel].sum(dtype=np.int64)) for channel in range(channels)]
    assert chosen.mean == tuple((2 * total + 120) // 240 for total in sums)  # 120 pixels a channel, half up
    assert (chosen.multiplier, chosen.shift) == slow_scale(images, chosen.mean)
    assert chosen.frac == 6


def test_black_and_white_images_keep_both_ends_apart() -> None:
    images = np.tile(np.array([0, 0, 0, 255], np.uint8), (2, 1, 2, 1))
    chosen = normalise_for(images)
    assert (chosen.mean, chosen.multiplier, chosen.shift) == ((64,), 1, 1)
    assert chosen.codes(images)[0, 0, 0].tolist() == [-32, -32, -32, 96]


def test_a_set_of_one_single_pixel() -> None:
    chosen = normalise_for(np.full((1, 1, 1, 1), 255, np.uint8))
    assert chosen.codes(np.full((1, 1, 1, 1), 255, np.uint8)).tolist() == [[[[0]]]]


@given(st.integers(1, 7), st.integers(1, 9))
def test_counting_in_chunks_counts_everything_once(count: int, chunk: int) -> None:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 3, 3)).astype(np.uint8)
    assert np.array_equal(pixel_counts(pixels, chunk), np.bincount(pixels.ravel(), minlength=256))
