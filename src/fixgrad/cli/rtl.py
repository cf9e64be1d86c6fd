"""`fixgrad rtl`: the machine as hardware: what it takes of a chip, a bitstream for a board, Verilog for other tools."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fixgrad.errors import UsageError

if TYPE_CHECKING:
    from fixgrad.gateware.synthesis.place import Placed
    from fixgrad.gateware.synthesis.report import SynthesisReport
    from fixgrad.gateware.synthesis.run import Progress
    from fixgrad.machine import Machine

EXCEEDED = 1
app = typer.Typer(help="The machine as hardware: resources, bitstream, Verilog.", no_args_is_help=True, add_completion=False)
MachineOption = Annotated[str, typer.Option(help="A preset (see `fixgrad machine list`) or a JSON file.")]


@app.command()
def synth(
    machine: MachineOption = "kcu1500",
    place: Annotated[
        bool, typer.Option("--place/--no-place", help="On ECP5: also place, route and write a bitstream. Takes many minutes.")
    ] = True,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Where bitstream and reports go (default: its name).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the placer: another one gives another clock.")] = 1,
    check: Annotated[bool, typer.Option("--check", help="Fail where a limit is exceeded.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Synthesise a machine with Yosys and count LUTs, registers, memory blocks and multipliers, block by block.

    Each repeated block is synthesised once and counted as often as it stands; results are kept, so the second time takes
    seconds. A machine for the talk's device stands beside the talk's own figures. A machine for an ECP5 is then put on its
    board, placed and routed, and written as a bitstream.
    """
    from fixgrad.machine.files import machine_named

    chosen = machine_named(machine)
    placing = place and chosen.device.block_kind == "DP16KD"
    if output is not None and not placing:
        raise UsageError(f"-o is for a bitstream: {chosen.name} gets none, an ECP5 machine without --no-place does; leave -o out")
    folder = output or Path(chosen.name)
    if placing and folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: choose another folder with -o")
    report, placed = _made(chosen, folder if placing else None, seed)
    if as_json:
        print(json.dumps({**report.to_dict(), **({"placed": placed.to_dict()} if placed else {})}, indent=2))
    else:
        from fixgrad.cli.rtl_table import show

        show(report, placed, folder)
    if check and any(limit.exceeded for limit in report.limits):
        raise typer.Exit(EXCEEDED)


@app.command()
def emit(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder; made if need be.")],
    machine: MachineOption = "kcu1500",
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Write a machine as Verilog, with its register map as JSON and as a C header, and a project script for Vivado."""
    from fixgrad.cli.progress import progress_line
    from fixgrad.machine.files import machine_named

    chosen = machine_named(machine)
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: choose a folder")
    with _needs_rtl():
        from fixgrad.gateware.synthesis.emission import emit as write_files
    with progress_line() as say:
        say(f"{chosen.name}: elaborating and converting to Verilog")
        files = write_files(chosen, output, force=force)
    for file in files:
        typer.echo(f"{file}  {file.stat().st_size:,} bytes")


def _made(machine: "Machine", folder: Path | None, seed: int) -> "tuple[SynthesisReport, Placed | None]":
    """The report of a machine; with a folder that of its board, placed and routed there."""
    from fixgrad.cli.progress import progress_line

    with _needs_rtl():
        from fixgrad.gateware.synthesis.parts import parts_of
        from fixgrad.gateware.synthesis.place import board_netlist, link
        from fixgrad.gateware.synthesis.place import place as place_and_route
        from fixgrad.gateware.synthesis.report import parts_of_machine, report_of
    with progress_line() as say:
        say(f"{machine.name}: elaborating")
        if folder is None:
            parts, constraints = parts_of_machine(machine), ""
        else:
            netlist, constraints = board_netlist(machine)
            parts = parts_of(netlist)
    with _bar(f"synthesising {machine.name}") as progress:
        report, mapped = report_of(machine, parts, progress)
    if folder is None:
        return report, None
    with progress_line() as say:
        say("linking")
        whole = link(mapped)
        folder.mkdir(parents=True, exist_ok=True)
        return report, place_and_route(whole, constraints, machine, folder, seed=seed, say=say)


@contextmanager
def _bar(title: str) -> "Iterator[Progress]":
    """A bar with the parts that are done and those under way; nothing where no one looks on."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    count, running_now = TextColumn("{task.completed}/{task.total}"), TextColumn("{task.description}")
    columns = TextColumn(title), BarColumn(), count, TimeElapsedColumn(), running_now
    with Bar(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, of: int, running: Sequence[str]) -> None:
            bar.update(task, completed=done, total=of, description=", ".join(running))

        yield show


@contextmanager
def _needs_rtl() -> "Iterator[None]":
    try:
        yield
    except ModuleNotFoundError as missing:
        raise UsageError(f"{missing.name} is not installed: `fixgrad rtl` needs fixgrad[rtl]") from None
