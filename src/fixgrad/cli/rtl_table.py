"""What `fixgrad rtl synth` prints."""

from pathlib import Path
from typing import TYPE_CHECKING

from fixgrad.report.units import percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fixgrad.gateware.synthesis.place import Placed
    from fixgrad.gateware.synthesis.report import SynthesisReport
    from fixgrad.gateware.synthesis.technology import Counts

#: Columns of the terminal that the table takes.
TABLE_WIDTH = 136


def show(report: "SynthesisReport", placed: "Placed | None", folder: Path) -> None:
    """Prints the table of a machine's parts, how it keeps its limits, and its placement."""
    from rich.console import Console

    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(f"{report.machine.name} ({report.machine.board}). {report.technology.note}", soft_wrap=True, highlight=False)
    console.print(synthesis_table(report))
    for limit in report.limits:
        share = percent(limit.used / limit.available, 1)
        room = f"exceeded by {limit.used - limit.available:,g}" if limit.exceeded else f"{limit.available - limit.used:,g} left"
        console.print(f"{limit} ({report.limits_of}): {share}, {room}", highlight=False)
    if placed:
        _show_placed(console, placed, report.machine.name, folder)


def synthesis_table(report: "SynthesisReport") -> "Table":
    """A row for each part, the sum, and what stands beside it."""
    from rich.table import Table

    from fixgrad.machine import talk

    table = Table(box=None, pad_edge=False, header_style="bold")
    one = "count", "LUT", "LUT RAM", "FF", "DSP", report.technology.block_kind
    for column in ("part", *one, "LUT, all", "FF, all", "DSP, all", "blocks, all"):
        table.add_column(column, justify="left" if column == "part" else "right", no_wrap=True)
    for row in report.rows:
        every = row.one.times(row.count)
        table.add_row(row.name, f"{row.count:,}", *_cells(row.one), *_sums(every))
    table.add_row("total", "", *[""] * 5, *_sums(report.total), style="bold")
    if report.to_dict()["talk"]:
        used = talk.USED
        cells = (f"{number:,}" for number in (used.lut, used.ff, used.dsp, used.blocks))
        table.add_row("the talk's machine (published)", "", *[""] * 5, *cells)
    table.add_row("by rules (`machine resources`)", "", *[""] * 5, *_sums(report.estimate))
    return table


def _cells(counts: "Counts") -> tuple[str, ...]:
    return f"{counts.lut:,}", f"{counts.lut_ram:,}", f"{counts.ff:,}", f"{counts.dsp:,}", f"{counts.blocks:,g}"


def _sums(counts: "Counts") -> tuple[str, ...]:
    return f"{counts.luts:,}", f"{counts.ff:,}", f"{counts.dsp:,}", f"{counts.blocks:,g}"


def _show_placed(console: "Console", placed: "Placed", name: str, folder: Path) -> None:
    used = ", ".join(f"{kind} {used:,} of {of:,}" for kind, (used, of) in placed.used.items())
    met = "met" if placed.fmax_mhz >= placed.target_mhz else "not met"
    for line in (
        f"Placed and routed with the board around it (not run on one): {used}",
        f"Fmax {placed.fmax_mhz:.1f} MHz by nextpnr; {placed.target_mhz:g} MHz {met}. {placed.seconds:,.0f} s, seed {placed.seed}",
        f"{folder / name}.bit: {placed.bitstream:,} bytes; .json, .lpf, .config, .log and reports beside it",
    ):
        console.print(line, soft_wrap=True, highlight=False)
