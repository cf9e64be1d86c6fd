"""What a training step leaves behind: tensors while they are needed, measures, and the report."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fixgrad.network.cross_entropy import mean_of_loss_sum
from fixgrad.network.step_table import StepTable
from fixgrad.network.trace import Trace
from fixgrad.numbers import bit_length
from fixgrad.train.collective import SINGLE, Collective
from fixgrad.train.kernels.pointwise import Placement, combined, on_host
from fixgrad.train.layers.batch_norm import Normalised
from fixgrad.train.layers.parameter import channels_first


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step measured. The names are those of `fixgrad.network.Trace`.

    Attributes:
        loss: mean cross-entropy of the batch, in nats.
        correct: images whose largest logit is the label's.
        saturated: share of saturated elements of each requantised tensor: ``activation/conv1``, ``error/conv1``.
        overflows: accumulators that left 32 bits in this step: ``conv1/ff``.
        forward_bits, error_bits: (bits of the largest accumulator, its fractional bits) of each requantised tensor.
        trace: every tensor of the step, where it was asked for.
    """

    loss: float
    correct: int
    saturated: dict[str, float]
    overflows: set[str]
    forward_bits: dict[str, tuple[int, int]]
    error_bits: dict[str, tuple[int, int]]
    trace: Trace | None = None


class _Requantised(NamedTuple):
    """What was seen of one requantised tensor: bits and scale of its accumulators, share that saturated, overflow."""

    bits: tuple[int, int]
    saturated: float
    overflow: bool


class Measurement(NamedTuple):
    """The measures of the parts of one requantised tensor, with the scale of its accumulators and its elements."""

    parts: list[Tensor]
    frac: int
    elements: int



@dataclass(slots=True)
class StepRecord:
    """Tensors of one pass that are still needed (or all of them, where `keep` says so), and what was measured.

    Attributes:
        place: where this worker's images lie in the global batch.
        batch: how many they are.
        sent: error codes, with their fractional bits, that the readers of a tensor of several have sent so far.
        normalised: what each batch normalisation found on its way forward.
        loss_sum, correct: over these images (see `fixgrad.network.cross_entropy`).
    """

    keep: bool
    place: Placement
    batch: int
    table: StepTable | None = None
    activations: dict[str, Tensor] = field(default_factory=dict)
    fracs: dict[str, int] = field(default_factory=dict)
    errors: dict[str, Tensor] = field(default_factory=dict)
    error_fracs: dict[str, int] = field(default_factory=dict)
    gradients: dict[str, NDArray[np.integer]] = field(default_factory=dict)
    forward: dict[str, Measurement] = field(default_factory=dict)
    backward: dict[str, Measurement] = field(default_factory=dict)
    overflows: dict[str, list[Tensor]] = field(default_factory=dict)
    sent: dict[str, list[tuple[Tensor, int]]] = field(default_factory=dict)
    normalised: dict[str, Normalised] = field(default_factory=dict)
    loss_sum: int = 0
    correct: int = 0

    def note_overflow(self, name: str, flag: Tensor | None) -> None:
        if flag is not None:
            self.overflows.setdefault(name, []).append(flag)

    def mean_loss(self) -> float:
        """Mean loss of this worker's images, in nats."""
        return mean_of_loss_sum(self.loss_sum, self.batch)

    def report(self, collective: Collective = SINGLE) -> Trace:
        """What all workers measured, and this one's tensors where they were kept, with channels first."""
        forward = self._over_workers(self.forward, collective)
        backward = self._over_workers(self.backward, collective)
        overflows = self._overflows(collective)
        loss, correct = collective.sum_(torch.tensor((self.loss_sum, self.correct))).tolist()
        overflows |= {f"{name}/ff" for name, seen in forward.items() if seen.overflow}
        saturated = {f"activation/{name}": seen.saturated for name, seen in forward.items()}
        saturated |= {f"error/{name}": seen.saturated for name, seen in backward.items()}
        return Trace(
            activations=to_numpy(self.activations) if self.keep else {},
            fracs=self.fracs,
            errors=to_numpy(self.errors) if self.keep else {},
            error_fracs=self.error_fracs,
            gradients=self.gradients,
            forward_bits={name: seen.bits for name, seen in forward.items()},
            error_bits={name: seen.bits for name, seen in backward.items()},
            saturated=saturated,
            overflows=overflows,
            loss=mean_of_loss_sum(loss, self.place.batch),
            correct=correct,
        )

    def _over_workers(self, measurements: dict[str, Measurement], collective: Collective) -> dict[str, _Requantised]:
        """The measures of the global batch; they leave the device in one copy."""
        stacked = torch.stack([combined(seen.parts) for seen in measurements.values()]).cpu()
        largest = collective.max_(stacked.clone())
        saturated = collective.sum_(stacked[:, 1].contiguous()).tolist()
        found = {}
        for (name, seen), measure, count in zip(measurements.items(), largest, saturated, strict=True):
            elements = seen.elements // self.batch * self.place.batch
            high = on_host(measure)
            found[name] = _Requantised((bit_length(high.largest), seen.frac), count / elements, high.overflow)
        return found

    def _overflows(self, collective: Collective) -> set[str]:
        """Accumulators that left 32 bits on any worker. Which can is a matter of the lengths of sums, the same everywhere."""
        if not self.overflows:
            return set()
        flags = torch.stack([torch.stack(flags).any() for flags in self.overflows.values()])
        return {name for name, flag in zip(self.overflows, collective.or_(flags.cpu()).tolist(), strict=True) if flag}


def to_numpy(tensors: dict[str, Tensor]) -> dict[str, NDArray[np.integer]]:
    """Copies with channels first."""
    return {name: channels_first(tensor.cpu().numpy()).copy() for name, tensor in tensors.items()}
