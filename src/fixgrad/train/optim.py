"""Optimisers of a prepared model, with the interface of `torch.optim`: schedulers of PyTorch work on them.

The update itself is integer arithmetic (docs/arithmetic.md) and happens inside of the model; an optimiser decides its
constants. What it remembers of the weights, the momentum, lies with them in the model's state.
"""

from collections.abc import Callable
from typing import Any

import torch

from fixgrad.errors import UsageError
from fixgrad.train.prepared import PreparedModel
from fixgrad.train.step_record import StepReport


class SGD(torch.optim.Optimizer):
    """Momentum SGD with weight decay on stored integers: u <- momentum u + lr (gradient + decay w), w <- w - u.

    The learning rate is inside of the momentum, which at a constant rate is `torch.optim.SGD`.

    Args:
        net: the prepared model. All of its parameters are trained alike: there is one group.
        lr: learning rate, for the mean loss of a batch; a scheduler may change it between two steps.
        momentum: from 0 to below 1, held with 8 fractional bits.
        weight_decay: L2 coefficient.

    Attributes:
        report: what the last step measured.

    Raises:
        UsageError: something else than a prepared model, or a number out of range.
    """

    def __init__(self, net: PreparedModel, lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        if not isinstance(net, PreparedModel):
            raise UsageError(f"an optimiser of fixgrad takes the model that prepare() returns, not {type(net).__name__}")
        self._net = net
        self.report: StepReport | None = None
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
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
        group = self.param_groups[0]
        self.report = self._net.update(
            learning_rate=float(group["lr"]), momentum=float(group["momentum"]), weight_decay=float(group["weight_decay"])
        )
