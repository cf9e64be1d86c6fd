"""The built-in digits: the split is fixed, whole and balanced enough."""

import numpy as np
from sklearn.datasets import load_digits

from fixgrad.train.data import open_data


def test_the_split_covers_every_image_once() -> None:
    source = open_data("digits")
    assert (len(source.train), len(source.test)) == (1437, 360)
    both = np.concatenate([source.train.images, source.test.images]).reshape(1797, 64)
    original = load_digits().images.reshape(1797, 64).astype(np.uint8)
    assert np.array_equal(both[np.lexsort(both.T)], original[np.lexsort(original.T)])


def test_no_image_is_in_both_parts() -> None:
    source = open_data("digits")
    train = {image.tobytes() for image in source.train.images}
    assert not any(image.tobytes() in train for image in source.test.images)


def test_each_class_has_its_share_of_the_test_images() -> None:
    source = open_data("digits")
    share = source.test.class_counts() / (source.test.class_counts() + source.train.class_counts())
    assert (np.abs(share - 0.2) < 0.06).all()


def test_the_codes_are_those_of_the_formula() -> None:
    batch = open_data("digits").test_batches(360)[0]
    source = open_data("digits")
    assert np.array_equal(batch.codes, (source.test.images.astype(np.int64) - 5) * 11)
    assert batch.codes.dtype == np.int8
    assert np.array_equal(source.normalise.values(batch.codes), batch.codes / np.float32(64))


def test_the_split_is_pinned() -> None:
    # A change here makes every published accuracy on digits incomparable.
    source = open_data("digits")
    assert source.train.fingerprint() == "ddd763e1b66ea7da88f821561fce8764"
    assert source.test.fingerprint() == "cd84e5e50efa941363c0c1c937b52032"
