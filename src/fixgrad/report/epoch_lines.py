"""A line for each epoch, as a run goes."""

from fixgrad.report.units import duration
from fixgrad.train.loop import guessing_loss
from fixgrad.train.metrics import EpochMetrics, PredictionKind, Timing


def heading(machine: str | None) -> str:
    """What stands above the lines; `machine` is that of the predicted step time."""
    line = f"{'epoch':>5} {'loss':>8} {'train %':>8} {'test %':>7} {'weights %':>10} {'MACs %':>7}  "
    line += f"{'saturated %':<28}{'time':>9}"
    return f"{line}  step on {machine}" if machine else line


def epoch_line(metrics: EpochMetrics, timing: Timing, classes: int) -> str:
    """The line of one epoch; see `heading`. At its end stands what should not be: overflows, or nothing learnt yet."""
    saturated = f"{100 * metrics.saturation:.3f} {metrics.saturated}" if metrics.saturated else "none"
    line = (
        f"{metrics.epoch:>5} {metrics.loss:>8.4f} {100 * metrics.train_accuracy:>8.2f} {100 * metrics.test_accuracy:>7.2f} "
        f"{100 * metrics.weights_kept:>10.1f} {100 * metrics.macs_kept:>7.1f}  {saturated:<28}{duration(timing.seconds):>9}"
    )
    if timing.step_seconds is not None:
        least = " at least" if timing.step_kind is PredictionKind.BOUND else ""
        line += f"  {duration(timing.step_seconds)}{least}"
    if metrics.overflows:
        line += f"  OVERFLOW in {', '.join(metrics.overflows)}"
    if metrics.loss >= guessing_loss(classes):
        line += "  no better than guessing: lower --lr if it stays so"
    return line


def bound_line(timing: Timing) -> str | None:
    """Why the predicted step is only a bound; None where it was simulated, or not predicted."""
    if timing.step_kind is not PredictionKind.BOUND:
        return None
    return f"the step on {timing.machine} is a bound, not simulated: {timing.step_reason}"
