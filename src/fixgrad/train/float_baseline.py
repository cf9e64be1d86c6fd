"""Float training of the same network, from the same initial weights on the same images in the same order: the baseline.

The update is the one of docs/arithmetic.md in real numbers (`float_rules`), so that what is left between the two runs is number
formats and, where asked for, pruning.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fixgrad.errors import DataError, FixgradError
from fixgrad.network import Dropout, MacLayer, Network, Recipe
from fixgrad.network.state_arrays import StateArrays
from fixgrad.numbers import stream_key
from fixgrad.train.float_graph import FloatGraph, plain_layer
from fixgrad.train.float_rules import float_rule
from fixgrad.train.trainer import Codes, Masks


@dataclass(frozen=True, slots=True)
class FloatReport:
    """What a float step tells: floats neither saturate nor overflow here."""

    loss: float
    correct: int
    saturated: Mapping[str, float] = field(default_factory=dict)
    overflows: set[str] = field(default_factory=set)
    forward_bits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    error_bits: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def float_module(network: Network) -> nn.Module:
    """The network as an ordinary module: float32 [batch, channels, height, width] in, logits [batch, classes] out.

    A chain becomes an `nn.Sequential` with the names of its layers, any other network a `FloatGraph`.
    """
    if not network.is_chain:
        return FloatGraph(network)
    modules: dict[str, nn.Module] = {}
    for layer in network:
        modules[layer.name] = plain_layer(layer)
        if isinstance(layer, MacLayer) and layer.relu:
            modules[f"{layer.name}+relu"] = nn.ReLU()
    return nn.Sequential(OrderedDict(modules))


def _tensors(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and running statistics, by their names in the network."""
    found = module.tensors_by_name() if isinstance(module, FloatGraph) else dict(module.named_parameters())
    trained = {name: tensor for name, tensor in found.items() if tensor.requires_grad}
    return trained, {name: tensor for name, tensor in found.items() if name not in trained}


