"""`fixgrad machine`: the presets, and machines of the user's own."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fixgrad.errors import UsageError

if TYPE_CHECKING:
    from fixgrad.machine import Machine

#: Columns of the terminal that the list takes.
TABLE_WIDTH = 100
#: And those of a table with formulas.
FORMULA_WIDTH = 190
app = typer.Typer(help="List, show and make descriptions of machines.", no_args_is_help=True, add_completion=False)


@app.command("list")
def list_presets(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the presets."""
    from fixgrad.machine import PRESETS

    if as_json:
        print(json.dumps([machine.to_dict() for machine in PRESETS.values()], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "board", "groups x PEs x lanes", "MHz", "peak GOP/s", "memory"):
        # Names are what the other commands take: a narrow terminal cuts the other columns first.
        least = max(map(len, PRESETS)) if column == "name" else None
        table.add_column(column, justify="right" if column in ("MHz", "peak GOP/s") else "left", no_wrap=True, min_width=least)
    for machine in PRESETS.values():
        sizes = f"{machine.groups} x {machine.pes_per_group} x {machine.lanes}"
        memory = f"{machine.memory.channels} x {machine.memory.standard}"
        table.add_row(machine.name, machine.board, sizes, f"{machine.clock_mhz:g}", f"{machine.peak_gops:,.4g}", memory)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A preset or a JSON file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as a machine file holds it.")] = False,
) -> None:
    """Show the parameters of a machine, its identity, and what it takes of its chip."""
    from fixgrad.machine.files import machine_named

    machine = machine_named(name)
    if as_json:
        print(json.dumps(machine.to_dict(), indent=2))
    else:
        _show(machine)


@app.command()
def resources(
    name: Annotated[str, typer.Argument(help="A preset or a JSON file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a machine takes of its chip, block by block, with formulas; fail if it does not fit."""
    from fixgrad.machine.files import machine_named
    from fixgrad.machine.resources import resources_of

    found = resources_of(machine_named(name))
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        from rich.console import Console

        from fixgrad.report.resource_table import resource_table

        console = Console()
        console.width = max(console.width, FORMULA_WIDTH)
        console.print(resource_table(found.machine, formulas=True))
    found.check()


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="JSON file to write.")],
    start: Annotated[str, typer.Option("--from", help="A preset or a JSON file to start from.")] = "kcu1500",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, such as groups=4 or memory.channels=1; may be repeated.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as the file holds it.")] = False,
) -> None:
    """Write a machine of your own, from another with some parameters changed."""
    from fixgrad.machine.files import changed, machine_named, save_machine

    if file.suffix.lower() != ".json":
        raise UsageError(f"{file} does not end with .json: a machine is told from a preset by that")
    if file.exists() and not force:
        raise UsageError(f"{file} exists: choose another name, or --force to replace it")
    named = [] if any(setting.startswith("name=") for setting in settings or []) else [f"name={file.stem}"]
    machine = changed(machine_named(start), [*named, *(settings or [])])
    save_machine(machine, file)
    if as_json:
        print(json.dumps(machine.to_dict(), indent=2))
        return
    _show(machine)
    typer.echo(f"written to {file}: use it as --machine {file}")


@app.command()
def registers(
    name: Annotated[str, typer.Argument(help="A preset or a JSON file.")],
    header: Annotated[bool, typer.Option("--c", help="Print a C header instead of JSON.")] = False,
) -> None:
    """Print the register map of a machine's control port, as JSON or as a C header."""
    from fixgrad.machine.files import machine_named
    from fixgrad.machine.registers import as_json, c_header

    machine = machine_named(name)
    print(c_header(machine) if header else as_json(machine), end="")


def _show(machine: "Machine") -> None:
    from rich.console import Console

    from fixgrad.machine import identity
    from fixgrad.report.resource_table import resource_lines, resource_table

    console = Console()
    console.width = max(console.width, TABLE_WIDTH)

    def line(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False)

    line(f"{machine.name} ({machine.board}), identity {identity(machine)}")
    line(f"  {machine.macs:,} MACs at {machine.clock_mhz:g} MHz: dense peak {machine.peak_gops:,.4g} GOP/s")
    for name, value in machine.to_dict().items():
        if isinstance(value, dict):
            line(f"  {name}: " + ", ".join(f"{part} {entry}" for part, entry in value.items()))
        elif name not in ("name", "board"):
            line(f"  {name} {value}")
    console.print(resource_table(machine))
    for text in resource_lines(machine):
        line(text)
