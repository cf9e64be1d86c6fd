"""`fixgrad cost`: the bounds of a training step on a machine, without training anything."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from fixgrad.cli.choices import chosen_densities, chosen_network

if TYPE_CHECKING:
    from fixgrad.machine import Machine
    from fixgrad.network import Network
    from fixgrad.simulate.bounds import StepCost


def command(
    model: Annotated[str, typer.Option(help="vgg11, vgg16, digits, or FILE.py:FUNCTION that returns an nn.Module.")],
    density: Annotated[
        str, typer.Option(help="Share kept: talk, a number above 0 up to 1, or a .json or .csv file by layer.")
    ] = "1.0",
    batch: Annotated[int, typer.Option(min=1, help="Images in a step.")] = 32,
    machine: Annotated[str, typer.Option(help="A preset (see `fixgrad machine list`) or a JSON file.")] = "kcu1500",
    count_padding: Annotated[
        bool,
        typer.Option("--count-padding", help="Multiplications by zero padding take their cycle, as on the talk's machine."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Which kernels are alive.")] = 0,
    input_shape: Annotated[
        str | None, typer.Option(help="Channels, height and width of an image as 3x32x32, for FILE.py:FUNCTION.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bound the time of a training step on a machine, by its MACs and its DRAM bytes.

    The masks are kernel-wise and have exactly the densities asked for. For the talk's own case its figures stand beside.
    """
    from fixgrad.machine.files import machine_named
    from fixgrad.simulate.bounds import random_masks, step_cost

    network, chosen = chosen_network(model, input_shape), machine_named(machine)
    masks = random_masks(network, chosen_densities(network, density), seed)
    cost = step_cost(network, masks, chosen, batch, count_padding=count_padding)
    if as_json:
        print(json.dumps(_as_json(cost, network, batch), indent=2))
    else:
        _print(cost, network, chosen, density)


def _talk_is_beside(network: "Network", batch: int) -> bool:
    from fixgrad.machine import talk

    return network.name == talk.NETWORK and batch == talk.BATCH


def _as_json(cost: "StepCost", network: "Network", batch: int) -> dict[str, object]:
    from fixgrad.machine import talk

    fields = cost.to_dict()
    if _talk_is_beside(network, batch):
        rows = [{"name": name, "phase": phase, **figure._asdict()} for (name, phase), figure in talk.figures().items()]
        total = {"us": talk.STEP_US, "gops": talk.STEP_GOPS}
        fields["talk"] = {"source": talk.SOURCE, "layers": rows, "total": total, "slips": list(talk.SLIPS)}
    return fields


def _print(cost: "StepCost", network: "Network", machine: "Machine", density: str) -> None:
    from rich.console import Console

    from fixgrad.machine import talk
    from fixgrad.report.cost_table import TABLE_WIDTH, cost_lines, cost_table

    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    beside = _talk_is_beside(network, cost.batch)
    for line in cost_lines(cost, machine, density):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(cost_table(cost, beside))
    if beside:
        console.print(f"Right: {talk.SOURCE}; published, with the densities and the schedule of its machine.", soft_wrap=True)
        for slip in talk.SLIPS[:3]:
            console.print(f"  Slip: {slip}", soft_wrap=True, highlight=False)
