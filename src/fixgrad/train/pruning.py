"""Pruning before convergence: which weights stay, and what share of the work that is.

Source: the talk's slide "Pruning before convergence": whole 2-D kernels of convolutions, single elements of fully connected
layers, by magnitude, while the network is still learning.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.network import Conv2d, MacLayer, Network
from fixgrad.network.step_table import needs_input_error
from fixgrad.sparse import Mask, densities_for, prune
from fixgrad.sparse.densities import DensitySpec

Masks = Mapping[str, NDArray[np.bool_]]


def layer_densities(spec: DensitySpec, network: Network) -> dict[str, float]:
    """The density of every layer with weights: 'talk', a number, or the path of a file; see `densities_for`."""
    return densities_for(spec, [(layer.name, isinstance(layer, Conv2d), layer.weight_shape) for layer in network.mac_layers])


def magnitude_masks(
    weights: Mapping[str, NDArray[Any]], densities: Mapping[str, float], masks: Masks
) -> dict[str, NDArray[np.bool_]]:
    """Masks [out, in] that keep the kernels and elements of largest magnitude, by parameter name.

    Args:
        weights: stored codes or floats, by parameter name.
        densities: share to keep, by layer name.
        masks: those set already; what is dead stays dead.
    """
    found = {}
    for layer, density in densities.items():
        name = f"{layer}.weight"
        before = Mask(masks[name]) if name in masks else None
        found[name] = prune(weights[name], density, before, layer=layer).alive
    return found


def density_of(masks: Masks, layer: MacLayer) -> float:
    """Share of the layer's kernels or elements that is alive, 0 to 1."""
    mask = masks.get(f"{layer.name}.weight")
    return 1.0 if mask is None else Mask(mask).density


def weights_kept(network: Network, masks: Masks) -> float:
    """Share of the weights (biases are never pruned, and not counted) that is alive."""
    sizes = {layer: prod(layer.weight_shape) for layer in network.mac_layers}
    return sum(size * density_of(masks, layer) for layer, size in sizes.items()) / sum(sizes.values())


def macs_kept(network: Network, masks: Masks) -> float:
    """Share of a training step's multiply-accumulates (FF, NG and WG; padding counted) that is alive."""
    macs = {layer: training_macs(network, layer) for layer in network.mac_layers}
    return sum(count * density_of(masks, layer) for layer, count in macs.items()) / sum(macs.values())


def training_macs(network: Network, layer: MacLayer) -> int:
    """Multiply-accumulates of one image's FF, NG (not of the first layer) and WG when nothing is pruned."""
    phases = 3 if needs_input_error(network, layer) else 2
    return phases * layer.macs(network.shapes[layer.name])
