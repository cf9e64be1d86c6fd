"""The tables of a run's report, for a terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from fixgrad.report.run_report import RunReport
from fixgrad.report.units import byte_count, duration, percent
from fixgrad.simulate.bounds import Bound, LayerCost, Phase, StepCost
from fixgrad.train.plan import Arithmetic


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
    step, dense = report.cost.total_us / 1e6, report.dense_cost.total_us / 1e6
    bound = f"{duration(step)} on {report.cost.machine} at least ({dense / step:.2f} times as fast as dense, {duration(dense)})"
    rows.append(("training step", bound))
    return rows


def _pruning(report: RunReport) -> str:
    plan, metrics = report.plan, report.metrics
    if not plan.prunes:
        return "never pruned"
    kept = f"{percent(metrics.weights_kept, 1)} of the weights and {percent(metrics.macs_kept, 1)} of the MACs kept"
    return f"pruned after epoch {plan.prune_epoch}: {kept}"


def _comparison_rows(report: RunReport) -> list[tuple[str, str]]:
    if report.comparison is None:
        if report.plan.arithmetic is Arithmetic.FLOAT:
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
        title=f"Layers: time of a step of {report.plan.batch} images on {report.cost.machine}",
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
            *(_cell(report.cost, layer.name, phase) for phase in Phase),
        )
    table.caption = "c: the multipliers rule, m: the memory rules. Bounds of a simulated machine: no schedule is faster."
    table.caption_justify = "left"
    return table


def _cell(cost: StepCost, layer: str, phase: Phase) -> str:
    row = _row(cost, layer, phase)
    if row is None:
        return "-"
    return f"{duration(row.us / 1e6)} {'c' if row.bound is Bound.COMPUTE else 'm'}"


def _row(cost: StepCost, layer: str, phase: Phase) -> LayerCost | None:
    return next((row for row in cost.layers if row.name == layer and row.phase is phase), None)


def _phases(report: RunReport) -> Table:
    table = Table(title="Phases", title_justify="left", box=box.SIMPLE)
    for name in ("phase", "time", "dense", "equivalent GOP/s", "MACs", "DRAM"):
        table.add_column(name, justify="left" if name == "phase" else "right")
    dense = report.dense_cost.phases
    for phase, cost in report.cost.phases.items():
        table.add_row(
            str(phase).upper(),
            duration(cost.us / 1e6),
            duration(dense[phase].us / 1e6),
            f"{cost.gops:.1f}",
            f"{cost.macs / 1e6:,.1f} M",
            byte_count(cost.dram_bytes),
        )
    total = report.cost
    table.add_section()
    table.add_row(
        "step",
        duration(total.total_us / 1e6),
        duration(report.dense_cost.total_us / 1e6),
        f"{total.total_gops:.1f}",
        f"{total.macs / 1e6:,.1f} M",
        byte_count(total.dram_bytes),
    )
    return table
