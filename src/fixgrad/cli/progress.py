"""A line on standard error that says what takes its time; nothing where no one looks on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Say = Callable[[str], None]
_WIPE = "\r\033[K"


@contextmanager
def progress_line() -> Iterator[Say]:
    """A function that shows a text in place of the one before; the line is wiped at the end, and before an error is printed."""
    shown = sys.stderr.isatty()

    def say(text: str) -> None:
        if shown:
            print(f"{_WIPE}{text} ...", end="", file=sys.stderr, flush=True)

    try:
        yield say
    finally:
        if shown:
            print(_WIPE, end="", file=sys.stderr, flush=True)