class FloatTrainer:
    """Trains the float32 module of a network with the recipe's optimiser.

    Args:
        network: what to train.
        weights: initial value of every parameter.
        recipe: optimiser and schedule; widths and rounding have no meaning here.
        total_steps: length of the run, for the schedule.
        bfloat16: multiply in bfloat16 and add in float32 (PyTorch's autocast); weights, momenta and update stay in float32.
            About twice as fast where the CPU has such products.
    """

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, NDArray[Any]],
        recipe: Recipe,
        total_steps: int,
        *,
        bfloat16: bool = False,
    ) -> None:
        self.network = network
        self._bfloat16 = bfloat16
        self._recipe = recipe
        self._total_steps = total_steps
        self._steps = 0
        module = float_module(network)
        self._parameters, self._running = _tensors(module)
        for name in self._running.keys() & weights.keys():
            _fill(self._running[name], weights, name)
        for name, parameter in self._parameters.items():
            _fill(parameter, weights, name)
        self._module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in its stubs
        self._rule = float_rule(recipe, self._parameters)
        self._masks: dict[str, Tensor] = {}
        self._watched: dict[str, NDArray[Any]] | None = None
        self._drops = any(isinstance(layer, Dropout) for layer in network)

    @classmethod
    def from_snapshot(
        cls, network: Network, saved: StateArrays, recipe: Recipe, total_steps: int, *, bfloat16: bool = False
    ) -> "FloatTrainer":
        """The trainer that made the snapshot.

        Raises:
            DataError: an array is missing or has another shape.
        """
        trainer = cls(network, _under("weight/", saved.arrays), recipe, total_steps, bfloat16=bfloat16)
        for prefix, moments in trainer._rule.moments.items():
            for name, moment in moments.items():
                _fill(moment, _under(f"{prefix}/", saved.arrays), name)
        trainer._rule.steps = int(saved.values.get("moment_steps", 0))
        trainer._masks = {name: torch.from_numpy(mask.copy()) for name, mask in _under("mask/", saved.arrays).items()}
        for name, statistic in trainer._running.items():
            _fill(statistic, _under("running/", saved.arrays), name)
        trainer._steps = int(saved.values["step"])
        return trainer

    def calibrate(self, x: Codes, labels: Codes) -> None:
        """Floats need no scales."""

    def step(self, x: Codes, labels: Codes) -> FloatReport:
        """One update on codes [batch, ...] and labels [batch].

        Raises:
            FixgradError: the loss is no longer a number.
        """
        target = torch.from_numpy(np.asarray(labels, np.int64))
        self._module.train()
        if self._drops:
            torch.manual_seed(stream_key(self._recipe.seed, self._steps, "dropout").low)
        logits = self._logits(x)
        loss = F.cross_entropy(logits, target)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FixgradError(f"training diverged: the loss of step {self._steps} is {value}; lower --lr or raise --warmup")
        gradients = torch.autograd.grad(loss, list(self._parameters.values()))
        by_name = dict(zip(self._parameters, gradients, strict=True))
        if self._watched is not None:
            self._watched = {name: _array(gradient).copy() for name, gradient in by_name.items() if name.endswith(".weight")}
        self._update(by_name)
        self._steps += 1
        return FloatReport(value, int((logits.argmax(dim=1) == target).sum()))

    @torch.no_grad()
    def _update(self, gradients: Mapping[str, Tensor]) -> None:
        """What is dead stays so."""
        rate = self._recipe.rate_at(self._steps, self._total_steps)
        alive = {name: _expanded(mask, self._parameters[name]) for name, mask in self._masks.items()}
        for name, parameter in self._parameters.items():
            gradient = gradients[name] * alive[name] if name in alive else gradients[name]
            self._rule.update(name, parameter, gradient, rate)
        self._rule.steps += 1

    @torch.no_grad()
    def predict(self, x: Codes) -> NDArray[np.float32]:
        """Logits [batch, classes]."""
        self._module.eval()
        logits: NDArray[np.float32] = self._logits(x).numpy()
        return logits

    def weights(self) -> dict[str, NDArray[Any]]:
        """Every weight, float32."""
        return {name: _array(value) for name, value in self._parameters.items() if name.endswith(".weight")}

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """The masks that are set."""
        return {name: mask.numpy() for name, mask in self._masks.items()}

    @torch.no_grad()
    def prune(self, masks: Masks) -> None:
        """Weights and moments of what is dead become zero."""
        for name, mask in masks.items():
            alive = torch.from_numpy(np.array(mask))
            self._masks[name] = alive & self._masks[name] if name in self._masks else alive
            parameter = self._parameters[name]
            for tensor in (parameter, *(moments[name] for moments in self._rule.moments.values())):
                tensor.mul_(_expanded(self._masks[name], parameter))

    def set_masks(self, masks: Masks) -> None:
        """What comes to life starts at zero."""
        for name, mask in masks.items():
            self._masks.pop(name, None)
            self.prune({name: mask})

    def watch_gradients(self) -> None:
        """The next step keeps its gradients."""
        self._watched = {}

    def take_gradients(self) -> dict[str, NDArray[Any]]:
        """Those of the step that was watched."""
        taken, self._watched = self._watched, None
        return taken or {}

    def exponents(self) -> dict[str, int]:
        """Floats have their own."""
        return {}

    def snapshot(self) -> StateArrays:
        """Weights, moments, running statistics, masks and the step."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, parameter in self._parameters.items():
            arrays[f"weight/{name}"] = _array(parameter)
            arrays |= {f"{prefix}/{name}": _array(moments[name]) for prefix, moments in self._rule.moments.items()}
        arrays.update({f"running/{name}": _array(statistic) for name, statistic in self._running.items()})
        arrays.update({f"mask/{name}": mask for name, mask in self.masks().items()})
        return StateArrays(arrays, {"step": self._steps} | self._rule.values())

    def _logits(self, x: Codes) -> Tensor:
        """[batch, classes], float32."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bfloat16):
            logits: Tensor = self._module(self._values(x))
        return logits.float()

    def _values(self, x: Codes) -> Tensor:
        values = torch.from_numpy(np.ldexp(x.astype(np.float32), -self.network.input_frac))
        return values.contiguous(memory_format=torch.channels_last)


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _fill(tensor: Tensor, values: Mapping[str, NDArray[Any]], name: str) -> None:
    if name not in values:
        raise DataError(f"no value for {name}: expected an array of shape {list(tensor.shape)}")
    if values[name].shape != tuple(tensor.shape):
        raise DataError(f"the value of {name} has shape {list(values[name].shape)}: expected {list(tensor.shape)}")
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.array(values[name])))


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().numpy())


def _expanded(mask: Tensor, parameter: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *(1,) * (parameter.dim() - 2))
