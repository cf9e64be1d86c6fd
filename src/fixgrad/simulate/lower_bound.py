"""The bytes that no schedule can avoid moving, layer by layer and phase by phase: an assertion on every simulated step.

Two bounds, the larger rules:

*Compulsory.* Every tensor that a phase reads or writes crosses the pins once: operands of live kernels, feature maps of
channels that a live kernel reads, what is stored. What lies in the input buffers from the phase before need not be read again,
so inputs count only as far as they exceed what these can hold; results always go through memory.

*Hong and Kung.* However the MACs are ordered, cut the order into segments that each move T bytes. A segment can touch no more
than what was on chip at its beginning (S bytes), what stays on chip at its end (S), and what it moves (T). A set of MACs that
touches a inputs, b weights and c outputs has at most sqrt(R a b c) members, where R is how many taps can read one input
(Loomis and Whitney 1949; Irony, Toledo and Tiskin 2004; with the window's reuse R as in Chen, Han and Wang, HPCA 2020). With p
bytes an element of each kind, a p_a + b p_b + c p_c <= 2 S + T gives at most sqrt(R ((2 S + T) / 3)^3 / (p_a p_b p_c)) MACs a
segment, and with T = 4 S at least

    Q >= sqrt(2) E sqrt(p_a p_b p_c / (R S)) - 4 S     bytes for E MACs.

Both hold for any subset of the MACs, so E counts those that are executed: live kernels, and no padding.
"""

from dataclasses import dataclass
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.graph_builder import tail_of
from fixgrad.machine import Machine
from fixgrad.network import INPUT, Conv2d, Layer, MacLayer, MaxPool2d, Network, Recipe
from fixgrad.simulate.bounds import Phase, kernel_macs
from fixgrad.simulate.least_traffic import COORDINATE_BYTES, Maps, maps_of

BoolArray = NDArray[np.bool_]
BIAS_BYTES = 4


def on_chip_bytes(machine: Machine) -> int:
    """All memory on chip that can hold a feature map, a weight or an accumulator, in bytes; copies count."""
    per_pe = (
        machine.input_words * machine.lanes
        + machine.lane_words * machine.lanes * 4
        + machine.gradient_words * 4
        + machine.kernel_words * (COORDINATE_BYTES + 9)
    )
    return machine.pes * per_pe


def input_bytes(machine: Machine) -> int:
    """Different bytes that the input buffers hold: the PEs of a group hold different words, all groups the same."""
    return machine.pes_per_group * machine.input_words * machine.lanes


def segment_macs(total: float, reuse: float, sizes: tuple[float, float, float]) -> float:
    """MACs that touch at most `total` bytes of inputs, weights and outputs of `sizes` bytes each: the largest sqrt(R abc)."""
    return sqrt(reuse * (total / 3) ** 3 / prod(sizes))


def hong_kung_bytes(macs: float, on_chip: float, reuse: float, sizes: tuple[float, float, float]) -> float:
    """Bytes that `macs` MACs move at least with `on_chip` bytes of memory on chip; see the module. 0 where it says nothing."""
    bound = sqrt(2) * macs * sqrt(prod(sizes) / (reuse * on_chip)) - 4 * on_chip
    return max(bound, 0.0)


@dataclass(frozen=True, slots=True)
class LayerBound:
    """Least DRAM bytes of a layer's phase for one step."""

    compulsory: int
    hong_kung: int

    @property
    def bytes(self) -> int:
        """The larger of the two."""
        return max(self.compulsory, self.hong_kung)


def layer_bound(
    network: Network, layer: MacLayer, phase: str, mask: BoolArray | None, machine: Machine, batch: int, recipe: Recipe
) -> LayerBound:
    """The bound of one layer's FF, NG or WG (with its update).

    Args:
        mask: live kernels (elements), bool [out, in]; None for all.
        batch: images; feature maps move whole words of all lanes.
    """
    alive = np.ones(layer.weight_shape[:2], np.bool_) if mask is None else mask
    images = -(-batch // machine.lanes) * machine.lanes
    taps, kernels = prod(layer.weight_shape[2:]), int(alive.sum())
    maps = maps_of(network, layer)
    inputs, outputs = _live_share(layer, alive, maps)
    kept = input_bytes(machine)
    if phase == "ff":
        read, other = inputs, maps.stored * (1 + (layer.out_bits > 8))
        weights = kernels * (taps + COORDINATE_BYTES) + BIAS_BYTES * layer.out_channels * layer.bias
    elif phase == "ng":
        read, other = outputs, maps.source * _window_area(network, layer)
        weights = kernels * (taps + COORDINATE_BYTES)
    else:
        read, other = inputs, outputs
        weights = kernels * (COORDINATE_BYTES + taps * _update_bytes(recipe))
    compulsory = max(read * images - kept, 0) + other * images + weights
    macs = kernels * kernel_macs(network, layer, Phase(phase), False) * batch
    sizes = (1.0, 1.0, _least_result(phase, maps))
    return LayerBound(compulsory, int(hong_kung_bytes(macs, on_chip_bytes(machine), _window_reuse(layer, phase), sizes)))


def _window_area(network: Network, layer: MacLayer) -> int:
    """Pixels of a pooling window that POST does between the layer before and this one; what fills no window keeps an error of 0."""
    behind, tensor = list[Layer](), layer.inputs[0]
    while tensor != INPUT:
        before = network.layer(tensor)
        if isinstance(before, MacLayer):
            tail = tail_of(network, before)
            return prod(prod(item.window) for item in tail if isinstance(item, MaxPool2d) and item in behind)
        behind.append(before)
        tensor = before.inputs[0]
    return 1


def _live_share(layer: MacLayer, alive: BoolArray, maps: Maps) -> tuple[int, int]:
    """Codes an image of the input that live kernels read, and of the output's error that they use."""
    groups = layer.geometry.groups if isinstance(layer, Conv2d) else 1
    per_group = alive.reshape(groups, -1, alive.shape[1])
    columns = int(per_group.any(axis=1).sum())
    rows = int(alive.any(axis=1).sum())
    return maps.source * columns // (alive.shape[1] * groups), maps.output * rows // alive.shape[0]


def _update_bytes(recipe: Recipe) -> int:
    """Bytes of a parameter's update: stored weight and momentum read and written, operand written."""
    return 2 * (-(-recipe.stored_bits // 8) - (-recipe.momentum_bits // 8)) + 1


def _window_reuse(layer: MacLayer, phase: str) -> float:
    """How many taps of one kernel can read the same pixel (of the input; in NG of the error, which every tap reads)."""
    if not isinstance(layer, Conv2d):
        return 1.0
    stride = (1, 1) if phase == "ng" else layer.geometry.stride
    return float(prod(-(-size // step) for size, step in zip(layer.kernel, stride, strict=True)))


def _least_result(phase: str, maps: Maps) -> float:
    """Bytes that a finished result takes at least: its code (FF: shared by a pooling window), or its share of the update."""
    if phase == "ff":
        return min(maps.stored / maps.output, 1.0)
    return 1.0
