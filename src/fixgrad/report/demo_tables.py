"""What the demonstration prints."""

from statistics import fmean

from rich import box
from rich.table import Table

from fixgrad.report.demo import LOST_LIMIT, MACS_LIMIT, DemoReport
from fixgrad.report.units import duration, percent


def demo_table(demo: DemoReport) -> Table:
    """A row for each seed, and their mean."""
    machine = demo.runs[0].cost.machine
    table = Table(box=box.SIMPLE, show_footer=True, pad_edge=False)
    lost, mean = demo.lost, fmean(demo.lost)
    columns = (
        ("seed", "mean"),
        ("float\ndense", percent(demo.float_accuracy)),
        ("fixed-point\nsparse", percent(demo.fixed_accuracy)),
        ("points\nlost", f"{mean:+.2f}"),
        ("weights\nkept", percent(demo.weights_kept, 1)),
        ("MACs\nkept", percent(demo.macs_kept, 1)),
        (f"training step\non {machine}", duration(demo.step_seconds)),
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
            duration(run.cost.total_us / 1e6),
        )
    return table


def demo_lines(demo: DemoReport) -> list[str]:
    """What stands below the table: where the figures come from, and whether the limits are kept."""
    plan, machine = demo.runs[0].plan, demo.runs[0].cost.machine
    faster = demo.dense_step_seconds / demo.step_seconds
    verdict = "kept" if demo.holds else "NOT KEPT"
    return [
        f"Accuracy: measured here on the test set, after {plan.epochs} epochs from the same initial weights. The sparse runs "
        f"train dense for {plan.prune_epoch} of them.",
        f"Training step: simulated lower bound for {plan.batch} images on {machine}, {faster:.1f} times as fast as the same "
        f"step with nothing pruned ({duration(demo.dense_step_seconds)}).",
        f"CSB: the 8-bit weights take {percent(demo.csb_share, 1)} of their dense bytes, coordinates included.",
        f"Limits (less than {LOST_LIMIT:g} point lost for every seed, {percent(MACS_LIMIT, 0)} of the MACs): {verdict}.",
    ]
