"""The training step that several commands are asked about: a run's, or one of a model at some density."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fixgrad.cli.choices import chosen_densities, chosen_network
from fixgrad.cli.progress import progress_line
from fixgrad.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fixgrad.compiler import Program
    from fixgrad.machine import Machine
    from fixgrad.network import Network, Recipe

DEFAULT_BATCH, DEFAULT_MACHINE = 32, "kcu1500"

RunArgument = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", help="Folder of a training run: network, batch and masks are its own.")
]
ModelOption = Annotated[
    str | None, typer.Option(help="vgg11, vgg16, digits, or FILE.py:FUNCTION that returns an nn.Module. (without RUN)")
]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Images in a step. (default: the run's, or 32)")]
DensityOption = Annotated[
    str | None,
    typer.Option(help="Share kept: talk, a number above 0 up to 1, or a .json or .csv file by layer. (default: 1)"),
]
MachineOption = Annotated[str, typer.Option(help="A preset (see `fixgrad machine list`) or a JSON file.")]
PaddingOption = Annotated[
    bool,
    typer.Option("--count-padding", help="Multiplications by zero padding take their cycle, as on the talk's machine."),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Which kernels are alive.")]
ShapeOption = Annotated[
    str | None, typer.Option(help="Channels, height and width of an image as 3x32x32, for FILE.py:FUNCTION.")
]
ForwardOption = Annotated[bool, typer.Option("--forward", help="A forward pass alone, without training.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True)
class StepCase:
    """What is to be compiled.

    Attributes:
        masks: live kernels by parameter name (``conv1.weight``).
        density: how they were chosen, for people.
    """

    network: "Network"
    masks: "Mapping[str, NDArray[np.bool_]]"
    batch: int
    recipe: "Recipe"
    density: str


def chosen_case(
    run: Path | None,
    model: str | None,
    batch: int | None,
    density: str | None,
    seed: int,
    input_shape: str | None,
) -> StepCase:
    """The step that a command's arguments name.

    Raises:
        UsageError: both a run and a model, or neither.
    """
    if run is not None:
        given = {"--model": model, "--density": density, "--input-shape": input_shape}
        extra = [name for name, value in given.items() if value is not None]
        if extra:
            raise UsageError(f"{extra[0]} does not go with the run {run}, which has its own: leave out one of them")
        return _case_of_run(run, batch)
    if model is None:
        raise UsageError("nothing to simulate: name the folder of a run, or a network with --model")
    return _case_of_model(model, batch or DEFAULT_BATCH, density or "1.0", seed, input_shape)


def _case_of_run(run: Path, batch: int | None) -> StepCase:
    from fixgrad.train.run_folder import RunFolder

    checkpoint = RunFolder.open(run).load()
    plan, arrays = checkpoint.plan, checkpoint.state.arrays
    masks = {name.removeprefix("mask/"): mask for name, mask in arrays.items() if name.startswith("mask/")}
    density = f"of {run}, epoch {checkpoint.epoch}"
    return StepCase(plan.network, masks, batch or plan.batch, plan.recipe, density)


def _case_of_model(model: str, batch: int, density: str, seed: int, input_shape: str | None) -> StepCase:
    from fixgrad.network import Recipe
    from fixgrad.simulate.bounds import random_masks

    network = chosen_network(model, input_shape)
    masks = random_masks(network, chosen_densities(network, density), seed)
    return StepCase(network, {f"{name}.weight": mask for name, mask in masks.items()}, batch, Recipe(), density)


def compile_case(case: StepCase, machine: "Machine", *, forward: bool, count_padding: bool) -> "tuple[Program, float]":
    """The program of a case, and the seconds that compiling took."""
    from fixgrad.compiler import compile_step

    start = time.perf_counter()
    with progress_line() as say:
        say(f"compiling {case.network.name} for {machine.name}")
        program = compile_step(
            case.network,
            case.masks,
            machine,
            case.batch,
            case.recipe,
            mode="forward" if forward else "train",
            count_padding=count_padding,
        )
    return program, time.perf_counter() - start
