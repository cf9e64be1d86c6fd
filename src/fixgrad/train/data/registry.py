"""The data sets by name: the one place where a new one is added."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fixgrad.errors import UsageError
from fixgrad.train.data.augment import augment_named
from fixgrad.train.data.progress import Progress, ignore
from fixgrad.train.data.source import DataSource
from fixgrad.train.user_code import is_user_spec


@dataclass(frozen=True, slots=True)
class DataRequest:
    """What was asked for besides the name.

    Attributes:
        data_dir: where the user keeps the data, if given.
        image_size: side in pixels to which images are brought, if given.
        progress: told how many images were read.
    """

    data_dir: Path | None = None
    image_size: int | None = None
    progress: Progress = ignore


@dataclass(frozen=True, slots=True)
class DataEntry:
    """A data set that can be named.

    Attributes:
        summary: one line for help texts.
        open: opens it; whatever is slow to import is imported inside.
        takes: the options that it looks at, of ``data_dir`` and ``image_size``; any other is refused.
    """

    summary: str
    open: Callable[[DataRequest], DataSource]
    takes: frozenset[str] = frozenset()


def _digits(_request: DataRequest) -> DataSource:
    from fixgrad.train.data.digits import open_digits

    return open_digits()


def _cifar10(request: DataRequest) -> DataSource:
    from fixgrad.train.data.cifar10 import open_cifar10

    return open_cifar10(request.data_dir)


def _folders(request: DataRequest) -> DataSource:
    from fixgrad.train.data.folders import open_folders

    return open_folders(request.data_dir, request.image_size, request.progress)


#: To add a data set: write a function that returns a `DataSource`, and a line here.
DATA_SETS: dict[str, DataEntry] = {
    "digits": DataEntry("1,797 handwritten digits, 8x8 grey, built in", _digits),
    "cifar10": DataEntry(
        "CIFAR-10 from the original release at --data-dir", _cifar10, frozenset({"data_dir"})
    ),
    "folders": DataEntry(
        "images in class folders, --data-dir/train/CLASS/*.png",
        _folders,
        frozenset({"data_dir", "image_size"}),
    ),
}


def _own(spec: str) -> DataEntry:
    def open_it(request: DataRequest) -> DataSource:
        from fixgrad.train.data.own import open_own

        return open_own(spec, request.data_dir, request.progress)

    return DataEntry("a function of the user's own", open_it, frozenset({"data_dir"}))


def open_data(
    name: str,
    data_dir: Path | None = None,
    image_size: int | None = None,
    *,
    augment: str | None = None,
    validation: int = 0,
    progress: Progress = ignore,
) -> DataSource:
    """Open a data set.

    Args:
        name: one of `DATA_SETS`, or ``FILE.py:FUNCTION`` (see `fixgrad.train.data.own`).
        data_dir: where its files are, for sets that are read from files.
        image_size: side in pixels to which images are brought, for sets whose images have no common size.
        augment: ``none``, ``crop``, ``flip`` or ``crop+flip`` in place of what the set has by default.
        validation: percentage of the training images to hold out for validation.
        progress: called with (images read, images in all), where that takes long.

    Raises:
        UsageError: no such name, or an option that the set has no use for.
        DataError: the files are missing or damaged.
    """
    entry = _own(name) if is_user_spec(name) else DATA_SETS.get(name)
    if entry is None:
        raise UsageError(_unknown(name))
    for option, value in (("data_dir", data_dir), ("image_size", image_size)):
        if value is not None and option not in entry.takes:
            raise UsageError(f"data set {name} has no use for --{option.replace('_', '-')}: leave it out")
    source = entry.open(DataRequest(data_dir, image_size, progress))
    if augment is not None:
        source = replace(source, augment=augment_named(augment, min(source.shape[1:])))
    return source.with_validation(validation) if validation else source


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, DATA_SETS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    if name and Path(name).is_dir():
        hint = f" (for a folder of images: --data folders --data-dir {name})"
    return f"no data set is called {name!r}{hint}: choose {', '.join(DATA_SETS)} or FILE.py:FUNCTION"
