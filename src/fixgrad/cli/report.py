"""`fixgrad report`: the tables of a run, and its report.json."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fixgrad.cli.progress import progress_line


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, as `fixgrad train --out` made it.")],
    float_run: Annotated[
        Path | None,
        typer.Option(help="Float run to compare with. (default: RUN/float, RUN-float, or float beside RUN)"),
    ] = None,
    machine: Annotated[
        str, typer.Option(help="Machine on which a training step is costed: a preset or a JSON file.")
    ] = "kcu1500",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Show accuracy beside float training, densities and cost of a run; write RUN/report.json.

    Figures of accuracy are measured, those of time and traffic are simulated.
    """
    from fixgrad.report.run_report import report_run, write_report

    with progress_line() as say:
        report = report_run(run, float_run, machine, say)
    path = write_report(report)
    if as_json:
        print(json.dumps(report.to_dict()))
        return
    from rich.console import Console

    from fixgrad.report.run_tables import report_tables

    console = Console()
    console.print(report_tables(report))
    console.print(f"written to {path}", highlight=False, soft_wrap=True)
