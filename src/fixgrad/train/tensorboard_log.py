"""Scalars of a run for TensorBoard."""

from pathlib import Path

from fixgrad.train.epoch_tally import EpochTally, headroom
from fixgrad.train.metrics import EpochMetrics
from fixgrad.train.trainer import StepReport, Trainer

#: Steps between two scalars of the training loss.
EVERY = 10


class TensorBoardLog:
    """Writes loss, rate, accuracies, densities, saturation, exponents, head-room and dead channels over the number of updates.

    Args:
        folder: of the event files.
        done: updates done before: what an earlier process wrote beyond them is not shown.
    """

    def __init__(self, folder: Path, done: int) -> None:
        # Imported here: TensorBoard takes about a second.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=done or None)
        self._tally = EpochTally()

    def close(self) -> None:
        """Write what is still buffered."""
        self._writer.close()

    def epoch_begins(self, epoch: int, steps: int) -> None:
        """Saturation is averaged over an epoch."""
        self._tally = EpochTally()

    def step_done(self, step: int, report: StepReport, images: int, rate: float) -> None:
        """Loss and rate, every few steps."""
        self._tally.add(report, images)
        if step % EVERY == 0:
            self._scalar("loss/step", report.loss, step)
            self._scalar("learning_rate", rate, step)

    def evaluation_begins(self, batches: int) -> None:
        """Nothing to write."""

    def batch_evaluated(self) -> None:
        """Nothing to write."""

    def pruned(self, epoch: int, trainer: Trainer) -> None:
        """The densities after the epoch tell."""

    def epoch_done(self, metrics: EpochMetrics, trainer: Trainer) -> None:
        """All that is measured in an epoch."""
        scalars = {
            "loss/epoch": metrics.loss,
            "accuracy/train": metrics.train_accuracy,
            "accuracy/test": metrics.test_accuracy,
            "kept/weights": metrics.weights_kept,
            "kept/macs": metrics.macs_kept,
            "overflows": float(len(metrics.overflows)),
            **{f"density/{name}": density for name, density in metrics.densities.items()},
            **{f"saturation/{name}": share for name, share in self._tally.saturation().items()},
            **{f"exponent/{name}": float(exponent) for name, exponent in trainer.exponents().items()},
            **{f"headroom/{name}": float(headroom(seen)) for name, seen in self._tally.ranges().items()},
            **{f"dead_channels/{name}": float(dead) for name, dead in _dead_channels(trainer).items()},
        }
        for name, value in scalars.items():
            self._scalar(name, value, metrics.step)
        self._writer.flush()

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)


def _dead_channels(trainer: Trainer) -> dict[str, int]:
    """Output channels without a live kernel, by layer that is pruned."""
    return {name.removesuffix(".weight"): int((~mask.any(axis=1)).sum()) for name, mask in trainer.masks().items()}
