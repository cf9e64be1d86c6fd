"""The first cost model: what a training step takes at least, by the multipliers and by the memory, layer by layer.

A phase of a layer takes the longer of two times: its multiply-accumulates at one a cycle and multiplier, all of them busy; and
its bytes at the rate that the memory sustains. No schedule is behind it: fills, drains, imbalance between groups and tiles that
do not fit are left out, so a machine is never faster than these bounds. docs/cost_model.md tells how far off it is.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.graph_builder import node_layers
from fixgrad.errors import UsageError
from fixgrad.machine.parameters import Machine
from fixgrad.network import Conv2d, Linear, MacLayer, Network, Recipe
from fixgrad.network.layers import Shape
from fixgrad.network.step_table import needs_input_error
from fixgrad.numbers import StreamKey, hash32, stream_key
from fixgrad.simulate.dram.address import AddressMap
from fixgrad.simulate.dram.closed_form import ClosedForm
from fixgrad.simulate.dram.standard import load_standard
from fixgrad.simulate.dram.transfer import Transfer
from fixgrad.simulate.least_traffic import Weights, error_bytes, forward_bytes, gradient_bytes, maps_of
from fixgrad.sparse import Mask, keep_count
from fixgrad.sparse.criteria import check_density

BoolArray = NDArray[np.bool_]
#: What is alive of a layer: bool [out, in] of kernels (CONV) or elements (FC), or the share alone.
Alive = BoolArray | Mask | float
#: Length of the sequential transfer at which the memory's efficiency is taken.
STREAM_BYTES = 1 << 22
#: Elements that are hashed at a time: their arrays stay in the cache.
HASH_PART = 1 << 16


class Phase(StrEnum):
    """The three products of a training step."""

    FF = "ff"
    NG = "ng"
    WG = "wg"


class Bound(StrEnum):
    """What a phase waits for."""

    COMPUTE = "compute"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer and phase, for a batch.

    Attributes:
        us: the longer of `compute_us` and `memory_us`, in microseconds.
        gops: equivalent GOP/s: 2 operations for every MAC of the unpruned layer, padding included, over `us`.
        bound: which of the two rules.
        utilisation: MACs done over what all multipliers could do in `us`, 0 to 1.
        macs: MACs done for the batch: those of live kernels, by zero padding only where that is counted.
        dram_bytes: bytes moved at least.
    """

    name: str
    phase: Phase
    us: float
    gops: float
    bound: Bound
    utilisation: float
    macs: int
    dram_bytes: int
    compute_us: float
    memory_us: float


@dataclass(frozen=True, slots=True)
class PhaseCost:
    """All layers of a phase. `gops` counts the work of every layer, the first one's NG too, which is never computed."""

    us: float
    gops: float
    macs: int
    dram_bytes: int


@dataclass(frozen=True, slots=True)
class StepCost:
    """A training step of one batch.

    Attributes:
        network, machine: names.
        batch: images.
        count_padding: whether taps in the zero padding count as work.
        peak_gops: dense peak of the machine.
        memory_gb_per_s: rate at which bytes are taken to move.
        pass_gop: operations of one dense pass over the batch, padding included, in GOP.
        layers: a row for each layer with weights and phase, phase by phase in the order of the layers.
        others: layers that machines compute in instructions of their own, which no row counts; `other` is the first one.
    """

    network: str
    machine: str
    batch: int
    count_padding: bool
    peak_gops: float
    memory_gb_per_s: float
    pass_gop: float
    layers: tuple[LayerCost, ...]
    others: int = 0
    other: str = ""

    @property
    def phases(self) -> dict[Phase, PhaseCost]:
        """Sums by phase."""
        return {phase: self._sum(phase) for phase in Phase}

    def _sum(self, phase: Phase) -> PhaseCost:
        rows = [row for row in self.layers if row.phase is phase]
        us = sum(row.us for row in rows)
        gops = self.pass_gop / us * 1e6 if us else 0.0
        return PhaseCost(us, gops, sum(row.macs for row in rows), sum(row.dram_bytes for row in rows))

    @property
    def total_us(self) -> float:
        """Time of the step: the sum of its rows."""
        return sum(row.us for row in self.layers)

    @property
    def total_gops(self) -> float:
        """Equivalent GOP/s of the step: three dense passes over its time, as the talk counts."""
        return len(Phase) * self.pass_gop / self.total_us * 1e6

    @property
    def macs(self) -> int:
        """MACs done."""
        return sum(row.macs for row in self.layers)

    @property
    def dram_bytes(self) -> int:
        """Bytes moved at least."""
        return sum(row.dram_bytes for row in self.layers)

    def row(self, name: str, phase: Phase | str) -> LayerCost:
        """The row of a layer and phase; raises UsageError where there is none."""
        for row in self.layers:
            if row.name == name and row.phase == phase:
                return row
        raise UsageError(f"{self.network} has no {phase} of {name!r}: layers are {', '.join({r.name: 0 for r in self.layers})}")

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "network": self.network,
            "machine": self.machine,
            "batch": self.batch,
            "count_padding": self.count_padding,
            "peak_gops": self.peak_gops,
            "memory_gb_per_s": self.memory_gb_per_s,
            "pass_gop": self.pass_gop,
            "phases": {str(phase): asdict(cost) for phase, cost in self.phases.items()},
            "total": {"us": self.total_us, "gops": self.total_gops, "macs": self.macs, "dram_bytes": self.dram_bytes},
            "layers": [{**asdict(row), "phase": str(row.phase), "bound": str(row.bound)} for row in self.layers],
        }


