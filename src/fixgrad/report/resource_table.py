"""What a machine takes of its chip, as a table."""

from collections.abc import Iterator

from rich.table import Table

from fixgrad.machine import Machine
from fixgrad.machine.resources import Resources, resources_of
from fixgrad.report.units import percent


def resource_table(machine: Machine, formulas: bool = False) -> Table:
    """A row for each kind of block, the sum, and the chip's own."""
    found = resources_of(machine)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("block", "count", "DSP", machine.device.block_kind, "LUT", "registers"):
        table.add_column(column, justify="left" if column == "block" else "right", no_wrap=True)
    if formulas:
        table.add_column("of one", overflow="fold")
    for part in found.parts:
        cells = (part.name, f"{part.count:,}", f"{part.dsp:,}", f"{part.blocks:g}", f"{part.lut:,}", f"{part.ff:,}")
        table.add_row(*cells, *((part.formula,) if formulas else ()))
    total = ("total", "", f"{found.dsp:,}", f"{found.blocks:g}", f"{found.lut:,}", f"{found.ff:,}")
    table.add_row(*total, style="bold")
    if machine.device.blocks:
        table.add_row(*_shares(found), style="bold")
    return table


def _shares(found: Resources) -> tuple[str, ...]:
    device = found.machine.device
    pairs = ((found.dsp, device.dsp), (found.blocks, device.blocks), (found.lut, device.lut), (found.ff, device.ff))
    return (f"of {device.part}", "", *(percent(taken / available, 1) if available else "none" for taken, available in pairs))


def resource_lines(machine: Machine) -> Iterator[str]:
    """What stands below the table: how sure it is, and what does not fit."""
    yield "Multipliers and memory blocks are counted; LUTs and registers are estimated."
    for shortfall in resources_of(machine).shortfalls:
        yield f"Does not fit {machine.device.part}: {shortfall}"
