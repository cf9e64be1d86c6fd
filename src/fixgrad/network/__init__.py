"""The description of a network that training and hardware share: layers, state, recipe, and the reference training step."""

from fixgrad.network.graph import INPUT, Network
from fixgrad.network.layers import Conv2d, Flatten, Layer, Linear, MacLayer, MaxPool2d, ReLU
from fixgrad.network.recipe import Recipe, Schedule
from fixgrad.network.state import Parameter, State, initial_state
from fixgrad.network.step_table import StepTable, step_table
from fixgrad.network.trace import Trace

__all__ = [
    "INPUT",
    "Conv2d",
    "Flatten",
    "Layer",
    "Linear",
    "MacLayer",
    "MaxPool2d",
    "Network",
    "Parameter",
    "ReLU",
    "Recipe",
    "Schedule",
    "State",
    "StepTable",
    "Trace",
    "initial_state",
    "step_table",
]
