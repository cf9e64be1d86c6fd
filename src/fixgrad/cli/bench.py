"""`fixgrad bench`: what a training step takes, beside the steps of others, on this machine."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from fixgrad.report.bench_table import BenchResult
    from fixgrad.train.bench.contestants import Contest
    from fixgrad.train.bench.measure import Told

#: The density of the sparse step where none is given: the talk's, where it has one, and else about what it keeps in all.
DENSITIES = {"vgg11": "talk"}
OTHER_DENSITY = "0.25"
#: Columns of the terminal that the table takes.
TABLE_WIDTH = 150
app = typer.Typer(help="Measure a training step on this machine, beside plain PyTorch.", no_args_is_help=True, add_completion=False)


@app.callback()
def _bench() -> None:
    """Measure a training step on this machine, beside plain PyTorch."""


@app.command()
def train(
    model: Annotated[str, typer.Option(help="vgg11, resnet20, ..., or FILE.py:FUNCTION that returns an nn.Module.")] = "vgg11",
    batch: Annotated[int, typer.Option(min=1, help="Images in a step.")] = 128,
    input_shape: Annotated[
        str | None, typer.Option(help="Channels, height and width, such as 3x32x32, for a FILE.py:FUNCTION.")
    ] = None,
    density: Annotated[
        str | None,
        typer.Option(
            help="Of the sparse step: talk, a number above 0 up to 1, a .json or .csv file by layer, or none to leave it out. "
            "(default: vgg11 talk, others 0.25)"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each that are measured, in turn.")] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of all. (default: all cores)")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    path: Annotated[str, typer.Option(help="Of fixgrad's integer products: auto, int8, fp32 or fp64.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a fixed-point training step beside plain fp32 PyTorch, and beside fp32 that emulates low precision.

    All take turns, step by step, so that whatever else the machine does hits all of them; a ratio is taken of each round, of
    times and of CPU times, which other programs hardly lengthen. If they keep the machine busy, a line says so.
    Peaks of memory are those of processes that do nothing else.
    """
    from rich.console import Console

    from fixgrad.cli.choices import chosen_network
    from fixgrad.report.bench_table import bench_table, load_line
    from fixgrad.train.bench.contestants import Contest
    from fixgrad.train.execution import usable_device
    from fixgrad.train.pruning import layer_densities

    network = chosen_network(model, input_shape)
    chosen = density or DENSITIES.get(model, OTHER_DENSITY)
    sparse = None if chosen == "none" else chosen
    if sparse is not None:
        layer_densities(sparse, network)  # refused before anything is measured
    contest = Contest(network, batch, sparse, usable_device(device), path)
    if threads is not None:
        from fixgrad.train.threads import use_threads

        use_threads(threads)
    console = Console(stderr=as_json)
    result = _measured(contest, model, rounds, console)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    about = result.about
    console.print(
        f"{model}, batch {batch}: {about['processor']}, {about['threads']} threads, {about['device']}, PyTorch "
        f"{about['torch']}, integer products by {about['path']}; {rounds} rounds, median (range), measured",
        soft_wrap=True,
        highlight=False,
    )
    console.width = max(console.width, TABLE_WIDTH)
    console.print(bench_table(result))
    if (line := load_line(result)) is not None:
        console.print(line, soft_wrap=True, highlight=False)


def _measured(contest: "Contest", model: str, rounds: int, console: "Console") -> "BenchResult":
    from fixgrad.report.bench_table import BenchResult
    from fixgrad.train.bench.contestants import Contestant
    from fixgrad.train.bench.measure import conditions, measure, units_of_work

    about = {"model": model, **conditions(contest), "rounds": rounds}
    with _shown(console, units_of_work(contest, rounds)) as told:
        measured = measure(contest, rounds, told)
    ours, sparse, fp32 = Contestant.FIXGRAD, Contestant.FIXGRAD_SPARSE, Contestant.FP32
    ratios = {
        "ratio_to_fp32": measured.ratio(ours, fp32),
        "ratio_to_fp32_sparse": measured.ratio(sparse, fp32),
        "ratio_to_fake_quantised": measured.ratio(ours, Contestant.FAKE_QUANTISED),
        "ratio_to_bf16": measured.ratio(ours, Contestant.BF16),
        "cpu_ratio_to_fp32": measured.cpu_ratio(ours, fp32),
        "cpu_ratio_to_fp32_sparse": measured.cpu_ratio(sparse, fp32),
        "cpu_ratio_to_fake_quantised": measured.cpu_ratio(ours, Contestant.FAKE_QUANTISED),
        "peak_memory_ratio": measured.memory_ratio(ours, fp32),
    }
    return BenchResult(
        about={**about, "other_load": measured.other_load},
        seconds={contestant.value: seconds for contestant, seconds in measured.seconds.items()},
        cpu_seconds={contestant.value: seconds for contestant, seconds in measured.cpu_seconds.items()},
        peak_bytes={contestant.value: peaks for contestant, peaks in measured.peak_bytes.items()},
        ratios={key: ratio._asdict() for key, ratio in ratios.items() if ratio is not None},
    )


@contextmanager
def _shown(console: "Console", total: int) -> "Iterator[Told]":
    """A progress bar; nothing where the console is no terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda what, done: bar.update(task, completed=done, description=what)
