"""`fixgrad demo`: the main job, from training to cost, on digits that need no download."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from fixgrad.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from fixgrad.train.jobs import JobProgress


def command(
    out: Annotated[
        Path | None, typer.Option(help="Folder for all runs and report.json; it must not exist yet. (default: kept nowhere)")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each kind, with seeds 0, 1, ...")] = 3,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training set. (default: that of the model digits, 20)")
    ] = None,
    machine: Annotated[
        str, typer.Option(help="Machine on which a training step is costed: a preset or a JSON file.")
    ] = "kcu1500",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Train digits in dense float and in sparse fixed point, compare them, and cost a training step.

    Takes less than a minute on two cores. Every run lies in the folder --out as `fixgrad train` would have made it.
    """
    from rich.console import Console

    from fixgrad.machine.files import machine_named
    from fixgrad.report.demo import run_demo

    begun = time.perf_counter()
    machine_named(machine)  # an unknown name is refused before anything is trained
    console = Console(stderr=as_json)
    console.print(
        f"Training digits, {seeds} seed{'s' * (seeds > 1)}, in dense float and in sparse 8-bit fixed point", highlight=False
    )
    with _folder(out) as folder, _progress(console, 2 * seeds) as progress:
        demo = run_demo(folder, seeds, epochs, machine, progress)
    if as_json:
        print(json.dumps(demo.to_dict()))
        return
    from fixgrad.report.demo_tables import demo_lines, demo_table

    console.print(demo_table(demo))
    for line in demo_lines(demo):
        console.print(line, highlight=False)
    where = f"; runs and report.json in {out}" if out is not None else ""
    console.print(f"Took {time.perf_counter() - begun:.0f} s{where}", highlight=False, soft_wrap=True)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is None:
        with TemporaryDirectory(prefix="fixgrad-demo-") as name:
            yield Path(name)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    yield out


@contextmanager
def _progress(console: "Console", jobs: int) -> Iterator["JobProgress"]:
    """A bar over the steps of all jobs; nothing where the console is no terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    done: dict[int, float] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{jobs} runs", total=jobs)

        def progress(job: int, steps: int, total: int) -> None:
            done[job] = steps / total
            finished = sum(share == 1.0 for share in done.values())
            bar.update(task, completed=sum(done.values()), description=f"{finished} of {jobs} runs done")

        yield progress
