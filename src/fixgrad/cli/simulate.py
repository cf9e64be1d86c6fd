"""`fixgrad simulate`: compile a training step and simulate its timing."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fixgrad.cli.progress import progress_line
from fixgrad.cli.step_case import (
    DEFAULT_MACHINE,
    BatchOption,
    DensityOption,
    ForwardOption,
    JsonOption,
    ModelOption,
    PaddingOption,
    SeedOption,
    ShapeOption,
    chosen_case,
    compile_case,
)
from fixgrad.errors import UsageError

if TYPE_CHECKING:
    from fixgrad.compiler import Program
    from fixgrad.simulate.timing import Simulation, StepTiming


class Dram(StrEnum):
    """Models of the memory."""

    CLOSED = "closed"
    BANK = "bank"


def command(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="Folder of a training run, or a program that `fixgrad compile -o` wrote."),
    ] = None,
    model: ModelOption = None,
    batch: BatchOption = None,
    density: DensityOption = None,
    machine: Annotated[
        str | None, typer.Option(help="A preset (see `fixgrad machine list`) or a JSON file. (default: kcu1500, or the program's)")
    ] = None,
    count_padding: PaddingOption = False,
    forward: ForwardOption = False,
    seed: SeedOption = 0,
    input_shape: ShapeOption = None,
    dram: Annotated[Dram, typer.Option(help="Memory by closed forms, or bank by bank (slower).")] = Dram.CLOSED,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a timeline for ui.perfetto.dev or chrome://tracing.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compile a training step and simulate its time, DRAM bytes and energy, layer by layer.

    The tables show time, bound and utilisation of each layer and phase, where the time of the step goes, its energy, and
    what the machine takes of its chip. Masks are real: those of the run, or kernel-wise ones of exactly the density asked
    for. For the talk's own case its figures stand beside.
    """
    from fixgrad.simulate.timing import write_timeline

    if run is not None and run.is_file():
        step = StepOptions(model, batch, density, seed, input_shape, forward, count_padding)
        program, seconds, told = _of_file(run, machine, step), 0.0, f"of {run}"
    else:
        from fixgrad.machine.files import machine_named

        case, chosen = chosen_case(run, model, batch, density, seed, input_shape), machine_named(machine or DEFAULT_MACHINE)
        program, seconds = compile_case(case, chosen, forward=forward, count_padding=count_padding)
        told = case.density
    with progress_line() as say:
        say(f"simulating {program.network.name} on {program.machine.name}")
        timing, simulation = _simulate(program, dram, seconds, keep_samples=trace is not None)
    events = write_timeline(trace, simulation) if trace is not None else 0
    if as_json:
        print(json.dumps(_as_json(timing), indent=2))
    else:
        _print(timing, program, told)
        if trace is not None:
            print(f"{events:,} events written to {trace}: open it in ui.perfetto.dev")


class StepOptions(NamedTuple):
    """What chooses a step, and so does not go with a program, which has made its choice."""

    model: str | None
    batch: int | None
    density: str | None
    seed: int
    input_shape: str | None
    forward: bool
    count_padding: bool


def _of_file(path: Path, machine: str | None, step: StepOptions) -> "Program":
    """A program of `fixgrad compile -o`; the machine, if one is named, must be the one that it is for."""
    from fixgrad.compiler import check_machine, load_program
    from fixgrad.machine.files import machine_named

    extra = next((name for name, value in step._asdict().items() if value), None)
    if extra is not None:
        raise UsageError(f"--{extra.replace('_', '-')} does not go with the program {path}, which has its own: leave out one of them")
    program = load_program(path)
    if machine is not None:
        check_machine(program, machine_named(machine))
    return program


def _simulate(program: "Program", dram: Dram, seconds: float, keep_samples: bool) -> "tuple[StepTiming, Simulation]":
    import time

    from fixgrad.simulate.dram import Fidelity
    from fixgrad.simulate.timing import simulate, timing_of
    from fixgrad.simulate.timing.result import Seconds

    fidelity = Fidelity.BANK_LEVEL if dram is Dram.BANK else Fidelity.CLOSED_FORM
    start = time.perf_counter()
    simulation = simulate(program, fidelity, keep_samples=keep_samples)
    timing = timing_of(program, simulation, fidelity, Seconds(seconds, 0.0))
    return timing.with_seconds(Seconds(seconds, time.perf_counter() - start)), simulation


def _is_the_talks(timing: "StepTiming") -> bool:
    from fixgrad.machine import talk

    return timing.network == talk.NETWORK and timing.batch == talk.BATCH and timing.mode == "train"


def _as_json(timing: "StepTiming") -> dict[str, Any]:
    from fixgrad.machine import talk

    fields = timing.to_dict()
    if _is_the_talks(timing):
        for row in fields["layers"]:
            figure = talk.figures().get((row["name"], row["phase"]))
            row["talk"] = None if figure is None else figure._asdict()
        total = {"us": talk.STEP_US, "gops": talk.STEP_GOPS}
        fields["talk"] = {"source": talk.SOURCE, "total": total, "slips": list(talk.SLIPS)}
    return fields


def _print(timing: "StepTiming", program: "Program", density: str) -> None:
    from rich.console import Console

    from fixgrad.machine import talk
    from fixgrad.report import timing_tables as tables

    console = Console()
    console.width = max(console.width, tables.TABLE_WIDTH)
    beside = _is_the_talks(timing)
    for line in tables.timing_lines(timing, program.machine, density):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(tables.timing_table(timing, beside))
    if beside:
        console.print(f"Right: {talk.SOURCE}; published, with the densities and the schedule of its machine.", soft_wrap=True)
    console.print()
    console.print(tables.waterfall_table(timing), highlight=False)
    console.print()
    if timing.energy is not None:
        console.print(tables.energy_table(timing), highlight=False)
        console.print()
    console.print(tables.resources_line(timing), soft_wrap=True, highlight=False)
