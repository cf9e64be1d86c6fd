"""The description of a network that training and hardware share: layers, state, recipe, and the reference training step."""

from fixgrad.network.batch_norm import BatchNorm
from fixgrad.network.graph import INPUT, Network
from fixgrad.network.junctions import Add, Concat, Dropout, PadChannels, ReLU6
from fixgrad.network.layers import Conv2d, Flatten, Layer, Linear, MacLayer, MaxPool2d, ReLU
from fixgrad.network.recipe import Optimiser, Recipe, Schedule
from fixgrad.network.state import Parameter, State, initial_state
from fixgrad.network.step_table import StepTable, step_table
from fixgrad.network.trace import Trace
from fixgrad.network.windows import AdaptiveAvgPool2d, AvgPool2d, SlidingMaxPool2d

__all__ = [
    "INPUT",
    "AdaptiveAvgPool2d",
    "Add",
    "AvgPool2d",
    "BatchNorm",
    "Concat",
    "Conv2d",
    "Dropout",
    "Flatten",
    "Layer",
    "Linear",
    "MacLayer",
    "MaxPool2d",
    "Network",
    "Optimiser",
    "PadChannels",
    "Parameter",
    "ReLU",
    "ReLU6",
    "Recipe",
    "Schedule",
    "SlidingMaxPool2d",
    "State",
    "StepTable",
    "Trace",
    "initial_state",
    "step_table",
]
