"""Class folders: layout, decoding, resizing, and files that are no images."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fixgrad.errors import DataError, FixgradError, UsageError
from fixgrad.train.data import Augment, DataSource, open_data


def picture(seed: int, size: tuple[int, int] = (16, 16), grey: bool = False) -> NDArray[np.uint8]:
    """Random pixels, [H, W] or [H, W, 3]; `size` is (height, width)."""
    return np.random.default_rng(seed).integers(0, 256, size if grey else (*size, 3)).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, three training images and one test image of each, 16x16 RGB."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(3):
            save(tmp_path / "train" / name / f"{number}.png", picture(10 * label + number))
        save(tmp_path / "test" / name / "0.png", picture(10 * label + 5))
    return tmp_path


def refusal(path: Path, kind: type[FixgradError] = DataError, image_size: int | None = None) -> str:
    with pytest.raises(kind) as caught:
        open_data("folders", path, image_size)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_images_come_sorted_by_class_and_name(root: Path) -> None:
    source = open_data("folders", root)
    assert source.train.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.test.labels.tolist() == [0, 1]
    expected = np.stack([picture(seed) for seed in (0, 1, 2, 10, 11, 12)]).transpose(0, 3, 1, 2)
    assert np.array_equal(source.train.images, expected)
    assert source.name == root.name
    assert source.augment == Augment(pad=2, flip=False)


@pytest.mark.parametrize("name", ["test", "val", "validation", "valid"])
def test_names_of_the_test_folder(root: Path, name: str) -> None:
    (root / "test").rename(root / name)
    assert len(open_data("folders", root).test) == 2


def test_test_goes_before_val(root: Path) -> None:
    save(root / "val" / "cat" / "0.png", picture(0))
    assert len(open_data("folders", root).test) == 2


def test_grey_files_give_one_channel(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            save(tmp_path / split / name / "0.png", picture(3, (9, 9), grey=True))
    source = open_data("folders", tmp_path)
    assert source.shape == (1, 9, 9)
    assert np.array_equal(source.train.images[0, 0], picture(3, (9, 9), grey=True))


def test_one_colour_file_makes_all_of_them_colour(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / split / "a" / "0.png", picture(3, (9, 9), grey=True))
        save(tmp_path / split / "b" / "0.png", picture(4, (9, 9)))
    source = open_data("folders", tmp_path)
    assert source.shape == (3, 9, 9)
    assert (source.train.images[0] == picture(3, (9, 9), grey=True)).all()


def test_the_central_square_is_taken(root: Path) -> None:
    wide = picture(99, (16, 40))
    save(root / "test" / "cat" / "0.png", wide)
    source = open_data("folders", root)
    assert np.array_equal(source.test.images[0], wide[:, 12:28].transpose(2, 0, 1))


def test_the_default_size_is_the_smallest_side(root: Path) -> None:
    save(root / "train" / "dog" / "9.png", picture(0, (30, 12)))
    assert open_data("folders", root).shape == (3, 12, 12)


def test_the_default_size_is_64_at_most(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            save(tmp_path / split / name / "0.png", picture(0, (100, 70)))
    assert open_data("folders", tmp_path).shape == (3, 64, 64)


def test_a_size_that_was_asked_for(root: Path) -> None:
    save(root / "test" / "cat" / "0.png", np.full((50, 32, 3), 77, np.uint8))
    source = open_data("folders", root, 24)
    assert source.shape == (3, 24, 24)
    assert (source.test.images[0] == 77).all()


def test_halving_averages_with_the_triangle_filter(root: Path) -> None:
    # Rows alternate between 0 and 200: whatever the phase, a filter of even support sees half of each.
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[::2] = 200
    save(root / "test" / "cat" / "0.png", stripes)
    shrunk = open_data("folders", root, 16).test.images[0]
    assert (np.abs(shrunk[:, 2:-2].astype(int) - 100) <= 13).all()


@pytest.mark.parametrize("size", [7, 0, -1, 1025])
def test_sizes_out_of_range(root: Path, size: int) -> None:
    assert f"--image-size is {size}: choose 8 to 1024" in refusal(root, UsageError, size)


def test_a_tiny_image_is_named_unless_a_size_is_given(root: Path) -> None:
    save(root / "train" / "dog" / "tiny.png", picture(0, (3, 9)))
    message = refusal(root)
    assert "tiny.png is only 3 pixels wide or high, fewer than 8: remove it" in message
    assert open_data("folders", root, 16).shape == (3, 16, 16)


def test_the_orientation_of_the_camera_is_applied(root: Path) -> None:
    upright = picture(1)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    Image.fromarray(np.rot90(upright).copy()).save(root / "test" / "cat" / "0.png", exif=exif)
    assert np.array_equal(open_data("folders", root).test.images[0], upright.transpose(2, 0, 1))


@pytest.mark.parametrize("ending", ["JPG", "jpeg", "bmp", "webp", "gif", "tiff", "ppm"])
def test_other_formats_and_endings(root: Path, ending: str) -> None:
    save(root / "train" / "cat" / f"more.{ending}", np.full((16, 16, 3), 128, np.uint8))
    assert len(open_data("folders", root).train) == 7


def test_transparency_and_palettes_become_rgb(root: Path) -> None:
    rgba = np.dstack([picture(1), np.full((16, 16), 9, np.uint8)])
    save(root / "test" / "cat" / "0.png", rgba)
    Image.fromarray(np.full((16, 16, 3), 40, np.uint8)).quantize(4).save(root / "test" / "dog" / "0.png")
    source = open_data("folders", root)
    assert np.array_equal(source.test.images[0], picture(1).transpose(2, 0, 1))
    assert (source.test.images[1] == 40).all()


def test_nested_folders_and_other_files(root: Path) -> None:
    save(root / "train" / "cat" / "2019" / "more.png", picture(50))
    (root / "train" / "cat" / "notes.txt").write_text("x")
    (root / "train" / "cat" / "._0.png").write_bytes(b"metadata")
    (root / "train" / ".cache").mkdir()
    assert len(open_data("folders", root).train) == 7


def test_progress_counts_every_image(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_data("folders", root, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 8) for done in range(1, 9)]


class TestHoldOut:
    def make(self, folder: Path, counts: tuple[int, ...] = (10, 14)) -> None:
        for label, count in enumerate(counts):
            for number in range(count):
                pixels = np.full((8, 8), 10 * label + number, np.uint8)  # each image tells which it is
                save(folder / f"class{label}" / f"{number}.png", pixels)

    def held_out(self, source: DataSource) -> list[int]:
        return [int(image[0, 0, 0]) for image in source.test.images]

    @pytest.mark.parametrize("inner", [".", "train"])
    def test_a_fifth_of_each_class(self, tmp_path: Path, inner: str) -> None:
        self.make(tmp_path / inner)
        source = open_data("folders", tmp_path)
        assert source.test.class_counts().tolist() == [2, 2]
        assert source.train.class_counts().tolist() == [8, 12]
        assert not set(self.held_out(source)) & {int(image[0, 0, 0]) for image in source.train.images}

    def test_the_choice_is_that_of_the_names_alone(self, tmp_path: Path) -> None:
        self.make(tmp_path / "one")
        for path in sorted((tmp_path / "one").rglob("*.png"), reverse=True):  # written in another order
            save(tmp_path / "two" / path.relative_to(tmp_path / "one"), np.asarray(Image.open(path)))
        one, two = open_data("folders", tmp_path / "one"), open_data("folders", tmp_path / "two")
        assert self.held_out(one) == self.held_out(two)
        assert one.train.fingerprint() == two.train.fingerprint()

    def test_it_is_not_simply_the_first_ones(self, tmp_path: Path) -> None:
        self.make(tmp_path, (30, 30))
        numbers = [int(image[0, 0, 0]) for image in open_data("folders", tmp_path).test.images[:6]]
        assert numbers != list(range(6))

    def test_too_few_to_hold_any_out(self, tmp_path: Path) -> None:
        self.make(tmp_path, (4, 3))
        assert "has no class of 5 images or more, so none can be held out" in refusal(tmp_path)


class TestLayoutsThatAreRefused:
    def test_no_path(self) -> None:
        with pytest.raises(
            UsageError, match="folders needs --data-dir: give the folder that holds train/CLASS"
        ):
            open_data("folders")

    def test_not_a_folder(self, tmp_path: Path) -> None:
        assert "nowhere is not a folder" in refusal(tmp_path / "nowhere", UsageError)
        file = save(tmp_path / "a.png", picture(0))
        assert "a.png is not a folder" in refusal(file, UsageError)

    def test_empty(self, tmp_path: Path) -> None:
        assert "has 0 class folders, training needs two or more: expected" in refusal(tmp_path, UsageError)

    def test_images_without_class_folders(self, tmp_path: Path) -> None:
        save(tmp_path / "train" / "a.png", picture(0))
        assert "train has 0 class folders" in refusal(tmp_path, UsageError)

    def test_one_level_too_high(self, tmp_path: Path, root: Path) -> None:
        outer = tmp_path / "outer"
        outer.mkdir()
        for name in ("train", "test"):
            (root / name).rename(outer / name)
        assert "has 1 class folders" in refusal(tmp_path, UsageError)

    def test_test_without_train(self, root: Path) -> None:
        (root / "train").rename(root / "training")
        assert "has test but no train: put the training images in" in refusal(root, UsageError)

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_an_empty_class_folder(self, root: Path, split: str) -> None:
        (root / "train" / "mouse").mkdir()
        if split == "test":
            save(root / "train" / "mouse" / "0.png", picture(0))
            (root / "test" / "mouse").mkdir()
        assert f"{split}/mouse holds no images (.bmp, .gif, " in refusal(root).replace(os.sep, "/")

    def test_a_class_that_training_lacks(self, root: Path) -> None:
        save(root / "test" / "zebra" / "0.png", picture(0))
        assert "zebra is a class that " in refusal(root)

    def test_a_class_without_test_images_is_allowed(self, root: Path) -> None:
        save(root / "train" / "ant" / "0.png", picture(0))
        source = open_data("folders", root)
        assert source.test.class_counts().tolist() == [0, 1, 1]

    def test_an_empty_test_folder(self, root: Path) -> None:
        for path in sorted((root / "test").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        assert "test holds no class folders" in refusal(root)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels, its checksums right."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    empty = zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", empty) + chunk(b"IEND", b"")


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture(0, (64, 64))).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an image that Pillow can read: replace or remove it"),
        (b"hello, I am a text file", "is not an image that Pillow can read"),
        (encoded("PNG")[:30], "is not an image that Pillow can read"),
        (encoded("PNG")[:5000], "is a damaged image"),
        (encoded("JPEG")[:800], "is a damaged image"),
        (encoded("PNG")[:5000] + b"\x00" * 50 + encoded("PNG")[5050:], "is a damaged image"),
        (png_of_size(16, 16), "is a damaged image"),
        (png_of_size(0, 16), "is "),  # versions of Pillow differ in where they notice
        (png_of_size(60_000, 60_000), "is a damaged image"),
    ],
    ids=["empty", "text", "head", "short-png", "short-jpeg", "hole", "no-pixels", "zero-width", "bomb"],
)
def test_files_that_are_no_images_are_named(root: Path, split: str, content: bytes, message: str) -> None:
    (root / split / "dog" / "bad.png").write_bytes(content)
    found = refusal(root)
    assert f"{split}{os.sep}dog{os.sep}bad.png {message}" in found
    assert found.endswith("replace or remove it")


def test_sixteen_bit_images_are_refused_not_cut_off(root: Path) -> None:
    Image.fromarray(np.full((16, 16), 40_000, np.uint16)).save(root / "train" / "cat" / "deep.png")
    assert "deep.png has pixels of type I;16: convert it to 8 bits a channel" in refusal(root)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(root: Path) -> None:
    (root / "train" / "cat").chmod(0)
    assert "cannot be read (Permission denied)" in refusal(root)
