"""What a training step costs on a machine, with the masks that a run has at the time."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine import Machine
from fixgrad.machine.files import machine_named
from fixgrad.network import Network, Recipe
from fixgrad.simulate.bounds import StepCost, step_cost
from fixgrad.train.run import StepPrediction

Masks = Mapping[str, NDArray[np.bool_]]


def cost_with_masks(network: Network, masks: Masks, machine: Machine, batch: int, recipe: Recipe) -> StepCost:
    """The bounds of a step of `batch` images; masks are those of a run, by parameter name (``conv1.weight``)."""
    by_layer = {name.removesuffix(".weight"): mask for name, mask in masks.items()}
    return step_cost(network, by_layer, machine, batch, recipe)


def step_prediction(machine: str) -> StepPrediction:
    """The prediction that the training loop prints after each epoch.

    Args:
        machine: a preset, or a JSON file.

    Raises:
        UsageError: there is none.
    """
    chosen = machine_named(machine)

    def seconds(network: Network, masks: Masks, batch: int, recipe: Recipe) -> float:
        return cost_with_masks(network, masks, chosen, batch, recipe).total_us / 1e6

    return StepPrediction(chosen.name, seconds)
