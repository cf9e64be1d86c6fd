"""CIFAR-10 from the original release for Python: a folder or its archive.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and
https://www.cs.toronto.edu/~kriz/cifar.html. Each of six files is a pickled dictionary: ``data`` uint8
[10000, 3072], a row holding the red, green and blue planes of 32x32 pixels, and ``labels``, 10,000 integers.
"""

import math
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError, UsageError
from fixgrad.train.data.augment import Augment
from fixgrad.train.data.image_set import ImageSet
from fixgrad.train.data.normalise import INPUT_FRAC, Normalise
from fixgrad.train.data.safe_pickle import MAX_PICKLE_BYTES, load_plain_pickle
from fixgrad.train.data.source import DataSource

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILE = "test_batch"
META_FILE = "batches.meta"
IMAGES_PER_FILE = 10_000
IMAGE_SHAPE = (3, 32, 32)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: Channel means of the training images (125.3, 123.0, 113.9), rounded. Their standard deviations are 62 to
#: 66, so one pixel level is one code: 2**6 codes are about one deviation. 2.9 % of the pixels reach the end
#: of the range.
NORMALISE = Normalise(mean=(125, 123, 114), multiplier=1, shift=0, frac=INPUT_FRAC)
#: The usual augmentation of this set (He et al., CVPR 2016, section 4.2): crop from a frame of 4 pixels, and
#: flip.
AUGMENT = Augment(pad=4, flip=True)

GET_IT = (
    f"download the 'CIFAR-10 python version' ({ARCHIVE}) from https://www.cs.toronto.edu/~kriz/cifar.html "
    "and pass its path as --data-dir"
)
AGAIN = f"unpack {ARCHIVE} again"

_IMAGE_FILES = (*TRAIN_FILES, TEST_FILE)


def open_cifar10(data_dir: Path | None) -> DataSource:
    """50,000 training and 10,000 test images, uint8 [n, 3, 32, 32].

    Args:
        data_dir: the folder ``cifar-10-batches-py``, a folder that holds it or the archive, or the archive.

    Raises:
        UsageError: no path was given, or the data set is not at it.
        DataError: a file is missing, damaged or not what it should be.
    """
    if data_dir is None:
        raise UsageError(f"cifar10 needs --data-dir: {GET_IT}")
    place = _locate(data_dir)
    raw = _read_folder(place) if place.is_dir() else _read_archive(place)
    names = _class_names(raw.pop(META_FILE, None), f"{place / META_FILE}")
    train = _image_set("train", TRAIN_FILES, raw, place, names)
    return DataSource(train, _image_set("test", (TEST_FILE,), raw, place, names), NORMALISE, AUGMENT)


def _locate(path: Path) -> Path:
    """The folder of the batches, or the archive."""
    if path.is_file():
        return path
    if not path.exists():
        raise UsageError(f"--data-dir {path} does not exist: {GET_IT}")
    for folder in (path, path / FOLDER):
        if any((folder / name).exists() for name in _IMAGE_FILES):
            return folder
    if (path / ARCHIVE).is_file():
        return path / ARCHIVE
    if any((folder / "data_batch_1.bin").exists() for folder in (path, path / "cifar-10-batches-bin")):
        raise UsageError(
            f"--data-dir {path} holds the binary version of CIFAR-10, which is not read: {GET_IT}"
        )
    raise UsageError(f"--data-dir {path} holds neither {FOLDER}/{TRAIN_FILES[0]} nor {ARCHIVE}: {GET_IT}")


def _read_folder(folder: Path) -> dict[str, bytes]:
    """Every file of the release by name; batches.meta only if it is there."""
    names = [*_IMAGE_FILES, META_FILE] if (folder / META_FILE).exists() else [*_IMAGE_FILES]
    return {name: _read_file(folder / name) for name in names}


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"{path} is missing: CIFAR-10 consists of {', '.join(_IMAGE_FILES)}; {AGAIN}")
    try:
        size = path.stat().st_size
        if size > MAX_PICKLE_BYTES:
            raise DataError(f"{path} has {size} bytes, expected about 31 million: {AGAIN}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): check its permissions and the disk"
        ) from error


