"""The update rules of docs/arithmetic.md in real numbers, for the float baseline."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from fixgrad.network import Optimiser, Recipe


class FloatRule(Protocol):
    """How a parameter moves.

    Attributes:
        moments: what the rule remembers of each parameter: tensors by the name of a checkpoint's array, and the parameter's.
        steps: the number of updates that they hold.
    """

    moments: dict[str, dict[str, Tensor]]
    steps: int

    def update(self, name: str, parameter: Tensor, gradient: Tensor, rate: float) -> None:
        """One update of one parameter in place; the gradient is 0 where it is dead."""

    def values(self) -> dict[str, int]:
        """What a checkpoint holds beside the moments."""


def float_rule(recipe: Recipe, parameters: Mapping[str, Tensor]) -> FloatRule:
    """The rule of a recipe, with moments of zero."""
    return (FloatAdam if recipe.optimiser.is_adaptive else FloatSGD)(recipe, parameters)


def _zeros(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}


class FloatSGD:
    """u <- momentum u + rate (gradient + decay w), w <- w - u."""

    def __init__(self, recipe: Recipe, parameters: Mapping[str, Tensor]) -> None:
        self._recipe = recipe
        self.steps = 0
        self.moments = {"momentum": _zeros(parameters)}

    def update(self, name: str, parameter: Tensor, gradient: Tensor, rate: float) -> None:
        """See `FloatRule`. A dead weight is 0, and so is its decay."""
        momentum = self.moments["momentum"][name]
        decayed = gradient.add(parameter, alpha=self._recipe.weight_decay)
        momentum.mul_(self._recipe.momentum).add_(decayed, alpha=rate)
        parameter.sub_(momentum)

    def values(self) -> dict[str, int]:
        """Nothing: no constant depends on the number of updates."""
        return {}


class FloatAdam:
    """m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g**2, w <- w - rate m^ / (sqrt(v^) + epsilon), without the bias of m and v.

    adam adds decay * w to the gradient, adamw subtracts rate * decay * w from the weight, as `torch.optim` does.
    """

    def __init__(self, recipe: Recipe, parameters: Mapping[str, Tensor]) -> None:
        self._recipe = recipe
        self.steps = 0
        self.moments = {"momentum": _zeros(parameters), "second_moment": _zeros(parameters)}

    def update(self, name: str, parameter: Tensor, gradient: Tensor, rate: float) -> None:
        """See `FloatRule`."""
        recipe, first, second = self._recipe, self.moments["momentum"][name], self.moments["second_moment"][name]
        if recipe.optimiser is Optimiser.ADAMW:
            parameter.mul_(1 - rate * recipe.weight_decay)
        else:
            gradient = gradient.add(parameter, alpha=recipe.weight_decay)
        first.mul_(recipe.momentum).add_(gradient, alpha=1 - recipe.momentum)
        second.mul_(recipe.beta2).addcmul_(gradient, gradient, value=1 - recipe.beta2)
        seen_first, seen_second = 1 - recipe.momentum ** (self.steps + 1), 1 - recipe.beta2 ** (self.steps + 1)
        root = (second / seen_second).sqrt_().add_(recipe.epsilon)
        parameter.addcdiv_(first, root, value=-rate / seen_first)

    def values(self) -> dict[str, int]:
        """The number of updates, by which the bias is corrected."""
        return {"moment_steps": self.steps}
