"""`fixgrad train`: a run in fixed point, or of the float baseline, from its beginning or from a checkpoint."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fixgrad.cli.workers import end_with, one_voice, starts_workers, train_as_workers
from fixgrad.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from fixgrad.train.pruning_request import KernelCosts
    from fixgrad.train.request import RunRequest
    from fixgrad.train.run import StepPrediction, TrainingRun

#: The values of `fixgrad.network.Optimiser`, its `Schedule` and `fixgrad.numbers.Rounding`, repeated so that --help need not
#: import NumPy.
OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["constant", "linear", "step"]
RoundingName = Literal["nearest", "stochastic"]
AllocationName = Literal["uniform", "global", "macs"]
WHAT, HOW, SPARSITY, NUMBERS, RUN = "What to train", "How to train", "Sparsity", "Numbers", "The run"
#: What may be given together with --resume: it changes no bit of the result.
WITH_RESUME = frozenset(
    {"resume", "checkpoint", "data_dir", "threads", "workers", "device", "keep", "machine", "as_json", "tensorboard"}
)


def command(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(
            help="vgg11, vgg16, resnet18, resnet20, mobilenetv2, digits, or FILE.py:FUNCTION that returns an nn.Module.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="cifar10, digits, folders, or FILE.py:FUNCTION that returns a pair of map-style datasets.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder or archive of the data, for sets read from files.", rich_help_panel=WHAT)
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Side in pixels to which images in class folders are brought.", rich_help_panel=WHAT),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(help="none, crop, flip or crop+flip. (default: what the data set has)", rich_help_panel=WHAT),
    ] = None,
    hold_out: Annotated[
        int | None,
        typer.Option(
            help="Percent of the training set to keep out of the training, for `fixgrad prune-search`. (default: none)",
            rich_help_panel=WHAT,
        ),
    ] = None,
    use_float: Annotated[
        bool,
        typer.Option("--float", help="Train the float32 baseline: same weights, data and order.", rich_help_panel=WHAT),
    ] = False,
    bf16: Annotated[
        bool,
        typer.Option(
            "--bf16",
            help="With --float: multiply in bfloat16 and add in float32, about twice as fast where the CPU has such products.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; it must not exist yet.", rich_help_panel=RUN)] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the run in this folder, to the same bits.", rich_help_panel=RUN)
    ] = None,
    from_run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN[@epoch-0008]",
            help="Begin a new run with a checkpoint of another, and with its settings where none are given. The same training "
            "goes on at its epoch, any other begins anew.",
            rich_help_panel=RUN,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from", help="With --resume: the checkpoint, such as epoch-0002. (default: the newest)", rich_help_panel=RUN
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the training set. (default: vgg11 30, vgg16 60, others 20)", rich_help_panel=HOW),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Images in a step. (default: vgg11 128, digits 32, others 64)", rich_help_panel=HOW),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of initial weights, order, augmentation and rounding. (default: 0)", rich_help_panel=HOW)
    ] = None,
    optimizer: Annotated[
        OptimizerName | None,
        typer.Option(
            help="sgd: with momentum; adam; adamw: Adam with decoupled weight decay. Machines compute sgd alone. (default: sgd)",
            rich_help_panel=HOW,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate for the mean loss. (default: of sgd vgg11 0.02, others 0.01; of adam vgg 0.0003, others 0.001)",
            rich_help_panel=HOW,
        ),
    ] = None,
    momentum: Annotated[
        float | None, typer.Option(help="From 0 to below 1; of adam beta1. (default: 0.9)", rich_help_panel=HOW)
    ] = None,
    beta2: Annotated[
        float | None, typer.Option(help="Of adam, from 0 to below 1. (default: 0.999)", rich_help_panel=HOW)
    ] = None,
    eps: Annotated[float | None, typer.Option(help="Of adam. (default: 1e-08)", rich_help_panel=HOW)] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(help="L2 coefficient; of adamw decoupled. (default: sgd 0.0005, adam 0, adamw 0.01)", rich_help_panel=HOW),
    ] = None,
    schedule: Annotated[
        ScheduleName | None,
        typer.Option(
            help="Of the rate after the warm-up: linear falls to 0, step halves every tenth of the run. (default: linear)",
            rich_help_panel=HOW,
        ),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(
            help="Steps over which the rate rises from 0. "
            "(default: vgg11 300, digits 40, others 200 to 1000; at most a quarter of the run)",
            rich_help_panel=HOW,
        ),
    ] = None,
    density: Annotated[
        str | None,
        typer.Option(
            help="Share of kernels (CONV) and elements (FC) to keep: talk, a number above 0 up to 1, or a "
            ".json or .csv file by layer. (default: never pruned)",
            rich_help_panel=SPARSITY,
        ),
    ] = None,
    prune_epoch: Annotated[
        int | None,
        typer.Option(
            help="Epochs to train dense before pruning. (default: a third of the epochs; with --from-run at once)",
            rich_help_panel=SPARSITY,
        ),
    ] = None,
    allocate: Annotated[
        AllocationName | None,
        typer.Option(
            help="Whose density a number is: uniform: each layer's; global: all weights'; macs: all cycles' of --machine. The last "
            "two are shared out by magnitude. (default: uniform)",
            rich_help_panel=SPARSITY,
        ),
    ] = None,
    macs: Annotated[
        float | None,
        typer.Option(
            help="Share of the multiply-accumulates to keep, shared out by magnitude, in place of --density.",
            rich_help_panel=SPARSITY,
        ),
    ] = None,
    prune_until: Annotated[
        int | None,
        typer.Option(help="Prune gradually, and be done after so many epochs. (default: at once)", rich_help_panel=SPARSITY),
    ] = None,
    prune_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between two changes of the masks, with --prune-until or --regrow. (default: 100, at most an epoch)",
            rich_help_panel=SPARSITY,
        ),
    ] = None,
    regrow: Annotated[
        float | None,
        typer.Option(
            help="Share of the live kernels that is first exchanged for dead ones with large gradients, falling to 0, such as 0.3. "
            "(default: none)",
            rich_help_panel=SPARSITY,
        ),
    ] = None,
    regrow_until: Annotated[
        int | None,
        typer.Option(help="Epochs after which nothing is exchanged. (default: three quarters)", rich_help_panel=SPARSITY),
    ] = None,
    balance: Annotated[
        float | None,
        typer.Option(
            help="Where magnitudes differ by less than this share, keep kernels that balance channels, such as 0.1. (default: 0)",
            rich_help_panel=SPARSITY,
        ),
    ] = None,
    stored_bits: Annotated[
        int | None, typer.Option(help="Bits of a stored weight: 16, 24 or 32. (default: 24)", rich_help_panel=NUMBERS)
    ] = None,
    update_rounding: Annotated[
        RoundingName | None,
        typer.Option(help="Of momentum and stored weights. (default: nearest)", rich_help_panel=NUMBERS),
    ] = None,
    error_rounding: Annotated[
        RoundingName | None,
        typer.Option(help="Of back-propagated errors. (default: stochastic)", rich_help_panel=NUMBERS),
    ] = None,
    machine: Annotated[
        str,
        typer.Option(help="Machine whose time for a training step is predicted: a preset or a JSON file.", rich_help_panel=RUN),
    ] = "kcu1500",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="CPU threads of a worker; fixed point gives the same bits with any number. (default: all cores)",
            rich_help_panel=RUN,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that share each batch, here; torchrun starts them on several machines. Same bits with any number. "
            "(default: 1)",
            rich_help_panel=RUN,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="cpu, cuda or cuda:N; fixed point gives the same bits on each.", rich_help_panel=RUN),
    ] = "cpu",
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Checkpoints to keep, the newest. (default: all)", rich_help_panel=RUN),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option(help="Write scalars for TensorBoard into the run's folder.", rich_help_panel=RUN)
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object an epoch.", rich_help_panel=RUN)] = False,
) -> None:
    """Train a network in sparse 8-bit fixed point, or in float for comparison.

    The run is kept in the folder --out: config.json, metrics.jsonl, TensorBoard events, and a checkpoint an epoch.
    """
    given = {name for name in ctx.params if str(ctx.get_parameter_source(name)).endswith("COMMANDLINE")}
    _check_use(resume, checkpoint, given, from_run, model=model, data=data, out=out)
    if bf16 and not use_float:
        raise UsageError("--bf16 is about the float baseline: give --float too, or leave it out")
    if starts_workers(workers):
        end_with(train_as_workers(workers or 1, threads, resume or out))
    from rich.console import Console

    from fixgrad.network import Optimiser, Schedule
    from fixgrad.numbers import Rounding
    from fixgrad.train.collective import from_environment
    from fixgrad.train.execution import Execution
    from fixgrad.train.plan import Arithmetic
    from fixgrad.train.progress import reading_shown
    from fixgrad.train.run import TrainingRun

    _use_threads(threads)
    cost = _prediction(machine)
    collective = from_environment()
    execution = Execution(device=device, collective=collective)
    console = Console(stderr=as_json, quiet=collective.rank > 0)
    asked: dict[str, Any] = {
        "model": model,
        "data": data,
        "data_dir": None if data_dir is None else str(data_dir),
        "image_size": image_size,
        "augment": augment,
        "validation": hold_out,
        "arithmetic": None if not use_float else Arithmetic.BFLOAT16 if bf16 else Arithmetic.FLOAT,
        "density": density,
        "prune_epoch": prune_epoch,
        "allocate": allocate,
        "macs": macs,
        "prune_until": prune_until,
        "prune_every": prune_every,
        "regrow": regrow,
        "regrow_until": regrow_until,
        "balance": balance,
        "epochs": epochs,
        "batch": batch,
        "optimiser": None if optimizer is None else Optimiser(optimizer),
        "learning_rate": lr,
        "momentum": momentum,
        "beta2": beta2,
        "epsilon": eps,
        "weight_decay": weight_decay,
        "schedule": None if schedule is None else Schedule(schedule),
        "warmup_steps": warmup,
        "stored_bits": stored_bits,
        "error_rounding": None if error_rounding is None else Rounding(error_rounding),
        "update_rounding": None if update_rounding is None else Rounding(update_rounding),
        "seed": seed,
    }
    changes = {field: value for field, value in asked.items() if value is not None}
    with one_voice(collective):
        with reading_shown(console) as reading:
            if resume is not None:
                moved = None if data_dir is None else str(data_dir)
                run = TrainingRun.resume(resume, checkpoint, moved, reading, execution)
            else:
                assert out is not None
                with collective.together():
                    told = _request(from_run, changes) if collective.rank == 0 else None
                request = collective.broadcast(told)
                assert request is not None
                costs = _kernel_costs(machine) if request.allocate == "macs" else None
                run = TrainingRun.begin(request, out, ["fixgrad", *sys.argv[1:]], reading, execution, costs)
        if collective.rank == 0:
            _train(run, console, cost, keep, tensorboard, as_json)
        else:
            for _ in run.train():
                pass
        collective.close()


def _check_use(
    resume: Path | None, checkpoint: str | None, given: set[str], from_run: str | None = None, **needed: object
) -> None:
    """Refuse options that do not go together."""
    if resume is None:
        if checkpoint is not None:
            raise UsageError("--from names a checkpoint to resume from: give --resume RUN too")
        if from_run is not None:
            if needed["out"] is None:
                raise UsageError("--out missing: --from-run begins a new run, in a folder of its own")
            return
        missing = [f"--{name}" for name, value in needed.items() if value is None]
        if missing:
            raise UsageError(f"{', '.join(missing)} missing: a new run needs --model, --data and --out (see --help)")
        return
    changed = sorted(given - WITH_RESUME)
    if changed:
        raise UsageError(
            f"{_option(changed[0])} cannot be given with --resume: the run goes on with the settings in "
            f"{resume}/config.json; leave it out"
        )


def _option(parameter: str) -> str:
    return {"use_float": "--float"}.get(parameter, f"--{parameter.replace('_', '-')}")


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        from fixgrad.train.threads import use_threads

        use_threads(threads)


def _prediction(machine: str) -> "StepPrediction":
    from fixgrad.report.predicted_step import step_prediction

    return step_prediction(machine)


def _request(from_run: str | None, changes: dict[str, Any]) -> "RunRequest":
    """What was typed, in full; the first worker alone reads the other run."""
    from fixgrad.train.fork import forked_request
    from fixgrad.train.request import RunRequest

    return RunRequest(**changes) if from_run is None else forked_request(from_run, changes)


def _kernel_costs(machine: str) -> "KernelCosts":
    from fixgrad.machine.files import machine_named
    from fixgrad.report.kernel_costs import kernel_costs

    return kernel_costs(machine_named(machine))


def _train(
    run: "TrainingRun", console: "Console", cost: "StepPrediction", keep: int | None, tensorboard: bool, as_json: bool
) -> None:
    from fixgrad.report.epoch_lines import bound_line, epoch_line, heading
    from fixgrad.train.progress import ProgressWatcher

    if run.is_complete:
        told = f"{run.folder.path} is complete: {run.plan.epochs} epochs; see `fixgrad report {run.folder.path}`"
        console.print(told, soft_wrap=True, highlight=False)
        run.close()
        return
    with ExitStack() as stack:
        stack.callback(run.close)
        stack.enter_context(_told_how_to_resume(run))
        watchers: list[Any] = []
        if tensorboard:
            from fixgrad.train.tensorboard_log import TensorBoardLog

            log = TensorBoardLog(run.folder.tensorboard, len(run.history) * run.plan.steps_per_epoch)
            stack.callback(log.close)
            watchers.append(log)
        if not as_json:
            if (origin := run.folder.config().get("origin")) and not run.history[origin["epochs_taken_over"] :]:
                console.print(f"from {origin['run']}, {origin['checkpoint']}: {origin['meaning']}", soft_wrap=True, highlight=False)
            why = cost.why_none(run.plan.network)
            if why is not None:
                console.print(f"no time of a step on {cost.machine}: {why}", soft_wrap=True, highlight=False, markup=False)
            shown = cost.machine if why is None else None
            console.print(heading(shown), soft_wrap=True, highlight=False, style="bold")
        watchers.append(stack.enter_context(ProgressWatcher(console, run.plan.epochs)))
        told_bound = None
        for metrics, timing in run.train(watchers, cost, keep):
            if as_json:
                print(json.dumps({**metrics.to_dict(), **timing.to_dict()}), flush=True)
            else:
                console.print(epoch_line(metrics, timing, run.plan.network.classes), soft_wrap=True, highlight=False)
                if (why := bound_line(timing)) != told_bound and why is not None:
                    console.print(why, soft_wrap=True, highlight=False, markup=False)
                told_bound = why


@contextmanager
def _told_how_to_resume(run: "TrainingRun") -> Iterator[None]:
    """What to type after an interruption."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"continue with `fixgrad train --resume {run.folder.path}`", err=True)
        raise
