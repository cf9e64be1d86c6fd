"""Images in class folders: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png, or just ROOT/CLASS/*.png.

Every file is decoded once, cropped to its central square, resized, and kept in memory.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError, UsageError
from fixgrad.numbers import hash32, stream_key
from fixgrad.train.data.augment import Augment
from fixgrad.train.data.decode import Header, decode, read_header
from fixgrad.train.data.image_set import ImageSet
from fixgrad.train.data.normalise import normalise_for
from fixgrad.train.data.progress import Progress, ignore
from fixgrad.train.data.source import DataSource

#: File name endings of what counts as an image; other files (notes, thumbnails.db) are passed over.
IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
#: Where the test images are looked for, in this order.
TEST_FOLDERS = ("test", "val", "validation", "valid")
#: Without such a folder, one image in this many of each class is held out.
HELD_OUT = 5
#: The default size is the smallest side of any image, but no more than the first and no less than the second.
LARGEST_DEFAULT_SIZE = 64
SMALLEST_SIZE = 8
LARGEST_SIZE = 1024
_THREADS = 8


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """An image file and the number of its class."""

    path: Path
    label: int


def open_folders(root: Path | None, image_size: int | None = None, progress: Progress = ignore) -> DataSource:
    """The images under `root`, square, RGB (or grey if every file is grey), uint8 [n, C, size, size].

    Args:
        root: the folder that holds ``train`` and ``test`` (or ``val``, ``validation``, ``valid``) or, without
            ``train``, the class folders themselves. Where there is no test folder, a fifth of each class is
            held out, chosen by a hash of the file names: the same on every machine and in every run.
        image_size: side in pixels, 8 to 1024. By default the smallest side of any image, at most 64.
        progress: called with (files decoded, files in all).

    Raises:
        UsageError: no such folder, no class folders in it, or a size out of range.
        DataError: a class without images, a test class that training lacks, or a file that is no readable
            image.
    """
    if root is None:
        raise UsageError("folders needs --data-dir: give the folder that holds train/CLASS/image.png")
    if not root.is_dir():
        raise UsageError(f"--data-dir {root} is not a folder: give the one that holds train/CLASS/image.png")
    if image_size is not None and not SMALLEST_SIZE <= image_size <= LARGEST_SIZE:
        raise UsageError(f"--image-size is {image_size}: choose {SMALLEST_SIZE} to {LARGEST_SIZE} pixels")
    try:
        classes, train, test = _list_files(root)
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}): check its permissions"
        ) from error
    files = [*train, *test]
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = list(pool.map(read_header, [file.path for file in files]))
        size = image_size or _default_size(files, headers)
        images = _decode_all(pool, files, size, all(header.grey for header in headers), progress)
    cut = len(train)
    name = root.resolve().name
    train_set = ImageSet(name, "train", images[:cut], _labels(train), classes)
    test_set = ImageSet(name, "test", images[cut:], _labels(test), classes)
    # No flip by default: a program cannot know whether a mirrored image keeps its class.
    return DataSource(train_set, test_set, normalise_for(train_set.images), Augment(pad=max(1, size // 8)))


def _list_files(root: Path) -> tuple[tuple[str, ...], list[LabelledFile], list[LabelledFile]]:
    """Class names, training files and test files, in an order that only the names decide."""
    test_root = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    train_root = root / "train" if (root / "train").is_dir() else root
    if train_root is root:
        if test_root is not None:
            raise UsageError(
                f"{root} has {test_root.name} but no train: put the training images in {root / 'train'}"
            )
        classes = _training_classes(root)
        return classes, *_hold_out(root, _labelled(root, classes))
    classes = _training_classes(train_root)
    train = _labelled(train_root, classes)
    if test_root is None:
        return classes, *_hold_out(train_root, train)
    test_classes = _class_folders(test_root)
    if not test_classes:
        raise DataError(
            f"{test_root} holds no class folders: fill it, or remove it to hold images out of train"
        )
    for name in test_classes:
        if name not in classes:
            raise DataError(
                f"{test_root / name} is a class that {train_root} lacks: add it there or remove it here"
            )
    return classes, train, _labelled(test_root, classes, may_lack=True)


def _training_classes(folder: Path) -> tuple[str, ...]:
    classes = _class_folders(folder)
    if len(classes) < 2:
        raise UsageError(
            f"{folder} has {len(classes)} class folders, training needs two or more: expected "
            f"{folder}/CLASS/image.png"
        )
    return classes


def _class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted: the place of a name is the label."""
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))


def _labelled(folder: Path, classes: tuple[str, ...], may_lack: bool = False) -> list[LabelledFile]:
    files: list[LabelledFile] = []
    for label, name in enumerate(classes):
        if may_lack and not (folder / name).exists():
            continue
        found = sorted(path for path in (folder / name).rglob("*") if _is_image_file(path))
        if not found:
            endings = ", ".join(sorted(IMAGE_ENDINGS))
            raise DataError(f"{folder / name} holds no images ({endings}): add some or remove the folder")
        files += [LabelledFile(path, label) for path in found]
    return files


def _is_image_file(path: Path) -> bool:
    # Names that begin with a dot are metadata: macOS puts ._name.png beside name.png in archives.
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".") and path.is_file()


def _hold_out(root: Path, files: list[LabelledFile]) -> tuple[list[LabelledFile], list[LabelledFile]]:
    """Training and test files: of each class, the fifth (rounded down) whose names hash lowest are test."""
    held: set[Path] = set()
    for _label, of_class in groupby(files, key=lambda file: file.label):
        ranked = sorted((_name_hash(root, file.path), file.path) for file in of_class)
        held.update(path for _hash, path in ranked[: len(ranked) // HELD_OUT])
    if not held:
        raise DataError(
            f"{root} has no class of {HELD_OUT} images or more, so none can be held out for testing: add "
            "images, or make the folders train and test"
        )
    return [file for file in files if file.path not in held], [file for file in files if file.path in held]


def _name_hash(root: Path, path: Path) -> int:
    return hash32(0, stream_key(0, 0, f"split/{path.relative_to(root).as_posix()}"))


def _default_size(files: list[LabelledFile], headers: list[Header]) -> int:
    smallest = min(range(len(files)), key=lambda index: headers[index].side)
    size = min(headers[smallest].side, LARGEST_DEFAULT_SIZE)
    if size < SMALLEST_SIZE:
        raise DataError(
            f"{files[smallest].path} is only {size} pixels wide or high, fewer than {SMALLEST_SIZE}: remove "
            "it, or choose an --image-size to which it is enlarged"
        )
    return size


def _decode_all(
    pool: ThreadPoolExecutor, files: list[LabelledFile], size: int, grey: bool, progress: Progress
) -> NDArray[np.uint8]:
    """uint8 [n, C, size, size] in the order of `files`; Pillow lets other threads run while it decodes."""
    images = np.empty((len(files), 1 if grey else 3, size, size), np.uint8)
    decoded = pool.map(lambda file: decode(file.path, size, grey), files)
    for index, pixels in enumerate(decoded):
        images[index] = pixels
        progress(index + 1, len(files))
    return images


def _labels(files: list[LabelledFile]) -> NDArray[np.int64]:
    return np.array([file.label for file in files], np.int64)
