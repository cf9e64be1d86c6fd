"""A simulated step as tables for a terminal: by layer and phase, where the time goes, energy, and what the chip holds."""

from collections.abc import Iterator

from rich.table import Table

from fixgrad.machine import Machine, talk
from fixgrad.machine.energy_data import Interval
from fixgrad.report.units import byte_count, percent
from fixgrad.simulate.bounds import Phase
from fixgrad.simulate.timing import LayerTiming, StepTiming

#: Columns of the terminal that the table takes with the talk beside.
TABLE_WIDTH = 128
_COLUMNS = ("layer", "phase", "us", "GOP/s", "bound", "util", "DRAM", "at least")
_TALK_COLUMNS = ("talk us", "GOP/s", "bound", "util")
_LEFT = ("layer", "phase", "bound", "cause", "")
_BAR = 40


def timing_lines(timing: StepTiming, machine: Machine, density: str) -> Iterator[str]:
    """What stands above the table."""
    padding = "counted as work" if timing.count_padding else "left out"
    what = "training step" if timing.mode == "train" else "forward pass"
    yield f"{timing.network} on {machine.name} ({machine.board}), batch {timing.batch}, density {density}: {what}, simulated"
    yield (
        f"  {machine.macs:,} MACs at {machine.clock_mhz:g} MHz, {machine.memory.channels} x {machine.memory.standard} "
        f"({timing.dram}); multiplications by zero padding {padding}"
    )
    compiled = f"compiled in {timing.seconds.compile:.2f} s, " if timing.seconds.compile else ""
    took = f"{compiled}simulated in {timing.seconds.simulate:.2f} s"
    yield f"  {timing.instructions:,} instructions, {timing.cycles:,} cycles; {took}"


def _table(columns: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in _LEFT else "right", no_wrap=True)
    return table


def timing_table(timing: StepTiming, beside_talk: bool) -> Table:
    """A row for each layer and phase, sums of the phases, and the step; the talk's own figures beside where they fit."""
    table = _table((*_COLUMNS, *(_TALK_COLUMNS if beside_talk else ())))
    peak = 2 * timing.macs_per_cycle * timing.clock_mhz / 1000
    for phase in timing.phases:
        for row in (row for row in timing.layers if row.phase is phase):
            table.add_row(*_cells(row), *(_talk_cells(row.name, phase) if beside_talk else ()))
        total = timing.phases[phase]
        share = percent(2e-3 * total.macs / (peak * total.us), 1) if total.us else ""
        least = sum(row.dram_bytes_lower_bound for row in timing.layers if row.phase is phase)
        cells = (f"{total.us:,.1f}", f"{total.gops:,.1f}", "", share, byte_count(total.dram_bytes), byte_count(least))
        beside = _talk_cells(talk.TOTAL, phase) if beside_talk else ()
        table.add_row("total", str(phase).upper(), *cells, *beside, style="bold")
    share = percent(2e-3 * timing.macs / (peak * timing.us), 1)
    least = sum(row.dram_bytes_lower_bound for row in timing.layers)
    cells = (f"{timing.us:,.1f}", f"{timing.gops:,.1f}", "", share, byte_count(timing.dram_bytes), byte_count(least))
    theirs = (f"{talk.STEP_US:,.0f}", f"{talk.STEP_GOPS:,.1f}") if beside_talk else ()
    table.add_row("step", "", *cells, *theirs, style="bold")
    return table


def _cells(row: LayerTiming) -> tuple[str, ...]:
    return (
        row.name,
        str(row.phase).upper(),
        f"{row.us:,.1f}",
        f"{row.gops:,.1f}",
        str(row.bound),
        percent(row.utilisation, 1),
        byte_count(row.dram_bytes),
        byte_count(row.dram_bytes_lower_bound),
    )


def _talk_cells(name: str, phase: Phase) -> tuple[str, ...]:
    figure = talk.figures().get((name, str(phase)))
    if figure is None:
        return ("-",) * len(_TALK_COLUMNS)
    share = "" if figure.utilisation is None else f"{100 * figure.utilisation:g} %"
    return f"{figure.us:,.0f}", f"{figure.gops:,.1f}", figure.bound or "", share


def waterfall_table(timing: StepTiming) -> Table:
    """Where the time of the step goes, from the multiply-accumulates alone to the whole."""
    table = _table(("cause", "us", "share", "until us", ""))
    for step in timing.waterfall:
        before, length = (round(_BAR * us / timing.us) for us in (step.until_us - step.us, step.us))
        bar = " " * before + "#" * max(length, int(step.us > 0))
        cells = (f"{step.us:,.1f}", percent(step.us / timing.us, 1), f"{step.until_us:,.1f}", bar)
        table.add_row(str(step.cause), *cells)
    return table


def energy_table(timing: StepTiming) -> Table:
    """Energy of the step by part, with bounds."""
    table = _table(("energy", "mJ a step", "at least", "at most", "mJ an image"))
    energy = timing.energy
    if energy is None:
        return table
    parts = (("MAC", energy.mac), ("buffers", energy.buffers), ("DRAM", energy.dram), ("logic", energy.logic))
    for name, part in (*parts, ("static", energy.static), ("total", energy.total)):
        table.add_row(name, *_millijoules(part), f"{1000 * part.value / timing.batch:,.3g}")
    watts = energy.watts
    table.add_row("power, W", f"{watts.value:,.1f}", f"{watts.low:,.1f}", f"{watts.high:,.1f}", "", style="bold")
    rate = timing.gops / watts.value, timing.gops / watts.high, timing.gops / watts.low
    table.add_row("GOP/s/W", *(f"{value:,.1f}" for value in rate), "", style="bold")
    return table


def _millijoules(part: Interval) -> tuple[str, str, str]:
    value, low, high = (f"{1000 * joules:,.3g}" for joules in (part.value, part.low, part.high))
    return value, low, high


def resources_line(timing: StepTiming) -> str:
    """What the machine takes of its chip."""
    found, device = timing.resources, timing.resources["device"]
    if not device["dsp"]:
        return (
            f"resources: {found['dsp']:,} DSP, {found['bram36']:,.0f} BRAM36, {found['lut']:,} LUT (estimated); no chip named"
        )
    blocks = f"{found['blocks']:,.0f} of {device['blocks']:,} {found['block_kind']}"
    return (
        f"resources of {device['part']}: {found['dsp']:,} of {device['dsp']:,} DSP, {blocks}, "
        f"{found['lut']:,} of {device['lut']:,} LUT (estimated)"
    )
