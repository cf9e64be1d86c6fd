"""A run's plan: everything that decides the bits of its checkpoints, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fixgrad.errors import DataError, UsageError
from fixgrad.network import Network, Recipe
from fixgrad.train.pruning_schedule import Budget, PruningOptions

MAX_EPOCHS = 9999  #: what the name of a checkpoint has room for


class Arithmetic(StrEnum):
    """In what numbers a run trains."""

    FIXED = "fixed-point"
    FLOAT = "float"
    BFLOAT16 = "float with bfloat16 products"

    @property
    def is_float(self) -> bool:
        """Whether it is a baseline."""
        return self is not Arithmetic.FIXED


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained, on what, and how. Two runs of equal plans from equal weights end with equal bits.

    Attributes:
        network: what is trained.
        arithmetic: fixed point, or the float baseline.
        recipe: widths, rounding, optimiser and seed. The baseline uses its optimiser and its seed.
        epochs: passes over the training set, 1 to 9,999.
        batch: images in a step.
        steps_per_epoch: full batches in the training set.
        prune_epoch: epochs that are trained dense before the masks are set; None: never pruned.
        densities: share of the kernels (CONV) or elements (FC) that each layer keeps; None: never pruned.
        data: name of the data set.
        fingerprint: of its pixels and labels, and of what is done with them (`data_fingerprint`).
        pruning: budget, gradual schedule, exchange and balance; None: each layer is pruned to its density at once.
        origin: SHA-256 of the checkpoint that the run begins with, where it is not one of this very plan; None: initial weights.

    Raises:
        UsageError: a number out of range.
    """

    network: Network
    arithmetic: Arithmetic
    recipe: Recipe
    epochs: int
    batch: int
    steps_per_epoch: int
    prune_epoch: int | None
    densities: Mapping[str, float] | None
    data: str
    fingerprint: str
    pruning: PruningOptions | None = None
    origin: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= MAX_EPOCHS:
            raise UsageError(f"epochs is {self.epochs}: choose 1 to {MAX_EPOCHS}")
        if (self.prune_epoch is None) != (self.densities is None and self._budget is None):
            raise UsageError("a prune epoch and a density belong together: give both or neither")
        if self.prune_epoch is not None and not 0 <= self.prune_epoch < self.epochs:
            raise UsageError(
                f"prune epoch is {self.prune_epoch}, but the run has {self.epochs} epochs: choose 0 to {self.epochs - 1}, "
                "so that something is trained with the masks"
            )
        if self.pruning is not None:
            self._check_pruning(self.pruning)

    @property
    def _budget(self) -> Budget | None:
        return None if self.pruning is None else self.pruning.budget

    def _check_pruning(self, options: PruningOptions) -> None:
        if self.prune_epoch is None:
            raise UsageError("how to prune was said, but not how much: give a density too")
        if self.densities is not None and options.budget is not None:
            raise UsageError("a budget for all layers and a density for each exclude each other: give one of them")
        if options.until is not None and not self.prune_epoch < options.until < self.epochs:
            raise UsageError(
                f"gradual pruning ends after {options.until} epochs: choose {self.prune_epoch + 1} to {self.epochs - 1}, after the "
                "prune epoch and before the end"
            )
        done = self.prune_epoch if options.until is None else options.until
        if options.exchange and not done < options.exchange_until <= self.epochs:
            raise UsageError(f"regrowth ends after {options.exchange_until} epochs: choose {done + 1} to {self.epochs}")

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def prunes(self) -> bool:
        """Whether the run sets masks."""
        return self.prune_epoch is not None

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values from which `from_dict` makes an equal plan."""
        values = {
            "network": self.network.to_dict(),
            "arithmetic": str(self.arithmetic),
            "recipe": self.recipe.to_dict(),
            "epochs": self.epochs,
            "batch": self.batch,
            "steps_per_epoch": self.steps_per_epoch,
            "prune_epoch": self.prune_epoch,
            "densities": None if self.densities is None else dict(self.densities),
            "data": self.data,
            "fingerprint": self.fingerprint,
        }
        # Left out where they say nothing, so that plain runs keep the bytes of their checkpoints.
        if self.pruning is not None:
            values["pruning"] = self.pruning.to_dict()
        if self.origin is not None:
            values["origin"] = self.origin
        return values

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Plan":
        """The plan that `to_dict` wrote.

        Raises:
            DataError: it is none.
        """
        try:
            values = dict(fields)
            values["network"] = Network.from_dict(values["network"])
            values["recipe"] = Recipe.from_dict(values["recipe"])
            values["arithmetic"] = Arithmetic(values["arithmetic"])
            if values.get("pruning") is not None:
                values["pruning"] = PruningOptions.from_dict(values["pruning"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as problem:
            raise DataError(f"the plan of the run cannot be read: {problem}") from None
