"""`fixgrad check`: whether a training step fits a machine, before anything runs."""

import json
from typing import TYPE_CHECKING, Any

import typer

from fixgrad.cli.step_case import (
    BatchOption,
    DensityOption,
    ForwardOption,
    JsonOption,
    MachineOption,
    ModelOption,
    RunArgument,
    SeedOption,
    ShapeOption,
    chosen_case,
)

if TYPE_CHECKING:
    from fixgrad.compiler import Infeasible

DOES_NOT_FIT = 1


def command(
    run: RunArgument = None,
    model: ModelOption = None,
    batch: BatchOption = None,
    density: DensityOption = None,
    machine: MachineOption = "kcu1500",
    forward: ForwardOption = False,
    seed: SeedOption = 0,
    input_shape: ShapeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a training step fits a machine, and if not, why and what would help.

    The exit code is 0 if it fits, 1 if it does not.
    """
    from fixgrad.compiler import check
    from fixgrad.machine.files import machine_named

    case, chosen = chosen_case(run, model, batch, density, seed, input_shape), machine_named(machine)
    reasons = check(case.network, chosen, case.batch, case.masks, case.recipe, mode="forward" if forward else "train")
    title = f"{case.network.name}, batch {case.batch}, on {chosen.name}"
    if as_json:
        found = {"fits": not reasons, "machine": chosen.name, "reasons": [_as_dict(item) for item in reasons]}
        print(json.dumps(found, indent=2))
    else:
        _print(title, reasons)
    if reasons:
        raise typer.Exit(DOES_NOT_FIT)


def _print(title: str, reasons: "list[Infeasible]") -> None:
    if not reasons:
        print(f"{title}: fits")
        return
    print(f"{title}: does not fit, for {len(reasons)} reason{'s' if len(reasons) > 1 else ''}")
    for item in reasons:
        print(f"  {item.layer} ({item.phase}): {item.needed:,} {item.what} needed, {item.available:,} available")
        for remedy in item.remedies:
            print(f"    would help: {remedy}")


def _as_dict(item: "Infeasible") -> dict[str, Any]:
    return {
        "layer": item.layer,
        "phase": item.phase,
        "what": item.what,
        "needed": item.needed,
        "available": item.available,
        "remedies": list(item.remedies),
        "message": str(item),
    }