def step_cost(
    network: Network,
    masks: Mapping[str, Alive] | None,
    machine: Machine,
    batch: int = 32,
    recipe: Recipe | None = None,
    count_padding: bool = False,
) -> StepCost:
    """The bounds of one training step.

    Args:
        network: what is trained.
        masks: by name of the layer, what is alive: bool [out, in], or a share in (0, 1]. Layers left out, or None: all.
        machine: on which it runs. A batch that does not fill the lanes leaves some idle.
        batch: images of a step.
        recipe: its widths decide the bytes of stored weights and momenta. None: the default recipe.
        count_padding: whether multiplications by zero padding take their cycle, as on the talk's machine.

    Raises:
        UsageError: a batch below 1, a mask of no layer, of a wrong shape, or a share out of range.
    """
    if batch < 1:
        raise UsageError(f"batch is {batch}: choose at least 1")
    unknown = sorted(set(masks or {}) - {layer.name for layer in network.mac_layers})
    if unknown:
        known = ", ".join(layer.name for layer in network.mac_layers)
        raise UsageError(f"a mask is for {unknown[0]!r}, which is no layer with weights of {network.name}: they are {known}")
    model = _Model(network, masks or {}, machine, batch, recipe or Recipe(), count_padding)
    rows = [model.row(layer, phase) for phase in Phase for layer in network.mac_layers if model.has(layer, phase)]
    dense = sum(layer.macs(network.shapes[layer.name]) for layer in network.mac_layers)
    nodes = node_layers(network)
    return StepCost(
        network=network.name,
        machine=machine.name,
        batch=batch,
        count_padding=count_padding,
        peak_gops=machine.peak_gops,
        memory_gb_per_s=memory_rate(machine) / 1000,
        pass_gop=2 * dense * batch / 1e9,
        layers=tuple(rows),
        others=len(nodes),
        other=f"{nodes[0].name} ({nodes[0].kind})" if nodes else "",
    )


