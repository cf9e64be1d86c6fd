"""What a kernel costs on a machine: where pruning saves time."""

from math import prod

from fixgrad.machine import Machine
from fixgrad.network import Network, Recipe
from fixgrad.report.predicted_step import PredictedStep, predicted_step
from fixgrad.simulate.bounds import random_masks, step_cost
from fixgrad.train.pruning_request import CostTable, KernelCosts

#: Fractions of a cycle that costs are counted in: single elements of linear layers take less than one.
PARTS = 1024
#: The density at which the slope is taken, against the dense layer.
THINNED = 0.5


def kernel_costs(machine: Machine) -> KernelCosts:
    """The costs of kernels on `machine`, for `fixgrad.train.pruning_request`."""

    def costs(network: Network, batch: int) -> CostTable:
        """1/1024 cycles that one kernel of each layer adds to a step of `batch` images, at least 1.

        The slope of a layer's time, FF, NG and WG together, between half its kernels (chosen by chance) and all: of the compiled
        and simulated step, or, where the compiler refuses the network, of the bounds of `fixgrad.simulate.bounds` (MACs of
        the taps inside the image over all multipliers, or bytes over the memory's rate, whichever is longer).
        """
        layers = network.mac_layers
        half = random_masks(network, {layer.name: THINNED for layer in layers}, seed=0)
        masks = {f"{name}.weight": mask for name, mask in half.items()}
        dense, thin = (predicted_step(network, chosen, machine, batch, Recipe()) for chosen in ({}, masks))
        if dense.kind is not thin.kind:  # one fits the machine, the other does not: their difference would say nothing
            dense, thin = (PredictedStep(step_cost(network, chosen, machine, batch)) for chosen in ({}, half))
        found = {}
        for layer in layers:
            saved = (_us(dense, layer.name) - _us(thin, layer.name)) * machine.clock_mhz * PARTS
            found[layer.name] = max(1, round(saved / (prod(layer.weight_shape[:2]) * (1 - THINNED))))
        return CostTable(f"cycles/{PARTS} on {machine.name}, {dense.kind}", found)

    return costs


def _us(step: PredictedStep, layer: str) -> float:
    """Microseconds of a layer's three phases."""
    return sum(row.us for row in step.figures.layers if row.name == layer)
