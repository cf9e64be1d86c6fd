"""The layers of a network as PyTorch modules on integer tensors, built from their descriptions."""

import torch

from fixgrad.network import layers as description
from fixgrad.network.state import State
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.layers.conv2d import Conv2d
from fixgrad.train.layers.linear import Linear
from fixgrad.train.layers.mac import MacModule
from fixgrad.train.layers.parameter import IntegerParameter
from fixgrad.train.layers.passing import Flatten, MaxPool2d, PassModule, ReLU

__all__ = [
    "Conv2d",
    "Flatten",
    "IntegerParameter",
    "Linear",
    "MacModule",
    "MaxPool2d",
    "PassModule",
    "ReLU",
    "build_layer",
]

_PASSING: dict[type[description.Layer], type[PassModule]] = {
    description.ReLU: ReLU,
    description.MaxPool2d: MaxPool2d,
    description.Flatten: Flatten,
}


def build_layer(layer: description.Layer, state: State, kernels: Kernels, device: torch.device) -> MacModule | PassModule:
    """The module of a layer, with its parameters taken from the state."""
    if isinstance(layer, description.Conv2d):
        return Conv2d(layer, state, kernels, device)
    if isinstance(layer, description.MacLayer):
        return Linear(layer, state, kernels, device)
    return _PASSING[type(layer)](layer, kernels)