def _read_archive(path: Path) -> dict[str, bytes]:
    """As `_read_folder`, out of the archive. Nothing is written, whatever paths its members claim."""
    try:
        with tarfile.open(path, "r:*") as archive:
            found = _read_members(archive, path)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        reason = str(error).partition(":")[
            0
        ]  # tarfile lists every kind of archive that it tried, a line each
        raise DataError(f"{path} is not a complete tar archive ({reason}): {GET_IT}") from error
    missing = [name for name in _IMAGE_FILES if name not in found]
    if missing:
        raise DataError(f"{path} does not hold {FOLDER}/{missing[0]}, so it is not {ARCHIVE}: {GET_IT}")
    return found


def _read_members(archive: tarfile.TarFile, path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for member in archive:
        inside = PurePosixPath(member.name)
        if inside.parent != PurePosixPath(FOLDER) or inside.name not in (*_IMAGE_FILES, META_FILE):
            continue
        if inside.name in found:
            raise DataError(f"{path} holds {inside} twice: {GET_IT}")
        content = archive.extractfile(member) if member.isfile() else None
        if content is None or member.size > MAX_PICKLE_BYTES:
            raise DataError(f"{path}: {inside} is not an ordinary file of about 31 million bytes: {GET_IT}")
        found[inside.name] = content.read()
    return found


def _class_names(raw: bytes | None, source: str) -> tuple[str, ...]:
    """The ten names of batches.meta; those of the release for a copy without that file."""
    if raw is None:
        return CLASSES
    names = _entry(load_plain_pickle(raw, source), "label_names", source)
    if not isinstance(names, list) or len(names) != len(CLASSES):
        raise DataError(f"{source}: label_names is {names!r:.80}, expected {len(CLASSES)} names: {AGAIN}")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names)


def _image_set(
    split: str, files: tuple[str, ...], raw: dict[str, bytes], place: Path, names: tuple[str, ...]
) -> ImageSet:
    images = np.empty((len(files), IMAGES_PER_FILE, *IMAGE_SHAPE), np.uint8)
    labels = np.empty((len(files), IMAGES_PER_FILE), np.int64)
    for number, name in enumerate(files):
        pixels, labels[number] = _read_batch(raw.pop(name), f"{place / name}")
        images[number] = pixels.reshape(images[number].shape)
    return ImageSet("cifar10", split, images.reshape(-1, *IMAGE_SHAPE), labels.ravel(), names)


def _read_batch(raw: bytes, source: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels uint8 [10000, 3072] and labels int64 [10000] of one file, checked."""
    content = load_plain_pickle(raw, source)
    pixels = _entry(content, "data", source)
    rows = (IMAGES_PER_FILE, math.prod(IMAGE_SHAPE))
    if not isinstance(pixels, np.ndarray) or pixels.shape != rows:
        found = list(pixels.shape) if isinstance(pixels, np.ndarray) else f"a {type(pixels).__name__}"
        raise DataError(f"{source}: data is {found}, expected uint8 {list(rows)}: {AGAIN}")
    labels = _entry(content, "labels", source)
    if not isinstance(labels, list) or len(labels) != IMAGES_PER_FILE:
        found = (
            f"{len(labels)} labels" if isinstance(labels, list) else f"labels is a {type(labels).__name__}"
        )
        raise DataError(f"{source}: {found}, expected a list of {IMAGES_PER_FILE}: {AGAIN}")
    for index, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < len(CLASSES):
            raise DataError(
                f"{source}: label {index} is {label!r:.40}, expected 0 to {len(CLASSES) - 1}: {AGAIN}"
            )
    return pixels, np.array(labels, np.int64)


def _entry(content: object, name: str, source: str) -> object:
    """An entry of a file's dictionary. Its keys are bytes or str, depending on the Python that wrote it."""
    if not isinstance(content, dict):
        raise DataError(f"{source} holds a {type(content).__name__}, expected a dictionary: {AGAIN}")
    for key in (name.encode(), name):
        if key in content:
            return content[key]
    raise DataError(f"{source} has no entry {name!r}, so it is not a file of the python version: {GET_IT}")
