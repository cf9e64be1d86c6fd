"""What is measured in an epoch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from fixgrad.errors import DataError


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """The results of one epoch: they follow from the plan alone, so they are part of a checkpoint (times are not).

    Attributes:
        epoch: from 1.
        step: updates done since the beginning of the run.
        loss: mean training loss in nats, measured while the weights were changing.
        train_accuracy: share of the epoch's training images that were right when they were met, 0 to 1.
        test_accuracy: share of the test set that is right after the epoch, 0 to 1.
        learning_rate: of the epoch's last step.
        weights_kept: share of the weights that are alive, 0 to 1.
        macs_kept: share of the training step's multiply-accumulates that are alive, 0 to 1.
        saturation: the largest share of a tensor's elements that saturated, on average over the epoch, 0 to 1.
        saturated: that tensor, ``activation/conv1`` or ``error/conv1``; empty if nothing saturated.
        overflows: accumulators that have left 32 bits since the run began, ``conv1/ff``.
        densities: share of each layer's kernels or elements that is alive.
    """

    epoch: int
    step: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    learning_rate: float
    weights_kept: float
    macs_kept: float
    saturation: float
    saturated: str
    overflows: tuple[str, ...]
    densities: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {**asdict(self), "overflows": list(self.overflows), "densities": dict(self.densities)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EpochMetrics":
        """The metrics that `to_dict` wrote; further keys are ignored.

        Raises:
            DataError: a field is missing.
        """
        try:
            known = {field.name: values[field.name] for field in fields(cls)}
        except (KeyError, TypeError) as missing:
            raise DataError(f"the metrics of an epoch lack {missing}") from None
        return cls(**{**known, "overflows": tuple(known["overflows"])})


class PredictionKind(StrEnum):
    """Where a predicted time comes from."""

    SIMULATED = "simulated"
    """The compiled step was simulated."""
    BOUND = "bound"
    """No schedule is faster; how much slower one is, nobody has computed."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What an epoch took here, and what a step would take on the modelled machine.

    Attributes:
        seconds: of training and evaluation, by the clock.
        step_seconds: predicted time of one training step on `machine`; None without a prediction.
        machine: name of the machine.
        step_kind: where `step_seconds` comes from.
        step_reason: why it was not simulated, in one line; empty where it was.
    """

    seconds: float
    step_seconds: float | None = None
    machine: str | None = None
    step_kind: PredictionKind | None = None
    step_reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return asdict(self)
