"""Optimisers of a prepared model, with the interface of `torch.optim`: schedulers of PyTorch work on them.

The update itself is integer arithmetic (docs/arithmetic.md) and happens inside of the model; an optimiser decides its
constants. What it remembers of the weights, the moments, lies with them in the model's state.
"""

from collections.abc import Callable
from typing import Any

import torch

from fixgrad.errors import UsageError
from fixgrad.network import Optimiser
from fixgrad.train.prepared import PreparedModel
from fixgrad.train.step_record import StepReport


class IntegerOptimizer(torch.optim.Optimizer):
    """What the optimisers share: one group of all parameters, no closure, and the update inside of the model.

    Attributes:
        report: what the last step measured.
    """

    def __init__(self, net: PreparedModel, defaults: dict[str, Any]) -> None:
        if not isinstance(net, PreparedModel):
            raise UsageError(f"an optimiser of fixgrad takes the model that prepare() returns, not {type(net).__name__}")
        self._net = net
        self.report: StepReport | None = None
        super().__init__(list(net.module.parameters()), defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused, but for the one of all parameters.

        Raises:
            UsageError: there is one already.
        """
        if self.param_groups:
            raise UsageError("all parameters are trained alike: there is one group")
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update, from the last ``net.loss(images, labels).backward()``.

        Raises:
            UsageError: there was none since the last step, or a closure.
        """
        if closure is not None:
            raise UsageError("a step takes no closure: call net.loss(images, labels).backward() before it")
        self.report = self._net.update(**self._constants(self.param_groups[0]))

    def _constants(self, group: dict[str, Any]) -> dict[str, Any]:
        """The fields of the recipe that the optimiser sets."""
        raise NotImplementedError


class SGD(IntegerOptimizer):
    """Momentum SGD with weight decay on stored integers: u <- momentum u + lr (gradient + decay w), w <- w - u.

    The learning rate is inside of the momentum, which at a constant rate is `torch.optim.SGD`.

    Args:
        net: the prepared model. All of its parameters are trained alike: there is one group.
        lr: learning rate, for the mean loss of a batch; a scheduler may change it between two steps.
        momentum: from 0 to below 1, held with 8 fractional bits.
        weight_decay: L2 coefficient.

    Raises:
        UsageError: something else than a prepared model, or a number out of range.
    """

    def __init__(self, net: PreparedModel, lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(net, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def _constants(self, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "optimiser": Optimiser.SGD,
            "learning_rate": float(group["lr"]),
            "momentum": float(group["momentum"]),
            "weight_decay": float(group["weight_decay"]),
        }


class Adam(IntegerOptimizer):
    """Adam on stored integers, as `torch.optim.Adam`: both moments are integers with an exponent for each element.

    Where the model was trained by `SGD` before, the moments begin at zero.

    Args:
        net: the prepared model. All of its parameters are trained alike: there is one group.
        lr: learning rate; a scheduler may change it between two steps.
        betas: decays of the two moments, from 0 to below 1, held with 8 and 16 fractional bits.
        eps: is added to the root of the second moment of the batch's mean gradient.
        weight_decay: L2 coefficient, a part of the gradient.

    Raises:
        UsageError: something else than a prepared model, or a number out of range.
    """

    _optimiser = Optimiser.ADAM

    def __init__(
        self,
        net: PreparedModel,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(net, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _constants(self, group: dict[str, Any]) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        return {
            "optimiser": self._optimiser,
            "learning_rate": float(group["lr"]),
            "momentum": float(beta1),
            "beta2": float(beta2),
            "epsilon": float(group["eps"]),
            "weight_decay": float(group["weight_decay"]),
        }


class AdamW(Adam):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`: lr * weight_decay of each weight is subtracted beside the step.

    Arguments and errors are those of `Adam`.
    """

    _optimiser = Optimiser.ADAMW

    def __init__(
        self,
        net: PreparedModel,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(net, lr, betas, eps, weight_decay)
