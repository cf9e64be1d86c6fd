"""What the demonstration prints."""

from statistics import fmean

from rich import box
from rich.table import Table

from fixgrad.report.demo import LOST_LIMIT, MACS_LIMIT, DemoReport
from fixgrad.report.run_tables import step_time
from fixgrad.report.units import duration, percent
from fixgrad.train.metrics import PredictionKind


def demo_table(demo: DemoReport) -> Table:
    """A row for each seed, and their mean."""
    machine = demo.runs[0].step.machine
    table = Table(box=box.SIMPLE, show_footer=True, pad_edge=False)
    lost, mean = demo.lost, fmean(demo.lost)
    columns = (
        ("seed", "mean"),
        ("float\ndense", percent(demo.float_accuracy)),
        ("fixed-point\nsparse", percent(demo.fixed_accuracy)),
        ("points\nlost", f"{mean:+.2f}"),
        ("weights\nkept", percent(demo.weights_kept, 1)),
        ("MACs\nkept", percent(demo.macs_kept, 1)),
        (f"training step\non {machine}", f"{duration(demo.step_seconds)}{_least(demo.step_kind)}"),
    )
    for name, footer in columns:
        table.add_column(name, footer=footer, justify="left" if name == "seed" else "right", no_wrap=True)
    for run, points in zip(demo.runs, lost, strict=True):
        assert run.comparison is not None
        table.add_row(
            str(run.plan.recipe.seed),
            percent(run.comparison.metrics.test_accuracy),
            percent(run.metrics.test_accuracy),
            f"{points:+.2f}",
            percent(run.metrics.weights_kept, 1),
            percent(run.metrics.macs_kept, 1),
            step_time(run.step),
        )
    return table


def demo_lines(demo: DemoReport) -> list[str]:
    """What stands below the table: where the figures come from, and whether the limits are kept."""
    plan = demo.runs[0].plan
    verdict = "kept" if demo.holds else "NOT KEPT"
    return [
        f"Accuracy: measured here on the test set, after {plan.epochs} epochs from the same initial weights. The sparse runs "
        f"train dense for {plan.prune_epoch} of them.",
        _step_line(demo),
        f"CSB: the 8-bit weights take {percent(demo.csb_share, 1)} of their dense bytes, coordinates included.",
        f"Limits (less than {LOST_LIMIT:g} point lost for every seed, {percent(MACS_LIMIT, 0)} of the MACs): {verdict}.",
    ]


def _least(kind: PredictionKind) -> str:
    return " at least" if kind is PredictionKind.BOUND else ""


def _step_line(demo: DemoReport) -> str:
    """Where the time of a step comes from, and how it compares with that of the dense step."""
    first, dense = demo.runs[0], f"{duration(demo.dense_step_seconds)}{_least(demo.dense_step_kind)}"
    what = f"{first.plan.batch} images on {first.step.machine}"
    if demo.step_kind is demo.dense_step_kind:
        faster = demo.dense_step_seconds / demo.step_seconds
        compared = f"{faster:.1f} times as fast as the same step with nothing pruned ({dense})"
    else:
        compared = f"the same step with nothing pruned takes {dense}"
    if demo.step_kind is PredictionKind.SIMULATED:
        return f"Training step: {what}, compiled and simulated; {compared}."
    reason = next(run.step.reason for run in demo.runs if run.step.reason)
    return f"Training step: a bound for {what}, {compared}; not simulated: {reason}."
