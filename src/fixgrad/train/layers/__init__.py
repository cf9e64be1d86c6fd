"""The layers of a network as PyTorch modules on integer tensors, built from their descriptions."""

import torch

from fixgrad.network import BatchNorm as BatchNormLayer
from fixgrad.network import junctions, windows
from fixgrad.network import layers as description
from fixgrad.network.state import State
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.layers.batch_norm import BatchNorm
from fixgrad.train.layers.conv2d import Conv2d
from fixgrad.train.layers.depthwise import DepthwiseConv2d
from fixgrad.train.layers.joining import Add, Average, Concatenate, Drop, JoiningModule
from fixgrad.train.layers.linear import Linear
from fixgrad.train.layers.mac import MacModule
from fixgrad.train.layers.parameter import IntegerParameter
from fixgrad.train.layers.passing import Flatten, MaxPool2d, PadChannels, PassModule, ReLU, ReLU6, SlidingMaxPool2d

__all__ = [
    "Add",
    "Average",
    "BatchNorm",
    "Concatenate",
    "Conv2d",
    "DepthwiseConv2d",
    "Drop",
    "Flatten",
    "IntegerParameter",
    "JoiningModule",
    "LayerModule",
    "Linear",
    "MacModule",
    "MaxPool2d",
    "PadChannels",
    "PassModule",
    "ReLU",
    "ReLU6",
    "SlidingMaxPool2d",
    "build_layer",
]

LayerModule = MacModule | BatchNorm | JoiningModule | PassModule

_PASSING: dict[type[description.Layer], type[PassModule]] = {
    description.ReLU: ReLU,
    description.MaxPool2d: MaxPool2d,
    description.Flatten: Flatten,
    junctions.ReLU6: ReLU6,
    junctions.PadChannels: PadChannels,
    windows.SlidingMaxPool2d: SlidingMaxPool2d,
}
_JOINING: dict[type[description.Layer], type[JoiningModule]] = {
    junctions.Add: Add,
    junctions.Concat: Concatenate,
    junctions.Dropout: Drop,
    windows.AvgPool2d: Average,
    windows.AdaptiveAvgPool2d: Average,
}


def build_layer(layer: description.Layer, state: State, kernels: Kernels, device: torch.device) -> LayerModule:
    """The module of a layer, with its parameters taken from the state."""
    if isinstance(layer, description.Conv2d):
        return (DepthwiseConv2d if DepthwiseConv2d.computes(layer) else Conv2d)(layer, state, kernels, device)
    if isinstance(layer, description.MacLayer):
        return Linear(layer, state, kernels, device)
    if isinstance(layer, BatchNormLayer):
        return BatchNorm(layer, state, kernels, device)
    if type(layer) in _JOINING:
        return _JOINING[type(layer)](layer, kernels)
    return _PASSING[type(layer)](layer, kernels)
