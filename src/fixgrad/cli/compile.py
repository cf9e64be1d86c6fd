"""`fixgrad compile`: a training step as a program file."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fixgrad.cli.step_case import (
    BatchOption,
    DensityOption,
    ForwardOption,
    JsonOption,
    MachineOption,
    ModelOption,
    PaddingOption,
    RunArgument,
    SeedOption,
    ShapeOption,
    chosen_case,
    compile_case,
)

if TYPE_CHECKING:
    from fixgrad.compiler import Program

#: Columns of the terminal that the table takes.
TABLE_WIDTH = 120
_COLUMNS = ("layer", "phase", "split of a group", "pixels", "channels", "chunk", "predicted cycles", "above bound")


def command(
    run: RunArgument = None,
    model: ModelOption = None,
    batch: BatchOption = None,
    density: DensityOption = None,
    machine: MachineOption = "kcu1500",
    count_padding: PaddingOption = False,
    forward: ForwardOption = False,
    seed: SeedOption = 0,
    input_shape: ShapeOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the program, for `fixgrad simulate FILE`.")
    ] = None,
    raw: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the instructions alone, 128 bytes each; FILE.json is about them."),
    ] = None,
    listing: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the program as text, a line an instruction.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compile a training step into a program; show its tiling, memory layout and instructions.

    A program file holds the instructions, the memory layout, the masks and the machine, under a checksum. FILE.json says for
    which machine and instruction set bare instructions are, and where everything lies in memory.
    """
    from fixgrad.compiler import save_program
    from fixgrad.machine.files import machine_named

    case, chosen = chosen_case(run, model, batch, density, seed, input_shape), machine_named(machine)
    program, seconds = compile_case(case, chosen, forward=forward, count_padding=count_padding)
    about = _about(program, seconds)
    if output is not None:
        save_program(program, output)
    if raw is not None:
        raw.write_bytes(program.encoded.tobytes())
        raw.with_name(f"{raw.name}.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    if listing is not None:
        _write_listing(listing, program)
    if as_json:
        print(json.dumps(about, indent=2))
    else:
        _print(program, about, case.density)
    for path in (output, raw, listing):
        if path is not None and not as_json:
            print(f"written to {path}")


def _about(program: "Program", seconds: float) -> dict[str, Any]:
    from fixgrad.machine.encoding import identity, identity_record

    return {
        "network": program.network.name,
        "batch": program.batch,
        "mode": program.mode,
        "count_padding": program.count_padding,
        "identity": identity(program.machine),
        "identity_record": identity_record(program.machine),
        "machine": program.machine.to_dict(),
        "instructions": {"total": len(program.opcodes), **{name: len(at) for name, at in program.positions.items()}},
        "program": {"address": program.layout.regions["program"].address, "bytes": program.layout.regions["program"].bytes},
        "memory_bytes": program.layout.bytes,
        "regions": [
            {"name": item.name, "address": item.address, "bytes": item.bytes, "meaning": item.meaning}
            for item in program.layout.regions.values()
        ],
        "schedule": [phase.to_dict() for phase in program.schedule.phases],
        "seconds": {"compile": seconds},
    }


def _write_listing(path: Path, program: "Program") -> None:
    from fixgrad.machine.encoding import disassemble

    with open(path, "w", encoding="utf-8") as file:
        for index, (instruction, label) in enumerate(zip(program.instructions, program.labels, strict=True)):
            file.write(f"{index:7}  {label.layer:>12} {label.phase:<6}  {disassemble(instruction)}\n")


def _print(program: "Program", about: dict[str, Any], density: str) -> None:
    from rich.console import Console
    from rich.table import Table

    kinds = ", ".join(f"{count:,} {name}" for name, count in about["instructions"].items() if count and name != "total")
    print(f"{program.network.name}, batch {program.batch}, density {density}, on {program.machine.name}")
    print(f"  {about['instructions']['total']:,} instructions in {about['seconds']['compile']:.2f} s: {kinds}")
    where = f"the program is at {about['program']['address']:#x}; identity {about['identity']}"
    print(f"  {about['memory_bytes']:,} bytes of memory in {len(about['regions'])} regions; {where}")
    print("  tile of each queue: pixels, output channels, input channels of a chunk; cycles as the search predicts them")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in _COLUMNS[:3] else "right", no_wrap=True)
    for phase in program.schedule.phases:
        tiling = phase.tiling
        table.add_row(
            phase.layer,
            phase.phase.upper(),
            str(tiling.split),
            f"{tiling.rows} x {tiling.columns}",
            str(tiling.channels),
            str(tiling.chunk),
            f"{phase.cycles:,.0f}",
            f"{100 * phase.gap:.1f} %",
        )
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(table, highlight=False)
