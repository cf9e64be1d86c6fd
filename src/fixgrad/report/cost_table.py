"""The bounds of a training step as a table, with the talk's own figures beside where they are for the same case."""

from collections.abc import Iterator

from rich.table import Table

from fixgrad.machine import Machine, talk
from fixgrad.report.units import byte_count, percent
from fixgrad.simulate.bounds import LayerCost, Phase, StepCost

#: Columns of the terminal that the table takes with the talk beside.
TABLE_WIDTH = 112
_COLUMNS = ("layer", "phase", "us", "GOP/s", "bound", "util", "MMAC", "DRAM")
_TALK_COLUMNS = ("talk us", "GOP/s", "bound", "util")


def cost_lines(cost: StepCost, machine: Machine, density: str) -> Iterator[str]:
    """What stands above the table: the case, and what its bounds follow from."""
    padding = "counted as work" if cost.count_padding else "left out"
    yield f"{cost.network} on {machine.name} ({machine.board}), batch {cost.batch}, density {density}: bounds, simulated"
    yield (
        f"  {machine.macs:,} MACs at {machine.clock_mhz:g} MHz: dense peak {cost.peak_gops:,.4g} GOP/s; "
        f"{machine.memory.channels} x {machine.memory.standard} at {cost.memory_gb_per_s:.3g} GB/s; "
        f"multiplications by zero padding {padding}"
    )
    yield f"  one dense pass is {cost.pass_gop:.4g} GOP; equivalent GOP/s count what was pruned as done"
    if cost.others:
        yield f"  {cost.others} layers of other kinds, such as {cost.other}, take memory and no multiplier: they are in no bound"


def cost_table(cost: StepCost, beside_talk: bool) -> Table:
    """A row for each layer and phase, sums of the phases, and the step."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (*_COLUMNS, *(_TALK_COLUMNS if beside_talk else ())):
        table.add_column(column, justify="left" if column in ("layer", "phase", "bound") else "right", no_wrap=True)
    for phase in Phase:
        rows = [row for row in cost.layers if row.phase is phase]
        for row in rows:
            table.add_row(*_cells(row), *(_talk_cells(row.name, phase) if beside_talk else ()))
        table.add_row(*_phase_cells(cost, phase), *(_talk_cells(talk.TOTAL, phase) if beside_talk else ()), style="bold")
    step = ("step", "", f"{cost.total_us:,.1f}", f"{cost.total_gops:,.1f}", "", _share(cost), _millions(cost.macs))
    theirs = (f"{talk.STEP_US:,.0f}", f"{talk.STEP_GOPS:,.1f}") if beside_talk else ()
    table.add_row(*step, byte_count(cost.dram_bytes), *theirs, style="bold")
    return table


def _cells(row: LayerCost) -> tuple[str, ...]:
    return (
        row.name,
        str(row.phase).upper(),
        f"{row.us:,.1f}",
        f"{row.gops:,.1f}",
        str(row.bound),
        percent(row.utilisation, 1),
        _millions(row.macs),
        byte_count(row.dram_bytes),
    )


def _phase_cells(cost: StepCost, phase: Phase) -> tuple[str, ...]:
    total = cost.phases[phase]
    share = percent(total.macs / (cost.peak_gops / 2e-3 * total.us), 1) if total.us else ""
    return (
        "total",
        str(phase).upper(),
        f"{total.us:,.1f}",
        f"{total.gops:,.1f}",
        "",
        share,
        _millions(total.macs),
        byte_count(total.dram_bytes),
    )


def _share(cost: StepCost) -> str:
    return percent(cost.macs / (cost.peak_gops / 2e-3 * cost.total_us), 1)


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.1f}"


def _talk_cells(name: str, phase: Phase) -> tuple[str, ...]:
    figure = talk.figures().get((name, str(phase)))
    if figure is None:
        return ("-",) * len(_TALK_COLUMNS)
    share = "" if figure.utilisation is None else f"{100 * figure.utilisation:g} %"
    return f"{figure.us:,.0f}", f"{figure.gops:,.1f}", figure.bound or "", share
