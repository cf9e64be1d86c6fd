"""A data set of the user's own: ``FILE.py:FUNCTION`` returns a pair of map-style datasets, as PyTorch calls
them.

Both are read once, from first to last, into memory: what a random transform inside them did then stays for
the whole run. Augmentation belongs to fixgrad, where the counter hash decides it.
"""

from pathlib import Path

import numpy as np

from fixgrad.errors import DataError
from fixgrad.train.data.image_set import ImageSet
from fixgrad.train.data.normalise import normalise_for
from fixgrad.train.data.pixels import as_label, as_pixels
from fixgrad.train.data.progress import Progress, ignore
from fixgrad.train.data.source import DataSource
from fixgrad.train.user_code import fail, load_callable


def open_own(spec: str, data_dir: Path | None = None, progress: Progress = ignore) -> DataSource:
    """The data set that a user's function returns.

    Args:
        spec: ``FILE.py:FUNCTION``. The function takes no argument, or the data folder if one is given. It
            returns (training set, test set), each with ``len(d)`` and ``d[i] -> (image, label)``; see
            `as_pixels` for what an image may be. A `DataSource` of its own making is taken as it is.
        data_dir: passed to the function.
        progress: called with (images read, images in all).

    Raises:
        FixgradError: the function, or a dataset in it, raised.
        DataError: it returned something else, or an image or label that cannot be used (its index is named).
    """
    function = load_callable(spec)
    made = function() if data_dir is None else function(data_dir)
    if isinstance(made, DataSource):
        return made
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise DataError(f"{spec} returned {_described(made)}, expected a pair (training set, test set)")
    reader = _Reader(spec, function.path, sum(_length(spec, part) for part in made), progress)
    train, test = reader.read(made[0], "train"), reader.read(made[1], "test")
    names = _class_names(made[0], max(int(train[1].max()), int(test[1].max())) + 1)
    name = f"{function.path.stem}:{function.name}"
    train_set = ImageSet(name, "train", *train, names)
    return DataSource(train_set, ImageSet(name, "test", *test, names), normalise_for(train_set.images))


class _Reader:
    """Reads datasets of one function one after the other, all images of one shape."""

    def __init__(self, spec: str, path: Path, total: int, progress: Progress) -> None:
        self._spec, self._path = spec, path
        self._total, self._progress = total, progress
        self._done = 0
        self._shape: tuple[int, ...] | None = None

    def read(self, dataset: object, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [n, C, H, W] and labels int64 [n]."""
        count = _length(self._spec, dataset)
        labels = np.empty(count, np.int64)
        images: np.ndarray | None = None
        for index in range(count):
            where = f"{self._spec}, {split} item {index}"
            image, labels[index] = self._item(dataset, index, where)
            if images is None:
                images = np.empty((count, *image.shape), np.uint8)
            images[index] = image
            self._done += 1
            self._progress(self._done, self._total)
        assert images is not None  # _length refuses empty datasets
        return images, labels

    def _item(self, dataset: object, index: int, where: str) -> tuple[np.ndarray, int]:
        try:
            item = dataset[index]  # type: ignore[index]  # _length made sure
        except Exception as error:  # whatever the user's dataset may raise
            fail(self._path, f"{where} failed", error)
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"{where} is {_described(item)}, expected a pair (image, label)")
        image = as_pixels(item[0], where)
        if self._shape is None:
            self._shape = image.shape
        if image.shape != self._shape:
            raise DataError(
                f"{where} has shape {list(image.shape)}, the images before it {list(self._shape)} [channels, "
                "height, width]: resize them to one shape"
            )
        return image, as_label(item[1], where)


def _length(spec: str, dataset: object) -> int:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"{spec} returned {_described(dataset)} in the pair: a dataset needs __len__ and __getitem__"
        )
    count = len(dataset)
    if count == 0:
        raise DataError(f"{spec} returned a dataset without images: both sets need at least one")
    return count


def _class_names(dataset: object, classes: int) -> tuple[str, ...]:
    """What the dataset calls its classes (``classes``, as torchvision's do), else their numbers."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and len(names) >= classes:
        return tuple(str(name) for name in names)
    return tuple(str(label) for label in range(classes))


def _described(value: object) -> str:
    length = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{length}"
