"""`fixgrad prune-search`: the smallest densities that lose little accuracy on images held out of the training set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fixgrad.errors import UsageError

if TYPE_CHECKING:
    from fixgrad.train.prune_search import SearchResult


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that was trained with --hold-out.")],
    checkpoint: Annotated[
        str | None, typer.Option("--from", help="Prune this checkpoint, such as epoch-0008. (default: the newest)")
    ] = None,
    max_loss: Annotated[float, typer.Option(help="Accuracy that may be lost on the held-out images, in points.")] = 1.0,
    confident: Annotated[
        bool, typer.Option("--confident", help="The loss must be below that with 95 % confidence, not just be measured below it.")
    ] = False,
    recover: Annotated[
        int, typer.Option(min=0, help="Steps of the run's training after each pruning, before the accuracy is measured.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="JSON file for the densities, as --density takes it. (default: RUN/densities.json)")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the data are now, if they have moved.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. (default: all cores)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Find the smallest densities that lose little accuracy, on images held out of the training set.

    Each layer is pruned alone first, then all together, in fixed point. The test set is not touched.
    """
    target = run / "densities.json" if out is None else out
    if target.exists():
        raise UsageError(f"{target} already exists: remove it, or choose another --out")
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fixgrad.train.prune_search import open_case, search
    from fixgrad.train.sealed_file import write_atomically
    from fixgrad.train.threads import use_threads

    if threads is not None:
        use_threads(threads)
    case = open_case(run, checkpoint, recover, None if data_dir is None else str(data_dir))
    console = Console(stderr=as_json)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: int, most: int) -> None:
            bar.update(task, description=what, completed=done, total=most)

        result = search(case, max_loss / 100, confident, show)
    write_atomically(target, (json.dumps(dict(result.densities), indent=2) + "\n").encode())
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    _print(result, case.saved.epoch, console, target)


def _print(result: "SearchResult", epoch: int, console: "object", target: Path) -> None:
    from rich.console import Console

    assert isinstance(console, Console)
    found = result.difference
    console.print(f"{'layer':<24}{'density':>9}  alone: points lost at density", highlight=False)
    for name, density in result.densities.items():
        alone = "  ".join(f"{100 * loss:.1f} at {rung:g}" for rung, loss in result.scan[name][-3:])
        console.print(f"{name:<24}{density:>9.3g}  {alone}", soft_wrap=True, highlight=False)
    lines = (
        f"{100 * result.weights_kept:.1f} % of the weights and {100 * result.macs_kept:.1f} % of the MACs kept, after epoch {epoch}",
        f"{100 * found.loss:+.2f} points lost of {100 * result.accuracy:.2f} % on {found.images} held-out images "
        f"({found.lost} lost, {found.gained} gained); below {100 * found.upper:.2f} points with 95 % confidence",
        f"{result.evaluations} models were tried on these images, so the loss measured is on the low side",
        f"written to {target}: fixgrad train --from-run RUN@epoch-{epoch:04d} --density {target} --out NEW",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
