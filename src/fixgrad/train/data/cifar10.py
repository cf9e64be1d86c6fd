"""CIFAR-10 from the original release for Python: a folder or its archive.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; https://www.cs.toronto.edu/~kriz/cifar.html.
Each of the six files is a pickled dictionary: ``data`` uint8 [10000, 3072], a row holding the red, green and blue planes of
32x32 pixels, and ``labels``, a list of 10,000 integers 0 to 9.
"""

import tarfile
import zlib
from collections.abc import Iterable
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
TRAIN_FILES = tuple(f"data_batch_{k}" for k in range(1, 6))
TEST_FILE = "test_batch"
META_FILE = "batches.meta"
IMAGES_PER_FILE = 10_000
IMAGE_SHAPE = (3, 32, 32)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: Channel means of the training images (125.3, 123.0, 113.9), rounded. Their standard deviations are 61.6 to 66.7, so a
#: pixel level is a code: 2**6 codes are about one deviation. 2.9 % of the pixels reach the end of the range.
NORMALISE = Normalise(mean=(125, 123, 114), multiplier=1, shift=0, frac=INPUT_FRAC)
#: The usual augmentation for this set (He et al., CVPR 2016, section 4.2): crop from a frame of 4 pixels, and flip.
AUGMENT = Augment(pad=4, flip=True)
GET_IT = (
    f"download the 'CIFAR-10 python version' ({ARCHIVE}) from https://www.cs.toronto.edu/~kriz/cifar.html and pass its path "
    "as --data-dir"
)

_ROW = int(np.prod(IMAGE_SHAPE))
_FILES = (*TRAIN_FILES, TEST_FILE, META_FILE)


def open_cifar10(data_dir: Path | None) -> DataSource:
    """50,000 training and 10,000 test images, uint8 [n, 3, 32, 32].

    Args:
        data_dir: the folder ``cifar-10-batches-py``, a folder that holds it or the archive, or the archive itself.

    Raises:
        UsageError: no path was given, or there is nothing at it.
        DataError: a file is missing, damaged or not what it should be.
    """
    if data_dir is None:
        raise UsageError(f"cifar10 needs --data-dir: {GET_IT}")
    place = _locate(data_dir)
    raw = _read_folder(place) if place.is_dir() else _read_archive(place)
    names = _class_names(raw, place)
    train = _image_set("train", TRAIN_FILES, raw, place, names)
    return DataSource(train, _image_set("test", (TEST_FILE,), raw, place, names), NORMALISE, AUGMENT)


def _locate(path: Path) -> Path:
    """The folder of the batches, or the archive."""
    if path.is_file():
        return path
    if not path.exists():
        raise UsageError(f"--data-dir {path} does not exist: {GET_IT}")
    candidates = (path, path / FOLDER)
    for folder in candidates:
        if any((folder / name).exists() for name in (*TRAIN_FILES, TEST_FILE)):
            return folder
    if (path / ARCHIVE).is_file():
        return path / ARCHIVE
    if any((folder / "data_batch_1.bin").exists() for folder in (path, path / "cifar-10-batches-bin")):
        raise UsageError(f"--data-dir {path} holds the binary version of CIFAR-10: {GET_IT}")
    raise UsageError(f"--data-dir {path} holds neither {FOLDER}/{TRAIN_FILES[0]} nor {ARCHIVE}: {GET_IT}")


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {name: _read_file(folder / name) for name in _FILES if name != META_FILE or (folder / name).exists()}


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"{path} is missing: CIFAR-10 has {', '.join(_FILES[:-1])}; unpack the archive again")
    try:
        size = path.stat().st_size
        if size > MAX_PICKLE_BYTES:
            raise DataError(f"{path} has {size} bytes, expected about 31 million: unpack the archive again")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file and its permissions") from error


