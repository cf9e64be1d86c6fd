"""A training step as emulators of low precision make it: float32 that is rounded to few bits after every layer.

It is the method of QPyTorch (Zhang et al., 2019), written anew for comparison. Activations and errors are rounded to 8 bits
between layers, weights before they are used, gradients, momenta and master weights in the update. All arithmetic is float32:
nothing is saved, and every rounding is a pass or two over memory. Scales are powers of two from each tensor's maximum.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

OPERAND_BITS = 8
#: Of gradients, momenta and master weights.
STORED_BITS = 16


def quantise(x: Tensor, bits: int, stochastic: bool = False) -> Tensor:
    """`x` rounded to codes of `bits` bits, symmetric, at the power-of-two scale that fits its maximum; float32."""
    low, high = torch.aminmax(x)
    scale = torch.exp2(bits - 1 - torch.ceil(torch.log2(torch.maximum(high, -low).clamp_min(1e-30))))
    limit = (1 << (bits - 1)) - 1
    codes = x * scale
    codes = codes.add_(torch.rand_like(codes)).floor_() if stochastic else codes.round_()
    return codes.clamp_(-limit, limit).div_(scale)


class _Boundary(torch.autograd.Function):
    """Between two layers: activations are rounded to nearest on the way forward, errors stochastically on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return quantise(x, OPERAND_BITS)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return quantise(gradients[0], OPERAND_BITS, stochastic=True)


class _Straight(torch.autograd.Function):
    """Weights are rounded forward; their gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return quantise(x, OPERAND_BITS)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


class _OperandWeight(nn.Module):
    """The parametrisation that gives a layer its weight in 8 bits."""

    def forward(self, weight: Tensor) -> Tensor:
        rounded: Tensor = _Straight.apply(weight)  # type: ignore[no-untyped-call]
        return rounded


def fake_quantise(module: nn.Module) -> nn.Module:
    """The same module with rounding at the input of every layer with weights, at the output of the last, and of weights."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", _OperandWeight())
    for layer in layers[1:]:  # the first one reads codes
        layer.register_forward_pre_hook(lambda layer, inputs: (_boundary(inputs[0]), *inputs[1:]))
    layers[-1].register_forward_hook(lambda layer, inputs, output: _boundary(output))
    return module


def quantise_update(optimiser: torch.optim.Optimizer) -> None:
    """After a step: momenta and master weights in their stored width."""
    with torch.no_grad():
        for group in optimiser.param_groups:
            for weight in group["params"]:
                for stored in (weight, optimiser.state[weight]["momentum_buffer"]):
                    stored.copy_(quantise(stored, STORED_BITS))


def quantise_gradients(optimiser: torch.optim.Optimizer) -> None:
    """Before a step: gradients in their stored width."""
    with torch.no_grad():
        for group in optimiser.param_groups:
            for weight in group["params"]:
                weight.grad = quantise(weight.grad, STORED_BITS)


def _boundary(x: Tensor) -> Tensor:
    rounded: Tensor = _Boundary.apply(x)  # type: ignore[no-untyped-call]
    return rounded