@dataclass(frozen=True, slots=True)
class _Model:
    network: Network
    masks: Mapping[str, Alive]
    machine: Machine
    batch: int
    recipe: Recipe
    count_padding: bool

    @property
    def micro_batches(self) -> int:
        return -(-self.batch // self.machine.lanes)

    def has(self, layer: MacLayer, phase: Phase) -> bool:
        return phase is not Phase.NG or needs_input_error(self.network, layer)

    def row(self, layer: MacLayer, phase: Phase) -> LayerCost:
        output = self.network.shapes[layer.name]
        image_macs = self._kernels(layer) * kernel_macs(self.network, layer, phase, self.count_padding)
        compute_us = self.machine.microseconds(image_macs * self.micro_batches / self.machine.pes)
        moved = self._bytes(layer, phase)
        memory_us = moved / memory_rate(self.machine)
        us = max(compute_us, memory_us)
        macs = image_macs * self.batch
        return LayerCost(
            name=layer.name,
            phase=phase,
            us=us,
            gops=2 * layer.macs(output) * self.batch / us / 1000,
            bound=Bound.COMPUTE if compute_us >= memory_us else Bound.MEMORY,
            utilisation=macs / (self.machine.macs * self.machine.clock_mhz * us),
            macs=macs,
            dram_bytes=moved,
            compute_us=compute_us,
            memory_us=memory_us,
        )

    def _kernels(self, layer: MacLayer) -> int:
        return live_kernels(layer, self.masks.get(layer.name))

    def _bytes(self, layer: MacLayer, phase: Phase) -> int:
        """Maps hold whole words of all lanes, so idle lanes move too."""
        images = self.micro_batches * self.machine.lanes
        shape = layer.weight_shape
        weights = Weights(self._kernels(layer), int(np.prod(shape[2:])), layer.out_channels if layer.bias else 0)
        maps = maps_of(self.network, layer)
        if phase is Phase.FF:
            return forward_bytes(maps, weights, images)
        if phase is Phase.NG:
            return error_bytes(maps, weights, images)
        return gradient_bytes(maps, weights, images, self.recipe)


def live_kernels(layer: MacLayer, alive: Alive | None) -> int:
    """Kernels (CONV) or elements (FC) of a layer that are alive; raises UsageError for a mask that does not fit."""
    shape = layer.weight_shape[:2]
    if alive is None:
        return shape[0] * shape[1]
    if isinstance(alive, int | float):
        return keep_count(check_density(alive, layer.name), shape[0] * shape[1])
    mask = alive.alive if isinstance(alive, Mask) else np.asarray(alive)
    if mask.shape != shape or mask.dtype != np.bool_:
        raise UsageError(f"layer {layer.name}: its mask is {mask.dtype} {list(mask.shape)}: it must be bool {list(shape)}")
    return int(np.count_nonzero(mask))


def kernel_macs(network: Network, layer: MacLayer, phase: Phase, count_padding: bool) -> int:
    """MACs of one live kernel for one image: pairs of a computed pixel and a tap that meet.

    FF and WG pair the pixels of the output with taps, NG those of the input. Pairs whose partner lies outside of the image
    count only with `count_padding`. In NG of a layer with stride most taps of a pixel meet no output at all: they never count.
    """
    if isinstance(layer, Linear):
        return 1
    assert isinstance(layer, Conv2d)
    inputs, outputs = network.input_shape_of(layer), network.shapes[layer.name]
    return int(np.prod([_axis_macs(layer, axis, inputs, outputs, phase, count_padding) for axis in (0, 1)]))


def _axis_macs(layer: Conv2d, axis: int, inputs: Shape, outputs: Shape, phase: Phase, count_padding: bool) -> int:
    geometry, tap = layer.geometry, np.arange(layer.kernel[axis])
    stride, padding, dilation = geometry.stride[axis], geometry.padding[axis], geometry.dilation[axis]
    in_size, out_size = inputs[1 + axis], outputs[1 + axis]
    if phase is Phase.NG:
        place, rest = np.divmod(np.arange(in_size)[:, None] + padding - tap * dilation, stride)
        meets, size = rest == 0, out_size
    else:
        place = np.arange(out_size)[:, None] * stride + tap * dilation - padding
        meets, size = np.ones(place.shape, np.bool_), in_size
    return int(np.count_nonzero(meets if count_padding else meets & (place >= 0) & (place < size)))


@cache
def memory_rate(machine: Machine) -> float:
    """Bytes a microsecond that the memory sustains: all channels, each at its port's rate or at DRAM's for long sequential
    transfers (refresh and bank rules taken off the peak), whichever is less.
    """
    dram = ClosedForm(load_standard(machine.memory.standard), AddressMap.BANK_GROUP_LOWEST)
    sequential = STREAM_BYTES / dram.service(Transfer(STREAM_BYTES)).busy_ns * 1000
    return machine.memory.channels * min(sequential, machine.memory.port_bytes * machine.clock_mhz)


def random_masks(network: Network, densities: Mapping[str, float], seed: int = 0) -> dict[str, BoolArray]:
    """Kernel-wise masks with exactly round(density * kernels) live kernels a layer, chosen by the counter hash.

    Args:
        network: its layers with weights get a mask each, bool [out, in].
        densities: share kept, by name of the layer, in (0, 1].
        seed: other seeds choose other kernels.

    Raises:
        UsageError: a layer without a density, or one out of range.
    """
    return {layer.name: _random_mask(layer, densities, seed) for layer in network.mac_layers}


def _random_mask(layer: MacLayer, densities: Mapping[str, float], seed: int) -> BoolArray:
    if layer.name not in densities:
        raise UsageError(f"layer {layer.name} has no density: it has {', '.join(densities) or 'none at all'}")
    shape = layer.weight_shape[:2]
    keep = keep_count(check_density(densities[layer.name], layer.name), shape[0] * shape[1])
    hashes = _hashes(shape[0] * shape[1], stream_key(seed, 0, f"mask/{layer.name}"))
    # The hash is a bijection: no two elements share one, so exactly `keep` are at most the limit.
    mask: BoolArray = hashes <= np.partition(hashes, keep - 1)[keep - 1]
    return mask.reshape(shape)


def _hashes(count: int, key: StreamKey) -> NDArray[np.uint32]:
    """The hash of each index below `count`, part by part: a layer may have 10**8 elements."""
    found = np.empty(count, np.uint32)
    for first in range(0, count, HASH_PART):
        last = min(first + HASH_PART, count)
        found[first:last] = hash32(np.arange(first, last), key)
    return found
