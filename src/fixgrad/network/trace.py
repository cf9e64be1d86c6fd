"""What one step produced: every tensor by name, and what the range detectors saw."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fixgrad.numbers import Accumulated, saturate

Codes = NDArray[np.integer]


@dataclass(slots=True)
class Trace:
    """Every tensor of one step.

    Attributes:
        activations: codes of each tensor: ``input`` and each layer's output.
        fracs: their fractional bits.
        errors: 8-bit codes of the error of each tensor, and of ``tensor@layer``, what a reader made for one of several.
        error_fracs: their fractional bits.
        gradients: 32-bit accumulators of each parameter's gradient, summed over the batch.
        forward_bits, error_bits: (bits of the largest accumulator, its fractional bits) of each requantised tensor.
        saturated: share of the elements of each requantised tensor that saturated: ``activation/conv1``, ``error/conv1``.
        overflows: accumulators that left 32 bits: ``conv1/ff``.
        sent: while errors go back, what each reader has sent to a tensor of several, with its fractional bits; empty behind.
        loss: mean cross-entropy, for people.
        correct: images of the batch whose largest logit (the first of equals) is the label's.
    """

    activations: dict[str, Codes] = field(default_factory=dict)
    fracs: dict[str, int] = field(default_factory=dict)
    errors: dict[str, Codes] = field(default_factory=dict)
    error_fracs: dict[str, int] = field(default_factory=dict)
    gradients: dict[str, Codes] = field(default_factory=dict)
    forward_bits: dict[str, tuple[int, int]] = field(default_factory=dict)
    error_bits: dict[str, tuple[int, int]] = field(default_factory=dict)
    saturated: dict[str, float] = field(default_factory=dict)
    overflows: set[str] = field(default_factory=set)
    sent: dict[str, list[tuple[Codes, int]]] = field(default_factory=dict)
    loss: float = 0.0
    correct: int = 0

    def accumulated(self, sums: Accumulated, name: str) -> NDArray[np.int32]:
        """The wrapped sums; notes an overflow under `name`."""
        if sums.overflow:
            self.overflows.add(name)
        return sums.values

    def saturate(self, wide: Codes, bits: int, name: str) -> NDArray[np.int64]:
        """Saturated codes; notes the share that saturated under `name`."""
        codes = saturate(wide, bits)
        self.saturated[name] = float((codes != wide).mean()) if codes.size else 0.0
        return codes
