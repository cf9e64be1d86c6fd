"""Batches: each image once, in an order that seed and epoch decide, whatever the batch size or start."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.errors import DataError, UsageError
from fixgrad.numbers import permutation, stream_key
from fixgrad.train.data import Augment, Batches, DataSource, ImageSet, Normalise, epoch_order

NORMALISE = Normalise((90, 120), 1, 0, 6)


def image_set(count: int, split: str = "train", seed: int = 0) -> ImageSet:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 2, 4, 3)).astype(np.uint8)
    return ImageSet("random", split, images, generator.integers(0, 3, count), ("a", "b", "c"))


@given(st.integers(1, 500), st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_the_order_is_the_permutation_of_its_stream(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, seed, epoch)
    assert np.array_equal(order, permutation(count, stream_key(seed, epoch, "order")))
    assert np.array_equal(np.sort(order), np.arange(count))


@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 50), st.booleans())
def test_the_pixels_do_not_depend_on_batch_size_or_start(
    count: int, batch_size: int, start: int, shuffle: bool
) -> None:
    images = image_set(count)
    options = {"seed": 3, "epoch": 1, "augment": Augment(2, True), "shuffle": shuffle, "drop_last": False}
    whole = Batches(images, NORMALISE, count, **options)[0]
    batches = Batches(images, NORMALISE, batch_size, **options)
    parts = list(batches.from_step(start))
    assert len(parts) == max(0, len(batches) - start)
    skipped = min(count, start * batch_size)
    for field in ("codes", "labels", "indices"):
        joined = [getattr(part, field) for part in parts]
        expected = getattr(whole, field)[skipped:]
        assert np.array_equal(np.concatenate(joined) if joined else expected[:0], expected)


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_how_many_batches_and_how_large(count: int, batch_size: int, drop_last: bool) -> None:
    images = image_set(count)
    if drop_last and batch_size > count:
        with pytest.raises(
            UsageError, match=f"batch size is {batch_size}, but random has {count} train images"
        ):
            Batches(images, NORMALISE, batch_size, drop_last=True)
        return
    batches = Batches(images, NORMALISE, batch_size, drop_last=drop_last)
    sizes = [len(batch) for batch in batches]
    assert len(sizes) == len(batches)
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert sum(sizes) == (count - count % batch_size if drop_last else count)


def test_a_batch_holds_the_images_that_its_indices_name() -> None:
    images = image_set(10)
    for batch in Batches(images, NORMALISE, 4, seed=8):
        assert np.array_equal(batch.codes, NORMALISE.codes(images.images[batch.indices]))
        assert np.array_equal(batch.labels, images.labels[batch.indices])
        assert (batch.codes.dtype, batch.labels.dtype) == (np.int8, np.int64)


@pytest.mark.parametrize("augment", [None, Augment(1, True)])
def test_layouts_hold_the_same_codes(augment: Augment | None) -> None:
    images = image_set(6)
    first = Batches(images, NORMALISE, 6, augment=augment)[0].codes
    last = Batches(images, NORMALISE, 6, augment=augment, layout="NHWC")[0].codes
    assert last.shape == (6, 4, 3, 2)
    assert np.array_equal(last.transpose(0, 3, 1, 2), first)
    assert first.flags.c_contiguous
    assert last.flags.c_contiguous


@pytest.mark.parametrize("step", [-1, 3, 100])
def test_steps_outside_are_index_errors(step: int) -> None:
    with pytest.raises(IndexError, match=f"batch {step} of 3"):
        Batches(image_set(9), NORMALISE, 3)[step]


@pytest.mark.parametrize("batch_size", [0, -4])
def test_a_batch_needs_an_image(batch_size: int) -> None:
    with pytest.raises(UsageError, match=f"batch size is {batch_size}: choose 1 or more"):
        Batches(image_set(3), NORMALISE, batch_size)


def test_channels_must_match() -> None:
    with pytest.raises(UsageError, match=r"images of 2 channels, but its normalise has 1 means"):
        Batches(image_set(3), Normalise((1,), 1, 0, 6), 1)


def test_a_set_of_one_image() -> None:
    (batch,) = Batches(image_set(1), NORMALISE, 1, augment=Augment(4, True))
    assert batch.codes.shape == (1, 2, 4, 3)


def test_memory_mapped_images(tmp_path) -> None:
    images = image_set(12)
    np.save(tmp_path / "images.npy", images.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    again = ImageSet("random", "train", mapped, images.labels, images.class_names)
    for one, other in zip(Batches(images, NORMALISE, 5), Batches(again, NORMALISE, 5), strict=True):
        assert np.array_equal(one.codes, other.codes)
    assert again.fingerprint() == images.fingerprint()


class TestImageSet:
    def test_it_cannot_be_changed_through_its_views(self) -> None:
        pixels = np.zeros((1, 1, 2, 2), np.uint8)
        images = ImageSet("x", "train", pixels, np.zeros(1, np.int64), ("a",))
        with pytest.raises(ValueError, match="read-only"):
            images.images[0] = 1
        pixels[0] = 1  # the owner's array stays the owner's

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            (np.zeros((2, 1, 2, 2), np.int8), [0, 0], r"are int8 \[2, 1, 2, 2\]: expected uint8"),
            (np.zeros((2, 2, 2), np.uint8), [0, 0], r"are uint8 \[2, 2, 2\]: expected uint8 \[n, channels"),
            (np.zeros((0, 1, 2, 2), np.uint8), [], "no side may be 0"),
            (np.zeros((2, 1, 0, 2), np.uint8), [0, 0], "no side may be 0"),
            (np.zeros((2, 1, 2, 2), np.uint8), [0], r"labels of x are int64 \[1\]: expected int64 \[2\]"),
            (np.zeros((2, 1, 2, 2), np.uint8), [0, 3], "label 1 is 3, expected 0 to 2"),
            (np.zeros((2, 1, 2, 2), np.uint8), [-1, 0], "label 0 is -1, expected 0 to 2"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, images, labels: list[int], message: str) -> None:
        with pytest.raises(DataError, match=message):
            ImageSet("x", "train", images, np.array(labels, np.int64), ("a", "b", "c"))

    def test_the_fingerprint_sees_pixels_labels_and_shape(self) -> None:
        base = image_set(4)
        pixels = base.images.copy()
        pixels[3, 1, 3, 2] ^= 1
        labels = base.labels.copy()
        labels[0] = (labels[0] + 1) % 3
        others = [
            ImageSet("random", "train", pixels, base.labels, base.class_names),
            ImageSet("random", "train", base.images, labels, base.class_names),
            ImageSet("random", "train", base.images.reshape(4, 2, 3, 4), base.labels, base.class_names),
        ]
        assert len({base.fingerprint(), *(other.fingerprint() for other in others)}) == 4
        assert base.fingerprint() == image_set(4).fingerprint()


class TestDataSource:
    def test_training_is_shuffled_and_augmented_and_testing_is_not(self) -> None:
        source = DataSource(image_set(8), image_set(5, "test"), NORMALISE, Augment(1, True))
        expected = Batches(source.train, NORMALISE, 4, seed=2, epoch=7, augment=Augment(1, True))
        for one, other in zip(source.train_batches(4, seed=2, epoch=7), expected, strict=True):
            assert np.array_equal(one.codes, other.codes)
        codes = np.concatenate([batch.codes for batch in source.test_batches(2)])
        assert np.array_equal(codes, NORMALISE.codes(source.test.images))

    def test_sets_must_fit_together(self) -> None:
        other = ImageSet("random", "test", np.zeros((1, 2, 4, 4), np.uint8), np.zeros(1, np.int64), ("a",))
        with pytest.raises(
            DataError, match=r"test images are \[2, 4, 4\] of 1 classes, .* of 3: make them agree"
        ):
            DataSource(image_set(2), other, NORMALISE)

    @given(st.integers(2, 60), st.integers(1, 90))
    def test_validation_takes_its_share_out_of_training(self, count: int, percent: int) -> None:
        source = DataSource(image_set(count), image_set(3, "test"), NORMALISE).with_validation(percent)
        assert source.validation is not None
        assert len(source.validation) == max(1, count * percent // 100)
        assert len(source.train) + len(source.validation) == count
        together = np.concatenate([source.train.images, source.validation.images]).reshape(count, -1)
        original = image_set(count).images.reshape(count, -1)
        assert sorted(map(bytes, together)) == sorted(map(bytes, original))
        assert sum(len(batch) for batch in source.validation_batches(7)) == len(source.validation)

    def test_validation_must_be_asked_for(self) -> None:
        with pytest.raises(UsageError, match="random has no validation images: open it with a share"):
            DataSource(image_set(8), image_set(5, "test"), NORMALISE).validation_batches(4)

    @pytest.mark.parametrize("percent", [0, -1, 91])
    def test_validation_shares_out_of_range(self, percent: int) -> None:
        with pytest.raises(UsageError, match=f"validation share is {percent} %: choose 1 to 90"):
            DataSource(image_set(8), image_set(5, "test"), NORMALISE).with_validation(percent)

    def test_one_image_cannot_be_shared(self) -> None:
        with pytest.raises(UsageError, match="random has 1 training image"):
            DataSource(image_set(1), image_set(5, "test"), NORMALISE).with_validation(50)
