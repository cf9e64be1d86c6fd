"""Functions of the user's own, named as ``FILE.py:FUNCTION``: models and data sets new to fixgrad."""

import importlib.util
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from fixgrad.errors import FixgradError, UsageError


def is_user_spec(text: str) -> bool:
    """Whether `text` has the form ``FILE.py:FUNCTION`` (the file need not exist)."""
    path, colon, _name = text.rpartition(":")
    return bool(colon) and path.endswith(".py")


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A function out of a user's file; calling it turns what goes wrong inside into one line that says where.

    Attributes:
        path: the file.
        name: the function's name in it.
        function: the function.
    """

    path: Path
    name: str
    function: Callable[..., object]

    def __call__(self, *arguments: object, **keywords: object) -> object:
        """What the function returns.

        Raises:
            FixgradError: the function raised; the message names the line of the user's file.
        """
        try:
            return self.function(*arguments, **keywords)
        except FixgradError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code may raise
            fail(self.path, f"{self.name}() failed", error)


def load_callable(spec: str) -> UserFunction:
    """Import ``FILE.py`` and take ``FUNCTION`` out of it.

    The file runs as an imported module does (what ``if __name__ == "__main__"`` guards is not run), and may
    import other files of its folder.

    Raises:
        UsageError: not of that form, no such file, or no such function in it.
        FixgradError: the file does not run; the message names the line.
    """
    if not is_user_spec(spec):
        raise UsageError(f"{spec!r} names no function: write FILE.py:FUNCTION")
    file, _colon, name = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"{spec!r}: there is no file {path} in {Path.cwd()}: check the path")
    function = getattr(_run(path.resolve()), name, None)
    if not callable(function):
        what = (
            "has no function"
            if function is None
            else f"has a {type(function).__name__}, not a function, called"
        )
        raise UsageError(f"{path} {what} {name!r}: write FILE.py:FUNCTION")
    return UserFunction(path, name, function)


def fail(path: Path, what: str, error: BaseException) -> NoReturn:
    """Raise `error` again as one line that names the deepest line of the user's file that led to it.

    Raises:
        FixgradError: always.
    """
    line = _line_in(path, error)
    where = f"{path}, line {line}" if line else str(path)
    reason = " ".join(str(error).split())  # libraries wrap their messages; ours are one line
    raise FixgradError(f"{where}: {what}: {type(error).__name__}{': ' if reason else ''}{reason}") from error


def _run(path: Path) -> ModuleType:
    """The file as a module. It is run once: a second function of the same file sees the same module."""
    module_name = f"fixgrad_user_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file: write FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look their module up by name, while it runs as well.
    sys.modules[module_name] = module
    try:
        with _siblings_importable(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code may raise
        del sys.modules[module_name]
        fail(path, "the file does not run", error)
    return module


@contextmanager
def _siblings_importable(folder: Path) -> Iterator[None]:
    """The file's folder first on the import path while it runs, as for a script; afterwards last.

    It stays because a function may import when it is called; last, so that a user's ``token.py`` cannot take
    the place of a module that fixgrad or a library has yet to import.
    """
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
        if entry not in sys.path:
            sys.path.append(entry)


def _line_in(path: Path, error: BaseException) -> int | None:
    """Line of `path` that led to the error: the deepest of its frames, or the line that does not parse."""
    resolved = path.resolve()
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve() == resolved:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == resolved]
    return lines[-1] if lines else None
