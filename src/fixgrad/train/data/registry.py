"""The data sets by name: the one place where a new one is added."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fixgrad.errors import UsageError
from fixgrad.train.data.source import DataSource


@dataclass(frozen=True, slots=True)
class DataRequest:
    """What was asked for besides the name.

    Attributes:
        data_dir: where the user keeps the data, if given.
        image_size: side in pixels to which images are brought, if given.
    """

    data_dir: Path | None = None
    image_size: int | None = None


@dataclass(frozen=True, slots=True)
class DataEntry:
    """A data set that can be named.

    Attributes:
        summary: one line for help texts.
        open: opens it. Opens lazily: what it needs is imported inside.
        takes: the fields of `DataRequest` that it looks at; a request that sets another is refused.
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


#: To add a data set: write a function that returns a `DataSource`, and a line here.
DATA_SETS: dict[str, DataEntry] = {
    "digits": DataEntry("1,797 handwritten digits, 8x8 grey, built in", _digits),
    "cifar10": DataEntry("CIFAR-10, from the original release at --data-dir", _cifar10, frozenset({"data_dir"})),
}


def open_data(name: str, data_dir: Path | None = None, image_size: int | None = None) -> DataSource:
    """Open a data set by its name.

    Args:
        name: one of `DATA_SETS`.
        data_dir: where its files are, for sets that are read from files.
        image_size: side in pixels to which images are brought, for sets whose images have no common size.

    Raises:
        UsageError: no such name, or an argument that the set has no use for.
        DataError: the files are missing or damaged.
    """
    entry = DATA_SETS.get(name)
    if entry is None:
        raise UsageError(_unknown(name))
    request = DataRequest(data_dir, image_size)
    for field in ("data_dir", "image_size"):
        if getattr(request, field) is not None and field not in entry.takes:
            raise UsageError(f"data set {name} takes no --{field.replace('_', '-')}: leave it out")
    return entry.open(request)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, DATA_SETS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"no data set is called {name!r}{hint}: choose {', '.join(DATA_SETS)}"
