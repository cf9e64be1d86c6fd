"""`fixgrad train` as one of several workers, or as the process that starts them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from fixgrad.cli.errors import report
from fixgrad.errors import UsageError

if TYPE_CHECKING:
    from fixgrad.train.collective import Collective


def starts_workers(workers: int | None) -> bool:
    """Whether this process starts others instead of training."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return workers is not None and workers > 1
    from fixgrad.train.launch import LIFELINE, hold_lifeline

    if LIFELINE in os.environ:
        hold_lifeline()
    elif workers is not None:
        raise UsageError(f"--workers {workers} cannot be given to torchrun: it has started {os.environ['WORLD_SIZE']} itself")
    return False


def train_as_workers(workers: int, threads: int | None, run: Path | None) -> int:
    """Run this very command as several workers; their exit code."""
    from fixgrad.train.launch import run_workers

    exit_code, told = run_workers(workers, sys.argv[1:], threads)
    if told:
        typer.echo(f"error: {told}; continue with `fixgrad train --resume {run}`, with any number of workers", err=True)
    return exit_code


def end_with(exit_code: int) -> NoReturn:
    """End the command without a word."""
    raise typer.Exit(exit_code)


def _leave(exit_code: int) -> NoReturn:
    """End the process without tearing anything down: the threads of an exchange that is not over may abort it, with words."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


@contextmanager
def one_voice(collective: "Collective") -> Iterator[None]:
    """What all workers meet, the first one tells, or the process that started them; one of several ends here with it."""
    from fixgrad.train.collective import FollowedError, WorkerError
    from fixgrad.train.launch import FOLLOWER, LIFELINE

    try:
        yield
    except FollowedError:
        _leave(FOLLOWER)
    except WorkerError as error:
        _leave(report(error) if collective.rank == 0 else FOLLOWER)
    except KeyboardInterrupt:
        if collective.rank == 0 and LIFELINE not in os.environ:
            raise
        _leave(FOLLOWER)
    except Exception as error:
        if collective.size == 1:
            raise
        _leave(report(error))
