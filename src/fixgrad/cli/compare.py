"""`fixgrad compare`: a machine's simulated step beside every published platform."""

import json
from typing import TYPE_CHECKING

from fixgrad.cli.progress import progress_line
from fixgrad.cli.step_case import (
    BatchOption,
    DensityOption,
    JsonOption,
    MachineOption,
    ModelOption,
    RunArgument,
    SeedOption,
    ShapeOption,
    StepCase,
    chosen_case,
    compile_case,
)

if TYPE_CHECKING:
    from fixgrad.report.timing_compare import Comparison


def command(
    run: RunArgument = None,
    model: ModelOption = None,
    batch: BatchOption = None,
    density: DensityOption = None,
    machine: MachineOption = "kcu1500",
    seed: SeedOption = 0,
    input_shape: ShapeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a machine's simulated step beside every published platform.

    Without RUN or --model it is the talk's own case: VGG-11 at its densities, batch 32. The second table says what each
    platform would take for the same network at its published rate.
    """
    from fixgrad.machine.files import machine_named
    from fixgrad.report.timing_compare import comparison_of
    from fixgrad.simulate.timing import simulate_step

    chosen = machine_named(machine)
    case = _case(run, model, batch, density, seed, input_shape)
    found = []
    for forward in (False, True):
        program, seconds = compile_case(case, chosen, forward=forward, count_padding=False)
        with progress_line() as say:
            say(f"simulating {program.network.name} on {chosen.name}")
            found.append(simulate_step(program, compile_seconds=seconds))
    comparison = comparison_of(found[0], found[1], case.density, case.recipe.stored_bits)
    if as_json:
        print(json.dumps(comparison.to_dict(), indent=2))
    else:
        _print(comparison)


def _case(
    run: RunArgument, model: str | None, batch: int | None, density: str | None, seed: int, input_shape: str | None
) -> StepCase:
    from fixgrad.machine import talk

    if run is None and model is None:
        model = talk.NETWORK
    if run is None and model == talk.NETWORK and density is None:
        density = "talk"
    return chosen_case(run, model, batch, density, seed, input_shape)


def _print(comparison: "Comparison") -> None:
    from rich.console import Console

    from fixgrad.report.timing_compare import TABLE_WIDTH, comparison_lines, platform_table, source_lines, time_table

    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    for line in comparison_lines(comparison):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(platform_table(comparison), highlight=False)
    for line in source_lines(comparison):
        console.print(line, soft_wrap=True, highlight=False)
    console.print()
    console.print(time_table(comparison), highlight=False)
