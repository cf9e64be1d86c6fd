"""`fixgrad inspect`: what the numbers of a run look like, layer by layer."""

import json
from pathlib import Path
from typing import Annotated

import typer

#: Columns that the table needs.
WIDTH = 140


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, as `fixgrad train --out` made it.")],
    checkpoint: Annotated[
        str | None, typer.Option("--from", help="Look at this checkpoint, such as epoch-0002. (default: the newest)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the numbers of a run: saturation, overflow, head-room, ranges, and what is dead, by layer.

    All figures are measured while the run trains, in every step.
    """
    from fixgrad.report.inspect_run import inspect_run

    found = inspect_run(run, checkpoint)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    from rich.console import Console

    from fixgrad.report.inspect_tables import inspection_table, remark_lines

    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(inspection_table(found))
    for line in remark_lines(found):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
