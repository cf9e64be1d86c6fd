"""The progress bar of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fixgrad.train.data.progress import Progress as ReadingProgress
from fixgrad.train.metrics import EpochMetrics
from fixgrad.train.trainer import StepReport, Trainer


@contextmanager
def reading_shown(console: Console) -> Iterator[ReadingProgress]:
    """A bar of the images read, for data that take long to open; nothing where the console is no terminal."""
    columns = (TextColumn("reading images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield show


class ProgressWatcher:
    """Shows where a run is: the epoch, the step in it, and the loss of late. Nothing where the console is no terminal.

    Args:
        console: to show it on; what is printed on the same console meanwhile appears above the bar.
        epochs: of the run.
        label: stands before it.
    """

    #: Share of the newest step in the loss that is shown.
    NEWEST = 0.1

    def __init__(self, console: Console, epochs: int, label: str = "") -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._epochs = epochs
        self._label = f"{label} " if label else ""
        self._task: TaskID = self._progress.add_task("", total=None, detail="", visible=False)
        self._loss: float | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._progress.stop()

    def epoch_begins(self, epoch: int, steps: int) -> None:
        """A bar of `steps` steps."""
        self._begin(f"{self._label}epoch {epoch}/{self._epochs}", steps)

    def step_done(self, step: int, report: StepReport, images: int, rate: float) -> None:
        """One step further."""
        self._loss = report.loss if self._loss is None else self._loss + self.NEWEST * (report.loss - self._loss)
        self._progress.update(self._task, advance=1, detail=f"loss {self._loss:.4f}  lr {rate:.2g}")

    def evaluation_begins(self, batches: int) -> None:
        """A bar of the test set's batches."""
        self._begin(f"{self._label}test set", batches)

    def batch_evaluated(self) -> None:
        """One batch further."""
        self._progress.update(self._task, advance=1)

    def pruned(self, epoch: int, trainer: Trainer) -> None:
        """The next line shows what is kept."""

    def epoch_done(self, metrics: EpochMetrics, trainer: Trainer) -> None:
        """The line about it is printed by whoever asked for the run."""

    def _begin(self, description: str, total: int) -> None:
        self._progress.reset(self._task, total=total, description=description, visible=True, detail="")
