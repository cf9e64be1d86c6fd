"""The training loop: epochs of steps, pruning when its time has come, and a look at the test set after each epoch."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import FixgradError, UsageError
from fixgrad.train.collective import SINGLE, Collective, Share
from fixgrad.train.data import Batches, DataSource
from fixgrad.train.epoch_tally import EpochTally, TensorRange
from fixgrad.train.metrics import EpochMetrics
from fixgrad.train.plan import Plan
from fixgrad.train.pruning import density_of, macs_kept, weights_kept
from fixgrad.train.pruning_events import exchanged_masks, pruned_masks, schedule_of
from fixgrad.train.trainer import Codes, StepReport, Trainer

#: Images in a batch of the evaluation: it changes no result, only the memory.
EVALUATION_BATCH = 256
#: Training whose loss is so many times that of guessing has diverged: integers wrap and saturate, but never become NaN.
DIVERGED_LOSS = 10
#: A tensor of which this share saturates on average over an epoch holds signs rather than values.
DIVERGED_SATURATION = 0.5


class Watcher(Protocol):
    """Is told how a run goes."""

    def epoch_begins(self, epoch: int, steps: int) -> None:
        """Epoch `epoch` (from 1) of `steps` steps begins."""

    def step_done(self, step: int, report: StepReport, images: int, rate: float) -> None:
        """Update number `step` of the run (from 0) is done."""

    def evaluation_begins(self, batches: int) -> None:
        """The test set is next."""

    def batch_evaluated(self) -> None:
        """One batch of it is done."""

    def pruned(self, epoch: int, trainer: Trainer) -> None:
        """The masks were changed after `epoch` whole epochs."""

    def epoch_done(self, metrics: EpochMetrics, trainer: Trainer) -> None:
        """The epoch is over."""


class TrainingLoop:
    """Trains by a plan.

    Args:
        plan: what to do.
        data: what to do it on.
        trainer: who does it; after a resume, with the state of the epoch before.
        watchers: are told.
        collective: the workers of the run, of which this is one: each trains on its share of every batch.

    Raises:
        UsageError: a batch has fewer images than there are workers.
    """

    def __init__(
        self,
        plan: Plan,
        data: DataSource,
        trainer: Trainer,
        watchers: Sequence[Watcher] = (),
        collective: Collective = SINGLE,
    ) -> None:
        if plan.batch < collective.size:
            raise UsageError(
                f"a batch has {plan.batch} images, but the run {collective.size} workers: start at most one for each image"
            )
        self._collective = collective
        self._plan = plan
        self._data = data
        self._trainer = trainer
        self._watchers = watchers
        self._overflows: set[str] = set()
        self._pruning = schedule_of(plan)
        self._ranges: dict[str, TensorRange] = {}

    def calibrate(self) -> None:
        """Choose the first scales from the first batch of the run."""
        batch = self._batches(1).part(0, self._share.images)
        self._trainer.calibrate(batch.codes, batch.labels)

    def epochs(self, history: Sequence[EpochMetrics] = ()) -> Iterator[EpochMetrics]:
        """Train the epochs that follow `history`, and yield the metrics of each as it ends.

        Raises:
            FixgradError: training diverged.
        """
        if history:
            self._overflows = set(history[-1].overflows)
        for epoch in range(len(history) + 1, self._plan.epochs + 1):
            self._prune(epoch, (epoch - 1) * self._plan.steps_per_epoch)
            tally = self._train(epoch)
            correct = self._evaluate()
            metrics = self._metrics(epoch, tally, correct / len(self._data.test))
            for watcher in self._watchers:
                watcher.epoch_done(metrics, self._trainer)
            yield metrics

    @property
    def ranges(self) -> dict[str, TensorRange]:
        """What the last epoch saw of each requantised tensor; empty in float."""
        return self._ranges

    @property
    def _share(self) -> Share:
        """What this worker trains on of each batch: training batches are full."""
        return self._collective.share(self._plan.batch)

    def _batches(self, epoch: int) -> Batches:
        return self._data.train_batches(self._plan.batch, seed=self._plan.recipe.seed, epoch=epoch - 1)

    def _prune(self, epoch: int, step: int) -> None:
        """Prune before step `step`, which is of `epoch`, where the schedule says so."""
        progress = None if self._pruning is None else self._pruning.progress_before(step)
        if progress is None:
            return
        trainer = self._trainer
        trainer.prune(pruned_masks(self._plan, progress, trainer.weights(), trainer.masks()))
        self._tell_masks(epoch - 1)

    def _step(self, codes: Codes, labels: Codes, epoch: int, step: int) -> StepReport:
        """A step, and the exchange of kernels that its gradients decide."""
        share = 0.0 if self._pruning is None else self._pruning.exchanged_after(step)
        if not share:
            return self._trainer.step(codes, labels)
        trainer = self._trainer
        trainer.watch_gradients()
        report = trainer.step(codes, labels)
        trainer.set_masks(exchanged_masks(share, trainer.weights(), trainer.take_gradients(), trainer.masks()))
        self._tell_masks(epoch - 1)
        return report

    def _tell_masks(self, epochs_done: int) -> None:
        for watcher in self._watchers:
            watcher.pruned(epochs_done, self._trainer)

    def _train(self, epoch: int) -> EpochTally:
        plan, tally = self._plan, EpochTally()
        for watcher in self._watchers:
            watcher.epoch_begins(epoch, plan.steps_per_epoch)
        batches, images = self._batches(epoch), self._share.images
        for number in range(len(batches)):
            batch, step = batches.part(number, images), (epoch - 1) * plan.steps_per_epoch + number
            if number:
                self._prune(epoch, step)
            report = self._step(batch.codes, batch.labels, epoch, step)
            tally.add(report, plan.batch)
            rate = plan.recipe.rate_at(step, plan.total_steps)
            for watcher in self._watchers:
                watcher.step_done(step, report, plan.batch, rate)
        with self._collective.together():
            _refuse_divergence(epoch, tally, plan.network.classes)
        return tally

    def _evaluate(self) -> int:
        """Images of the test set that are right."""
        batches, correct = self._data.test_batches(EVALUATION_BATCH), 0
        for watcher in self._watchers:
            watcher.evaluation_begins(len(batches))
        for number in range(len(batches)):
            share = self._collective.share(batches.size(number))
            if share.length:
                batch = batches.part(number, share.images)
                correct += count_correct(self._trainer.predict(batch.codes), batch.labels)
            for watcher in self._watchers:
                watcher.batch_evaluated()
        return sum(self._collective.gather(correct))

    def _metrics(self, epoch: int, tally: EpochTally, test_accuracy: float) -> EpochMetrics:
        plan, masks = self._plan, self._trainer.masks()
        saturated, saturation = tally.most_saturated()
        self._ranges = tally.ranges()
        self._overflows |= tally.overflows
        done = epoch * plan.steps_per_epoch
        return EpochMetrics(
            epoch=epoch,
            step=done,
            loss=tally.loss,
            train_accuracy=tally.accuracy,
            test_accuracy=test_accuracy,
            learning_rate=plan.recipe.rate_at(done - 1, plan.total_steps),
            weights_kept=weights_kept(plan.network, masks),
            macs_kept=macs_kept(plan.network, masks),
            saturation=saturation,
            saturated=saturated,
            overflows=tuple(sorted(self._overflows)),
            densities={layer.name: density_of(masks, layer) for layer in plan.network.mac_layers},
        )


def guessing_loss(classes: int) -> float:
    """Cross-entropy of equal probabilities, in nats."""
    return math.log(classes)


def count_correct(logits: NDArray[Any], labels: NDArray[np.integer[Any]]) -> int:
    """Images whose largest logit (the first of equals) is the label's; logits [batch, classes], labels [batch]."""
    return int((logits.argmax(axis=1) == labels).sum())


def _refuse_divergence(epoch: int, tally: EpochTally, classes: int) -> None:
    name, share = tally.most_saturated()
    limit = DIVERGED_LOSS * guessing_loss(classes)
    if share >= DIVERGED_SATURATION:
        what = f"{100 * share:.0f} % of {name} saturates (limit {100 * DIVERGED_SATURATION:.0f} %)"
        if tally.overflows:
            what += f", {', '.join(sorted(tally.overflows))} left 32 bits"
    elif tally.loss > limit:
        what = f"the mean loss is {tally.loss:.4g} (limit {limit:.4g})"
        tensor, powers = tally.widest()
        if tensor:
            what += f", and the range of {tensor} changed most, by 2^{powers}"
    else:
        return
    raise FixgradError(f"training diverged in epoch {epoch}: {what}; lower --lr or raise --warmup")