def _read_archive(path: Path) -> dict[str, bytes]:
    """The files of the release, read inside the archive: nothing is written, whatever paths it claims."""
    try:
        with tarfile.open(path, "r:*") as archive:
            found = _read_members(archive, path)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path} is not a complete tar archive ({error}): {GET_IT}") from error
    missing = [name for name in _FILES if name not in found and name != META_FILE]
    if missing:
        raise DataError(f"{path} lacks {FOLDER}/{missing[0]}: expected the archive {ARCHIVE}; {GET_IT}")
    return found


def _read_members(archive: tarfile.TarFile, path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for member in archive:
        inside = PurePosixPath(member.name)
        if inside.parent != PurePosixPath(FOLDER) or inside.name not in _FILES:
            continue
        if inside.name in found:
            raise DataError(f"{path} holds {inside} twice: {GET_IT}")
        if not member.isfile() or member.size > MAX_PICKLE_BYTES:
            raise DataError(f"{path}: {inside} is not an ordinary file of about 31 million bytes: {GET_IT}")
        content = archive.extractfile(member)
        assert content is not None  # it is None for what is not a file only
        found[inside.name] = content.read()
    return found


def _class_names(raw: dict[str, bytes], place: Path) -> tuple[str, ...]:
    """The ten names of batches.meta; those of the release if a copy came without that file."""
    if META_FILE not in raw:
        return CLASSES
    source = f"{place / META_FILE}"
    names = _field(load_plain_pickle(raw[META_FILE], source), "label_names", source)
    decoded = [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in _as_list(names)]
    if len(decoded) != len(CLASSES) or not all(isinstance(name, str) for name in decoded):
        raise DataError(f"{source}: label_names is {names!r:.80}, expected {len(CLASSES)} names: unpack the archive again")
    return tuple(str(name) for name in decoded)


def _image_set(
    split: str, files: Iterable[str], raw: dict[str, bytes], place: Path, names: tuple[str, ...]
) -> ImageSet:
    files = tuple(files)
    images = np.empty((len(files) * IMAGES_PER_FILE, *IMAGE_SHAPE), np.uint8)
    labels = np.empty(len(images), np.int64)
    for number, name in enumerate(files):
        part = slice(number * IMAGES_PER_FILE, (number + 1) * IMAGES_PER_FILE)
        pixels, labels[part] = _read_batch(raw.pop(name), f"{place / name}")
        images[part] = pixels.reshape(-1, *IMAGE_SHAPE)
    return ImageSet("cifar10", split, images, labels, names)


def _read_batch(raw: bytes, source: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels uint8 [10000, 3072] and labels int64 [10000] of one file, checked."""
    content = load_plain_pickle(raw, source)
    pixels = _field(content, "data", source)
    expected = (IMAGES_PER_FILE, _ROW)
    if not isinstance(pixels, np.ndarray) or pixels.shape != expected:
        found = list(pixels.shape) if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(f"{source}: data is {found}, expected uint8 {list(expected)}: fetch the original release")
    labels = _as_list(_field(content, "labels", source))
    if len(labels) != IMAGES_PER_FILE:
        raise DataError(f"{source}: {len(labels)} labels, expected {IMAGES_PER_FILE}: fetch the original release")
    for index, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < len(CLASSES):
            raise DataError(f"{source}: label {index} is {label!r:.40}, expected 0 to 9: fetch the original release")
    return pixels, np.array(labels, np.int64)


def _field(content: object, name: str, source: str) -> object:
    """A field of a batch's dictionary; its keys are bytes or str, by the Python that wrote it."""
    if not isinstance(content, dict):
        raise DataError(f"{source} holds a {type(content).__name__}, expected a dictionary: fetch the original release")
    for key in (name.encode(), name):
        if key in content:
            return content[key]
    raise DataError(f"{source} has no entry {name!r}: this is not a file of CIFAR-10's python version; {GET_IT}")


def _as_list(value: object) -> list[object]:
    """A list as it is, a uint8 array as a list, anything else as an empty list."""
    if isinstance(value, np.ndarray):
        return list(value.ravel().tolist())
    return value if isinstance(value, list) else []
