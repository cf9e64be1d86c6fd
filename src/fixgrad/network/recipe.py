"""How a network is trained: widths, rounding, and the optimiser's constants. Immutable, and the same for every executor."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from fixgrad.errors import UsageError
from fixgrad.numbers import Rounding

#: Width of the operands of every multiplier.
OPERAND_BITS = 8
#: Fractional bits of the momentum coefficient in hardware: one 24 x 8 multiplier.
MOMENTUM_FRAC = 8
#: Bits of the mantissa of the learning rate and of the weight decay.
COEFFICIENT_BITS = 8


class Optimiser(StrEnum):
    """The update rule."""

    SGD = "sgd"  #: momentum SGD, weight decay as a part of the gradient (L2)
    ADAM = "adam"  #: Adam, weight decay likewise
    ADAMW = "adamw"  #: Adam, weight decay beside it (decoupled)

    @property
    def is_adaptive(self) -> bool:
        """Whether it keeps a second moment of each weight."""
        return self is not Optimiser.SGD


class Schedule(StrEnum):
    """How the learning rate falls after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"  #: to zero at the last step
    STEP = "step"  #: halved every tenth of the run


@dataclass(frozen=True, slots=True)
class Recipe:
    """A fixed-point training process.

    Attributes:
        stored_bits: width of a stored weight: 16, 24 or 32. The 8-bit operand is its rounded top.
        momentum_bits: width of the stored momentum of SGD.
        error_rounding: how accumulators become errors. (Activations are always rounded to nearest.)
        update_rounding: how gradients become momentum, and momentum becomes a change of the stored weight. (Moments of Adam are
            always rounded to nearest: with an exponent of their own they lose nothing that matters.)
        learning_rate: peak rate, for the mean loss of a batch.
        momentum: in [0, 1), held with 8 fractional bits: of SGD, or Adam's decay of the first moment (beta1).
        weight_decay: L2 coefficient; of adamw, the decay that the rate multiplies.
        schedule: of the learning rate.
        warmup_steps: over which the rate rises linearly from 0.
        seed: of every random decision of the run.
        optimiser: the update rule.
        beta2: decay of Adam's second moment, in [0, 1), held with 16 fractional bits.
        epsilon: what Adam adds to the root of the second moment of the mean gradient.
    """

    stored_bits: int = 24
    momentum_bits: int = 24
    error_rounding: Rounding = Rounding.STOCHASTIC
    update_rounding: Rounding = Rounding.NEAREST
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = Schedule.LINEAR
    warmup_steps: int = 0
    seed: int = 0
    optimiser: Optimiser = Optimiser.SGD
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("error_rounding", "update_rounding"):
            object.__setattr__(self, name, Rounding(getattr(self, name)))
        object.__setattr__(self, "schedule", Schedule(self.schedule))
        object.__setattr__(self, "optimiser", Optimiser(self.optimiser))
        if self.stored_bits not in (16, 24, 32):
            raise UsageError(f"stored_bits is {self.stored_bits}: choose 16, 24 or 32")
        if not 16 <= self.momentum_bits <= 32:
            raise UsageError(f"momentum_bits is {self.momentum_bits}: choose 16 to 32")
        for name in ("learning_rate", "momentum", "weight_decay", "beta2", "epsilon"):
            value, high = getattr(self, name), 1e4 if name == "learning_rate" else 1.0
            if not (math.isfinite(value) and 0 <= value < high):
                raise UsageError(f"{name} is {value}: choose a number from 0 to below {high:g}")
        if self.warmup_steps < 0:
            raise UsageError(f"warmup_steps is {self.warmup_steps}: choose 0 or more")

    def rate_at(self, step: int, total_steps: int) -> float:
        """Learning rate of step `step` (from 0) of a run of `total_steps`."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule is Schedule.CONSTANT:
            return self.learning_rate
        left = max(total_steps - self.warmup_steps, 1)
        done = step - self.warmup_steps
        if self.schedule is Schedule.LINEAR:
            return self.learning_rate * max(left - done, 0) / left
        return math.ldexp(self.learning_rate, -(10 * done // left))

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        values = asdict(self)
        if not self.optimiser.is_adaptive:  # left out where it says nothing, so that runs of SGD keep the bytes of their checkpoints
            for name in ("optimiser", "beta2", "epsilon"):
                del values[name]
        return values

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Recipe":
        """The recipe that `to_dict` wrote."""
        try:
            return cls(**fields)
        except TypeError as problem:
            raise UsageError(f"recipe: {problem}") from None


class Coefficient(NamedTuple):
    """A non-negative constant as mantissa * 2**-shift, with an 8-bit mantissa."""

    mantissa: int
    shift: int

    @property
    def value(self) -> float:
        return math.ldexp(self.mantissa, -self.shift)


def quantise_coefficient(value: float, bits: int = COEFFICIENT_BITS) -> Coefficient:
    """The nearest mantissa * 2**-shift with a mantissa of exactly `bits` bits (0 for 0): within 2**-bits, relative."""
    if value == 0:
        return Coefficient(0, 0)
    fraction, exponent = math.frexp(value)
    mantissa = math.floor(math.ldexp(fraction, bits) + 0.5)
    if mantissa == 1 << bits:
        mantissa, exponent = mantissa >> 1, exponent + 1
    return Coefficient(mantissa, bits - exponent)


class UpdateConstants(NamedTuple):
    """The constants of one step's update: the same three multipliers for every weight.

    Attributes:
        momentum: mantissa with 8 fractional bits.
        rate: learning rate / batch size.
        decay: learning rate * weight decay.
    """

    momentum: int
    rate: Coefficient
    decay: Coefficient


def update_constants(recipe: Recipe, step: int, total_steps: int, batch: int) -> UpdateConstants:
    """The constants of step `step` for a (global) batch of `batch` images."""
    rate = recipe.rate_at(step, total_steps)
    return UpdateConstants(
        momentum=min(math.floor(math.ldexp(recipe.momentum, MOMENTUM_FRAC) + 0.5), (1 << MOMENTUM_FRAC) - 1),
        rate=quantise_coefficient(rate / batch),
        decay=quantise_coefficient(rate * recipe.weight_decay),
    )
