"""What a user's dataset may call an image: every accepted form gives the same pixels, and the rest is named."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixgrad.errors import DataError
from fixgrad.train.data.pixels import as_label, as_pixels

COLOUR = np.random.default_rng(0).integers(0, 256, (3, 5, 7)).astype(np.uint8)
GREY = COLOUR[:1]


@pytest.mark.parametrize(
    "image",
    [
        COLOUR,
        COLOUR.transpose(1, 2, 0),
        COLOUR.astype(np.int64),
        COLOUR.astype(np.float32) / np.float32(255),
        COLOUR / 255,
        torch.from_numpy(COLOUR),
        torch.from_numpy(COLOUR) / 255,
        torch.from_numpy(COLOUR.transpose(1, 2, 0).copy()),
        (torch.from_numpy(COLOUR) / 255).requires_grad_(),
        Image.fromarray(COLOUR.transpose(1, 2, 0).copy()),
        COLOUR.tolist(),
    ],
    ids=lambda image: type(image).__name__,
)
def test_every_form_gives_the_same_pixels(image: object) -> None:
    pixels = as_pixels(image, "item 0")
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, COLOUR)


@pytest.mark.parametrize(
    "image",
    [
        GREY,
        GREY[0],
        GREY[0][..., None],
        torch.from_numpy(GREY),
        torch.from_numpy(GREY[0]),
        Image.fromarray(GREY[0]),
    ],
    ids=["CHW", "HW", "HWC", "tensor-CHW", "tensor-HW", "pillow"],
)
def test_grey(image: object) -> None:
    assert np.array_equal(as_pixels(image, "item 0"), GREY)


def test_where_both_ends_could_be_channels_tensors_put_them_first_and_arrays_last() -> None:
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert np.array_equal(as_pixels(torch.from_numpy(image), "x"), image)
    assert np.array_equal(as_pixels(image, "x"), image.transpose(2, 0, 1))


def test_booleans_are_black_and_white() -> None:
    assert as_pixels(np.array([[True, False]]), "x").tolist() == [[[255, 0]]]


def test_pillow_images_with_palette_or_alpha_become_rgb() -> None:
    rgb = Image.new("RGB", (4, 2), (10, 20, 30))
    for image in (rgb.convert("RGBA"), rgb.quantize(2)):
        assert as_pixels(image, "x")[:, 0, 0].tolist() == [10, 20, 30]
    assert as_pixels(Image.new("1", (4, 2), 1), "x").tolist() == [[[255] * 4] * 2]


@given(st.floats(0, 1))
def test_floats_round_to_the_nearest_level(value: float) -> None:
    level = int(as_pixels(np.full((1, 1), value), "x")[0, 0, 0])
    assert abs(level - value * 255) <= 0.5 + 1e-9


def test_every_level_survives_the_usual_scaling_to_floats() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for kind in (np.float32, np.float64):
        assert np.array_equal(as_pixels(levels.astype(kind) / kind(255), "x")[0], levels)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((4, 5, 6), np.uint8),
            r"shape \[4, 5, 6\]: expected \[H, W\], \[C, H, W\] or \[H, W, C\] with 1 or 3",
        ),
        (np.zeros(5, np.uint8), r"shape \[5\]"),
        (np.uint8(3), r"shape \[\]"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"shape \[2, 3, 4, 4\]"),
        (np.zeros((0, 4), np.uint8), r"shape \[0, 4\]: .* and no empty side"),
        (np.zeros((3, 0, 4), np.uint8), r"shape \[3, 0, 4\]"),
        (np.full((4, 4), 256), "int64 pixels from 256 to 256, expected 0 to 255"),
        (np.full((4, 4), -1, np.int8), "int8 pixels from -1 to -1, expected 0 to 255"),
        (
            np.full((4, 4), 1.5),
            "pixels from 1.5 to 1.5, expected 0 to 1: return the image before any normalisation",
        ),
        (np.full((4, 4), -0.5), "pixels from -0.5"),
        (np.full((4, 4), np.nan), "pixels from nan"),
        (np.full((4, 4), np.inf), "pixels from inf"),
        (np.full((4, 4), 1j), "image of complex128: expected integers 0 to 255 or floats"),
        (np.full((4, 4), "a"), "image of <U1"),
        (None, "shape"),
        ("path/to/image.png", "shape"),
        ([[1, 2], [3]], "holds a list that is no array"),
    ],
)
def test_anything_else_is_refused_and_named(image: object, message: str) -> None:
    with pytest.raises(DataError, match=f"^item 4 .*{message}"):
        as_pixels(image, "item 4")


@pytest.mark.parametrize(
    "label", [3, np.int64(3), np.uint8(3), torch.tensor(3), torch.tensor([3]), np.array(3)]
)
def test_labels(label: object) -> None:
    assert as_label(label, "x") == 3


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (-1, "the label -1, expected 0 to 99999"),
        (100_000, "the label 100000, expected 0 to 99999"),
        (1.0, "the label 1.0, expected one integer"),
        (True, "the label True"),
        ("cat", "the label 'cat'"),
        (None, "the label None"),
        (torch.tensor([0, 1]), "the label tensor"),
        (2**70, "the label 1180591620717411303424, expected one integer"),
    ],
)
def test_labels_that_are_none(label: object, message: str) -> None:
    with pytest.raises(DataError, match=f"^item 4 has {message}"):
        as_label(label, "item 4")


def test_one_hot_labels_are_refused() -> None:
    with pytest.raises(DataError, match="expected one integer"):
        as_label(np.eye(3, dtype=np.int64)[1], "item 0")
