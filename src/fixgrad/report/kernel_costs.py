"""What a kernel costs on a machine: where pruning saves time."""

from math import prod

from fixgrad.machine import Machine
from fixgrad.network import Network
from fixgrad.simulate.bounds import step_cost
from fixgrad.train.pruning_request import CostTable, KernelCosts

#: Fractions of a cycle that costs are counted in: single elements of linear layers take less than one.
PARTS = 1024
#: The density at which the slope is taken, against the dense layer.
THINNED = 0.5


def kernel_costs(machine: Machine) -> KernelCosts:
    """The costs of kernels on `machine`, for `fixgrad.train.pruning_request`."""

    def costs(network: Network, batch: int) -> CostTable:
        """1/1024 cycles of all PEs that one kernel of each layer adds to a step of `batch` images.

        The slope of the bounds of `fixgrad.simulate.bounds` between half and whole density, over FF, NG and WG: where the
        multipliers rule, the MACs of the taps that fall inside the image over all multipliers; where the memory rules, the bytes
        of the kernel's weight, momentum, gradient and place over the memory's rate.
        """
        dense, thin = (_layer_us(network, machine, batch, density) for density in (1.0, THINNED))
        found = {}
        for layer in network.mac_layers:
            saved = (dense[layer.name] - thin[layer.name]) * machine.clock_mhz * PARTS
            kernels = prod(layer.weight_shape[:2]) * (1 - THINNED)
            found[layer.name] = max(1, round(saved / kernels))
        return CostTable(f"cycles/{PARTS} on {machine.name}", found)

    return costs


def _layer_us(network: Network, machine: Machine, batch: int, density: float) -> dict[str, float]:
    """Microseconds of each layer's three phases."""
    found = {layer.name: 0.0 for layer in network.mac_layers}
    for row in step_cost(network, dict.fromkeys(found, density), machine, batch).layers:
        found[row.name] += row.us
    return found
