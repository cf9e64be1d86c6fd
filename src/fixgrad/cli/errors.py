"""What the user sees when a command fails: one line on stderr, and an exit code."""

import os
import sys
import traceback

import typer

from fixgrad.errors import FixgradError

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
TRACEBACK = "FIXGRAD_TRACEBACK"


def report(error: BaseException) -> int:
    """Print `error` as one line on stderr and return the exit code that goes with it."""
    message, exit_code = _describe(error)
    if message:
        print(message, file=sys.stderr)
    return exit_code


def _describe(error: BaseException) -> tuple[str, int]:
    match error:
        case FixgradError():
            return _line(str(error)), error.exit_code
        case typer.TyperException():
            return _wrong_use(error), error.exit_code
        case typer.Abort():
            return _line("aborted"), FAILED
        case KeyboardInterrupt():
            return "interrupted", INTERRUPTED
        case _:
            return _unexpected(error), FAILED


def _wrong_use(error: typer.TyperException) -> str:
    """Typer's own words and where to read more; empty after help was shown because nothing was asked for."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return _line(message) if message else ""
    return _line(f"{message.rstrip('.')}; see `{context.command_path} --help`")


def _unexpected(error: BaseException) -> str:
    if os.environ.get(TRACEBACK) == "1":
        return "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, OSError) and error.strerror:
        about = f"{error.filename}: " if error.filename is not None else ""
        return _line(f"{about}{error.strerror}")
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return _line(f"unexpected {what}; set {TRACEBACK}=1 to see where it comes from")


def _line(message: str) -> str:
    return "error: " + " ".join(message.split())
