"""Checkpoints: all that a run has to remember after an epoch, in one file that cannot be half written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixgrad.errors import DataError
from fixgrad.network.state_arrays import StateArrays
from fixgrad.train.metrics import EpochMetrics
from fixgrad.train.plan import Plan
from fixgrad.train.sealed_file import read_sealed, write_sealed

#: Raised when a file of an older version can no longer be read.
FORMAT_VERSION = 1
SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run between two epochs. No time and no path is in it: equal runs write equal bytes.

    Attributes:
        plan: of the run.
        epoch: epochs done; 0 before the first step.
        history: metrics of each of them.
        state: weights, momenta, masks and scales, see `Trainer.snapshot`.
    """

    plan: Plan
    epoch: int
    history: tuple[EpochMetrics, ...]
    state: StateArrays


def checkpoint_name(epoch: int) -> str:
    """``epoch-0003``"""
    return f"epoch-{epoch:04d}"


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically, with a checksum."""
    values = {
        "format_version": FORMAT_VERSION,
        "plan": checkpoint.plan.to_dict(),
        "epoch": checkpoint.epoch,
        "history": [metrics.to_dict() for metrics in checkpoint.history],
        "state": checkpoint.state.values,
    }
    write_sealed(path, checkpoint.state.arrays, values)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint.

    Raises:
        DataError: it is missing, cut short, altered, or of another format; the message names the file.
    """
    sealed = read_sealed(path)
    try:
        return _checkpoint(sealed.arrays, sealed.values)
    except DataError as error:
        raise DataError(f"{path} is no checkpoint of this version: {error}") from None


def _checkpoint(arrays: dict[str, Any], values: Mapping[str, Any]) -> Checkpoint:
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(f"its format version is {version!r}, this program reads {FORMAT_VERSION}")
    try:
        plan, epoch, state = Plan.from_dict(values["plan"]), values["epoch"], values["state"]
        history = tuple(EpochMetrics.from_dict(metrics) for metrics in values["history"])
    except KeyError as missing:
        raise DataError(f"it lacks {missing}") from None
    if not isinstance(epoch, int) or len(history) != epoch or epoch > plan.epochs:
        raise DataError(f"it has {len(history)} epochs of metrics, is of epoch {epoch!r}, in a run of {plan.epochs}")
    return Checkpoint(plan, epoch, history, StateArrays(arrays, state))
