"""What a training step leaves behind: tensors while they are needed, measures, and the report."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fixgrad.network.step_table import StepTable
from fixgrad.network.trace import Trace
from fixgrad.numbers import bit_length
from fixgrad.train.kernels.pointwise import combined, on_host
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

    def on_host(self) -> _Requantised:
        seen = on_host(combined(self.parts))
        bits = bit_length(seen.largest), self.frac
        return _Requantised(bits, seen.saturated / self.elements, seen.overflow)


@dataclass(slots=True)
class StepRecord:
    """Tensors of one pass that are still needed (or all of them, where `keep` says so), and what was measured."""

    keep: bool
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
    loss: float = 0.0
    correct: int = 0

    def note_overflow(self, name: str, flag: Tensor | None) -> None:
        if flag is not None:
            self.overflows.setdefault(name, []).append(flag)

    def report(self) -> Trace:
        """What was measured, and the tensors where they were kept, with channels first."""
        forward = {name: seen.on_host() for name, seen in self.forward.items()}
        backward = {name: seen.on_host() for name, seen in self.backward.items()}
        overflows = {name for name, flags in self.overflows.items() if any(bool(flag) for flag in flags)}
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
            loss=self.loss,
            correct=self.correct,
        )


def to_numpy(tensors: dict[str, Tensor]) -> dict[str, NDArray[np.integer]]:
    """Copies with channels first."""
    return {name: channels_first(tensor.cpu().numpy()).copy() for name, tensor in tensors.items()}
