"""Crop and flip against a slow oracle that handles one image and one pixel at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.numbers import hash32, stream_key
from fixgrad.train.data import Augment, Batches, ImageSet, Normalise
from fixgrad.train.data.augment import augment_named


def image_set(count: int, shape: tuple[int, int, int], seed: int = 0, split: str = "train") -> ImageSet:
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)
    return ImageSet("random", split, images, np.zeros(count, np.int64), ("only",))


def slow_augmented(
    pixels: NDArray[np.uint8], index: int, normalise: Normalise, augment: Augment, seed: int, epoch: int
) -> NDArray[np.int8]:
    """One image, as docs/data.md words it: normalise, frame with code 0, crop, flip."""
    channels, height, width = pixels.shape
    places = 2 * augment.pad + 1
    place = hash32(index, stream_key(seed, epoch, "crop/train")) * places * places >> 32
    top, left = divmod(place, places)
    flip = augment.flip and hash32(index, stream_key(seed, epoch, "flip/train")) >= 1 << 31
    out = np.zeros(pixels.shape, np.int8)
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                source_row = row + top - augment.pad
                source_column = (width - 1 - column if flip else column) + left - augment.pad
                if 0 <= source_row < height and 0 <= source_column < width:
                    pixel = int(pixels[channel, source_row, source_column])
                    out[channel, row, column] = normalise.table()[channel, pixel]
    return out


@given(
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(0, 4),
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.integers(0, 1000),
)
def test_batches_equal_the_slow_oracle(
    channels: int, height: int, width: int, pad: int, flip: bool, seed: int, epoch: int
) -> None:
    images = image_set(7, (channels, height, width), seed % 1000)
    normalise = Normalise((100, 50, 200)[:channels], 1, 0, 6)
    augment = Augment(pad, flip)
    batches = Batches(images, normalise, 3, seed=seed, epoch=epoch, augment=augment, drop_last=False)
    for batch in batches:
        for codes, index in zip(batch.codes, batch.indices, strict=True):
            expected = slow_augmented(images.images[index], int(index), normalise, augment, seed, epoch)
            assert np.array_equal(codes, expected)


def test_every_place_and_both_sides_are_equally_likely() -> None:
    count = 81_000
    decisions = Augment(pad=4, flip=True).decide(np.arange(count), seed=5, epoch=3, split="train")
    places = np.bincount(decisions.top * 9 + decisions.left, minlength=81)
    assert places.size == 81
    # 81 places of 1,000 expected: chi-square with 80 degrees of freedom stays below 140 with p > 0.9999.
    assert ((places - 1000) ** 2 / 1000).sum() < 140
    # Five standard deviations of a fair coin; and it does not follow the place.
    assert abs(decisions.flipped.sum() - count / 2) < 5 * np.sqrt(count) / 2
    assert abs(np.corrcoef(decisions.flipped, decisions.top * 9 + decisions.left)[0, 1]) < 5 / np.sqrt(count)


def test_decisions_depend_on_seed_epoch_and_split() -> None:
    indices = np.arange(64)
    augment = Augment(pad=4, flip=True)
    seen = {
        augment.decide(indices, seed, epoch, split).top.tobytes()
        for seed in (0, 1)
        for epoch in (0, 1)
        for split in ("train", "other")
    }
    assert len(seen) == 8


def test_decisions_are_pinned() -> None:
    # A change here changes the bits of every run that was ever trained with augmentation.
    decisions = Augment(pad=4, flip=True).decide(np.arange(8), seed=1, epoch=2, split="train")
    assert decisions.top.tolist() == [0, 4, 2, 8, 7, 0, 7, 2]
    assert decisions.left.tolist() == [5, 1, 6, 4, 0, 8, 3, 0]
    assert decisions.flipped.tolist() == [False, True, True, True, True, True, True, True]


def test_no_flip_unless_asked_for() -> None:
    assert not Augment(pad=2).decide(np.arange(1000), 0, 0, "train").flipped.any()


def test_pad_0_leaves_only_the_flip() -> None:
    images = image_set(40, (1, 3, 3))
    normalise = Normalise((0,), 1, 1, 6)
    plain = normalise.codes(images.images)
    batch = Batches(images, normalise, 40, shuffle=False, augment=Augment(flip=True))[0]
    mirrored = (batch.codes == plain[..., ::-1]).all((1, 2, 3))
    assert ((batch.codes == plain).all((1, 2, 3)) | mirrored).all()
    assert 5 < mirrored.sum() < 35


def test_the_frame_is_the_mean_not_black() -> None:
    images = ImageSet("white", "train", np.full((64, 1, 2, 2), 255, np.uint8), np.zeros(64, np.int64), ("w",))
    codes = Batches(images, Normalise((200,), 1, 0, 6), 64, augment=Augment(pad=2))[0].codes
    assert set(np.unique(codes)) == {0, 55}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", None),
        ("crop", Augment(4, False)),
        ("flip", Augment(0, True)),
        ("crop+flip", Augment(4, True)),
        ("flip+crop", Augment(4, True)),
    ],
)
def test_augmentations_by_name(name: str, expected: Augment | None) -> None:
    assert augment_named(name, 32) == expected


@pytest.mark.parametrize("name", ["", "cut", "crop+", "crop+crop", "none+flip", "Crop"])
def test_unknown_augmentations_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"is unknown: choose none, crop, flip or crop\+flip"):
        augment_named(name, 32)


def test_small_images_move_by_a_pixel_at_least() -> None:
    assert augment_named("crop", 5) == Augment(pad=1)


def test_a_negative_pad_is_refused() -> None:
    with pytest.raises(UsageError, match="augment pad is -1: choose 0 or more"):
        Augment(pad=-1)
