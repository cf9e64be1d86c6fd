"""The smallest densities that lose little accuracy, found on images that were held out of the training set.

1. *Scan*: each layer alone is pruned, step by step along a ladder of densities, until it loses more than is allowed.
2. *Bisection*: of all layers at once, each to the lowest rung at which it alone loses at most t, for the largest t that holds.
3. *Greedy descent*: one layer goes one rung down, those first that save the most multiply-accumulates, as long as it holds.

Every answer was evaluated as a whole, in the fixed-point arithmetic of the run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError, UsageError
from fixgrad.network import MacLayer
from fixgrad.train.checkpoint import Checkpoint
from fixgrad.train.data import DataSource
from fixgrad.train.loop import EVALUATION_BATCH
from fixgrad.train.pruning import density_of, macs_kept, magnitude_masks, training_macs, weights_kept
from fixgrad.train.request import RunRequest, data_fingerprint, open_request_data
from fixgrad.train.run import resumed_trainer
from fixgrad.train.run_folder import RunFolder
from fixgrad.train.trainer import Trainer

BoolArray = NDArray[np.bool_]
Densities = dict[str, float]
#: Called with (what is tried, evaluations done, evaluations at most).
SearchProgress = Callable[[str, int, int], None]
#: Densities that are tried.
LADDER = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02)
#: A normal value is below so many standard deviations with 95 %.
ONE_SIDED_95 = 1.645


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy lost between two models on the same images.

    Attributes:
        images: compared.
        lost, gained: images that only the first, or only the second, got right.
    """

    images: int
    lost: int
    gained: int

    @property
    def loss(self) -> float:
        """Share of the images lost, net; negative: gained."""
        return (self.lost - self.gained) / self.images

    @property
    def upper(self) -> float:
        """The loss on all images of this kind is below this with 95 % confidence.

        The difference of paired shares is nearly normal, of variance (b + c - (b - c)^2 / n) / n^2 (McNemar's table); where no
        image differs, 3 / n (rule of three).
        """
        net = self.lost - self.gained
        error = sqrt(max(self.lost + self.gained - net * net / self.images, 0.0)) / self.images
        return max(self.loss + ONE_SIDED_95 * error, 3 / self.images if self.lost + self.gained == 0 else -1.0)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What `search` found.

    Attributes:
        densities: by layer.
        difference: from the model as the checkpoint has it, on the validation images.
        scan: (density, loss) of each layer alone.
        accuracy: of the checkpoint's model on the validation images, 0 to 1.
        weights_kept, macs_kept: shares, 0 to 1.
        evaluations: models tried: each was a chance to fit the validation images, see docs/pruning.md.
    """

    densities: Mapping[str, float]
    difference: Difference
    scan: Mapping[str, Sequence[tuple[float, float]]]
    accuracy: float
    weights_kept: float
    macs_kept: float
    evaluations: int

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        difference = {**asdict(self.difference), "loss": self.difference.loss, "loss_below_with_95_percent": self.difference.upper}
        return {
            "densities": dict(self.densities),
            "validation_accuracy": self.accuracy,
            "difference": difference,
            "weights_kept": self.weights_kept,
            "macs_kept": self.macs_kept,
            "evaluations": self.evaluations,
            "scan": {name: [list(point) for point in points] for name, points in self.scan.items()},
        }


@dataclass(frozen=True, slots=True)
class SearchCase:
    """A checkpoint and the images to judge by.

    Attributes:
        saved: the model.
        data: with validation images.
        recover: training steps after pruning, before the model is judged.
    """

    saved: Checkpoint
    data: DataSource
    recover: int = 0

    def __post_init__(self) -> None:
        left = self.saved.plan.total_steps - self.saved.epoch * self.saved.plan.steps_per_epoch
        if not 0 <= self.recover <= left:
            raise UsageError(
                f"{self.recover} steps to recover after {self.saved.epoch} epochs: choose 0 to {left}, what is left of the run, "
                "or an earlier checkpoint"
            )

    def trainer(self, densities: Mapping[str, float]) -> Trainer:
        """The model pruned to the densities, and trained on for `recover` steps of its run."""
        plan = self.saved.plan
        trainer = resumed_trainer(plan, self.saved.state)
        trainer.prune(magnitude_masks(trainer.weights(), densities, trainer.masks()))
        for number in range(self.recover):
            epoch, step = divmod(self.saved.epoch * plan.steps_per_epoch + number, plan.steps_per_epoch)
            batch = self.data.train_batches(plan.batch, seed=plan.recipe.seed, epoch=epoch).part(step, slice(0, plan.batch))
            trainer.step(batch.codes, batch.labels)
        return trainer

    def correct(self, trainer: Trainer) -> BoolArray:
        """Which validation images it gets right."""
        batches, found = self.data.validation_batches(EVALUATION_BATCH), []
        for number in range(len(batches)):
            batch = batches.part(number, slice(0, batches.size(number)))
            found.append(trainer.predict(batch.codes).argmax(axis=1) == batch.labels)
        return np.concatenate(found)


def open_case(path: Path, checkpoint: str | None = None, recover: int = 0, data_dir: str | None = None) -> SearchCase:
    """The checkpoint of a run, and its data.

    Raises:
        UsageError: there is no such run or checkpoint, or it held no images out of its training.
        DataError: a file is damaged, or the data are not those of the run.
    """
    folder = RunFolder.open(path)
    saved = folder.load(checkpoint)
    try:
        request = RunRequest.from_dict(folder.config()["request"])
    except KeyError as missing:
        raise DataError(f"{path}/config.json lacks {missing}") from None
    if request.validation is None:
        raise UsageError(
            f"{path} has trained on all its training images, and the test set must stay unseen: train with --hold-out 10, which "
            "keeps 10 % of the training images apart, and search on that run"
        )
    data = open_request_data(request if data_dir is None else request.moved_to(data_dir))
    if data_fingerprint(data) != saved.plan.fingerprint:
        raise DataError(f"the images, labels or augmentation of {data.name} are not those that {path} was begun with")
    return SearchCase(saved, data, recover)


def search(
    case: SearchCase, max_loss: float = 0.01, confident: bool = False, progress: SearchProgress = lambda what, done, most: None
) -> SearchResult:
    """The smallest densities whose loss of accuracy on the validation images stays within `max_loss`.

    Args:
        max_loss: share of the images, 0.01: one point.
        confident: whether the upper bound of the loss must stay within it, not just the loss.

    Raises:
        UsageError: `max_loss` is not between 0 and 1.
    """
    if not 0 < max_loss < 1:
        raise UsageError(f"--max-loss is {100 * max_loss:g} points: choose above 0 and below 100")
    return _Search(case, max_loss, confident, progress).result()


class _Search:
    def __init__(self, case: SearchCase, max_loss: float, confident: bool, progress: SearchProgress) -> None:
        self._case, self._limit, self._confident, self._progress = case, max_loss, confident, progress
        self._network = case.saved.plan.network
        self._layers = self._network.mac_layers
        masks = resumed_trainer(case.saved.plan, case.saved.state).masks()
        self._start: Densities = {layer.name: density_of(masks, layer) for layer in self._layers}
        self._known: dict[tuple[float, ...], Difference] = {}
        self._rungs = {name: (now, *(rung for rung in LADDER if rung < now)) for name, now in self._start.items()}
        # The scan, the bisection, and the descent.
        self._most = sum(len(rungs) - 1 for rungs in self._rungs.values()) + 2 * len(LADDER) + 2 * len(self._layers)
        self._base = case.correct(case.trainer(self._start))

    def result(self) -> SearchResult:
        scan = {layer.name: list(self._scan(layer)) for layer in self._layers}
        found = self._descend(self._bisect(scan))
        masks = self._case.trainer(found).masks()
        return SearchResult(
            densities=found,
            difference=self._difference(found, "the result"),
            scan=scan,
            accuracy=float(self._base.mean()),
            weights_kept=weights_kept(self._network, masks),
            macs_kept=macs_kept(self._network, masks),
            evaluations=len(self._known),
        )

    def _difference(self, densities: Densities, what: str) -> Difference:
        key = tuple(densities.values())
        if key not in self._known:
            self._progress(what, len(self._known), max(self._most, len(self._known) + 1))
            right = self._case.correct(self._case.trainer(densities))
            lost, gained = int((self._base & ~right).sum()), int((right & ~self._base).sum())
            self._known[key] = Difference(len(right), lost, gained)
        return self._known[key]

    def _judged(self, difference: Difference) -> float:
        return difference.upper if self._confident else difference.loss

    def _holds(self, densities: Densities, what: str) -> bool:
        return densities == self._start or self._judged(self._difference(densities, what)) <= self._limit

    def _scan(self, layer: MacLayer) -> Iterator[tuple[float, float]]:
        """Density and loss of the layer alone, down to the first that loses too much."""
        yield self._start[layer.name], 0.0
        for rung in self._rungs[layer.name][1:]:
            loss = self._judged(self._difference({**self._start, layer.name: rung}, f"{layer.name} at {rung:g}"))
            yield rung, loss
            if loss > self._limit:
                return

    def _bisect(self, scan: Mapping[str, Sequence[tuple[float, float]]]) -> Densities:
        """Each layer at the lowest rung at which it alone loses at most t, for the largest t that holds for all together."""
        losses = sorted({max(loss, 0.0) for points in scan.values() for _, loss in points if loss <= self._limit})
        best, low, high = self._start, 0, len(losses) - 1
        while low <= high:
            middle = (low + high) // 2
            tried = {name: _lowest(points, losses[middle]) for name, points in scan.items()}
            if self._holds(tried, f"all layers, each losing at most {100 * losses[middle]:.2f} points"):
                best, low = tried, middle + 1
            else:
                high = middle - 1
        return best

    def _descend(self, densities: Densities) -> Densities:
        """One layer one rung down, as long as that holds, until no layer can go further down."""
        while (lower := self._descent(densities)) != densities:
            densities = lower
        return densities

    def _descent(self, densities: Densities) -> Densities:
        """The same once: a layer that did not hold is left alone."""
        closed: set[str] = set()
        while (step := self._next_step(densities, closed)) is not None:
            name, rung = step
            if self._holds({**densities, name: rung}, f"{name} down to {rung:g}"):
                densities = {**densities, name: rung}
            else:
                closed.add(name)
        return densities

    def _next_step(self, densities: Densities, closed: set[str]) -> tuple[str, float] | None:
        """The layer and its next rung that save the most multiply-accumulates."""
        steps = []
        for layer in self._layers:
            lower = [rung for rung in self._rungs[layer.name] if rung < densities[layer.name]]
            if lower and layer.name not in closed:
                steps.append(((densities[layer.name] - lower[0]) * training_macs(self._network, layer), layer.name, lower[0]))
        if not steps:
            return None
        _, name, rung = max(steps, key=lambda step: step[0])
        return name, rung


def _lowest(points: Sequence[tuple[float, float]], tolerance: float) -> float:
    """The lowest density down to which the losses of a scan stay within the tolerance."""
    lowest = points[0][0]
    for density, loss in points:
        if loss > tolerance:
            break
        lowest = density
    return lowest
