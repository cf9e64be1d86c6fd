"""The tables of a run's report, for a terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from fixgrad.report.predicted_step import PredictedStep
from fixgrad.report.run_report import RunReport
from fixgrad.report.units import byte_count, duration, percent
from fixgrad.simulate.bounds import Bound, Phase
from fixgrad.simulate.timing import Cause
from fixgrad.train.metrics import PredictionKind
from fixgrad.train.plan import Arithmetic

#: A letter for what most of a phase's time goes into, or for which of the two bounds holds.
_LETTERS: dict[Cause | Bound, str] = {
    Cause.COMPUTE: "c",
    Cause.IMBALANCE: "i",
    Cause.POST: "p",
    Cause.LOAD_BUS: "b",
    Cause.BANDWIDTH: "m",
    Cause.LATENCY: "l",
    Cause.DEPENDENCY: "d",
    Cause.FILL: "f",
    Bound.COMPUTE: "c",
    Bound.MEMORY: "m",
}


def report_tables(report: RunReport) -> RenderableType:
    """Summary, layers and phases."""
    return Group(_summary(report), "", _layers(report), "", _phases(report))


def _summary(report: RunReport) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False, title=f"{report.path}", title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for name, value in _summary_rows(report):
        table.add_row(name, value)
    return table


def _summary_rows(report: RunReport) -> list[tuple[str, str]]:
    plan, metrics = report.plan, report.metrics
    recipe = plan.recipe
    rows = [
        ("network", f"{plan.network.name} on {plan.data}, {plan.arithmetic}, seed {recipe.seed}"),
        ("epochs", f"{metrics.epoch} of {plan.epochs}, batch {plan.batch}, {_pruning(report)}"),
        ("test accuracy", f"{percent(metrics.test_accuracy)} (training {percent(metrics.train_accuracy)})"),
        *_comparison_rows(report),
    ]
    if plan.arithmetic is Arithmetic.FIXED:
        rows.append(("overflows", ", ".join(metrics.overflows) or "none"))
    return [*rows, *_step_rows(report.step, report.dense_step)]


def _step_rows(step: PredictedStep, dense: PredictedStep) -> list[tuple[str, str]]:
    faster = step.times_as_fast_as(dense)
    ratio = "dense: " if faster is None else f"{faster:.2f} times as fast as dense, "
    origin = "simulated" if step.kind is PredictionKind.SIMULATED else "a bound"
    rows = [("training step", f"{step_time(step)} on {step.machine}, {origin} ({ratio}{step_time(dense)})")]
    if step.reason:
        rows.append(("not simulated", step.reason))
    if dense.reason and dense.reason != step.reason:
        rows.append(("dense not simulated", dense.reason))
    return rows


def step_time(step: PredictedStep) -> str:
    """The time of a step; that of a bound with `at least`."""
    return f"{duration(step.seconds)}{' at least' if step.kind is PredictionKind.BOUND else ''}"


def _pruning(report: RunReport) -> str:
    plan, metrics = report.plan, report.metrics
    if not plan.prunes:
        return "never pruned"
    kept = f"{percent(metrics.weights_kept, 1)} of the weights and {percent(metrics.macs_kept, 1)} of the MACs kept"
    return f"pruned after epoch {plan.prune_epoch}: {kept}"


def _comparison_rows(report: RunReport) -> list[tuple[str, str]]:
    if report.comparison is None:
        if report.plan.arithmetic.is_float:
            return []
        return [("float training", "no run found beside this one: train it with --float, or name it with --float-run")]
    compared = report.comparison
    rows = [
        ("float training", f"{percent(compared.metrics.test_accuracy)} ({compared.path})"),
        ("accuracy lost", f"{compared.lost_points:+.2f} points"),
    ]
    if compared.differences:
        rows.append(("not alike", "; ".join(compared.differences)))
    return rows


def _layers(report: RunReport) -> Table:
    table = Table(
        title=f"Layers: time of a step of {report.plan.batch} images on {report.step.machine}, {_origin(report.step)}",
        title_justify="left",
        box=box.SIMPLE,
    )
    for name in ("layer", "weights", "kept", "CSB", "FF", "NG", "WG"):
        table.add_column(name, justify="left" if name == "layer" else "right")
    for layer in report.plan.network.mac_layers:
        stored = report.storage.get(layer.name)
        shape = "x".join(map(str, layer.weight_shape))
        table.add_row(
            layer.name,
            shape,
            percent(report.metrics.densities[layer.name], 1),
            byte_count(stored.csb_bytes) if stored else "-",
            *(_cell(report.step, layer.name, phase) for phase in Phase),
        )
    weighty = {layer.name for layer in report.plan.network.mac_layers}
    others = [row for row in report.step.figures.layers if row.name not in weighty]
    if others:
        times = (sum(row.us for row in others if row.phase is phase) for phase in Phase)
        cells = (duration(us / 1e6) if us else "-" for us in times)
        table.add_row(f"{len({row.name for row in others})} others", "-", "-", "-", *cells)
    table.caption = _layer_caption(report.step)
    table.caption_justify = "left"
    return table


def _origin(step: PredictedStep) -> str:
    return "simulated" if step.kind is PredictionKind.SIMULATED else "at least"


def _layer_caption(step: PredictedStep) -> str:
    """What the letters mean; those that the table shows."""
    if step.kind is PredictionKind.BOUND:
        return "c: the multipliers rule, m: the memory rules. Bounds, not simulated: no schedule is faster."
    shown = {row.bound for row in step.figures.layers}
    letters = ", ".join(f"{_LETTERS[cause]}: {cause}" for cause in Cause if cause in shown)
    return f"Where most of the time goes: {letters}. Simulated with the compiled program; the times add up to the step."


def _cell(step: PredictedStep, layer: str, phase: Phase) -> str:
    row = step.row(layer, phase)
    return "-" if row is None else f"{duration(row.us / 1e6)} {_LETTERS[row.bound]}"


def _phases(report: RunReport) -> Table:
    step, dense = report.step, report.dense_step
    table = Table(title=f"Phases, {_origin(step)}", title_justify="left", box=box.SIMPLE)
    dense_name = "dense" if dense.kind is step.kind else f"dense, {_origin(dense)}"
    for name in ("phase", "time", dense_name, "equivalent GOP/s", "MACs", "DRAM"):
        table.add_column(name, justify="left" if name == "phase" else "right")
    dense_phases = dense.figures.phases
    for phase, cost in step.figures.phases.items():
        dense_phase = dense_phases.get(phase)
        table.add_row(
            str(phase).upper(),
            duration(cost.us / 1e6),
            duration(dense_phase.us / 1e6) if dense_phase else "-",
            f"{cost.gops:.1f}",
            f"{cost.macs / 1e6:,.1f} M",
            byte_count(cost.dram_bytes),
        )
    table.add_section()
    table.add_row(
        "step",
        duration(step.seconds),
        duration(dense.seconds),
        f"{step.gops:.1f}",
        f"{step.figures.macs / 1e6:,.1f} M",
        byte_count(step.figures.dram_bytes),
    )
    return table
