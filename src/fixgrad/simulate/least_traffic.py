"""The DRAM bytes that a layer's phase moves at least: every tensor that it reads or writes, once, as it lies in memory.

The tensors and their layout are those of docs/machine.md. A schedule that keeps a tensor on chip between two phases can move
less; one that does not fit a buffer moves more.
"""

from dataclasses import dataclass
from math import prod

from fixgrad.compiler.graph_builder import tail_of
from fixgrad.network import INPUT, Flatten, Layer, MacLayer, MaxPool2d, Network
from fixgrad.network.recipe import Recipe
from fixgrad.numbers import Rounding

#: Bytes of a live kernel's coordinates inside its CSB block: row and column.
COORDINATE_BYTES = 2
#: Bytes of a channel's entry in the channel table: bias, first random element.
CHANNEL_BYTES = 8
#: Bytes of a kernel's first random element, and of a bias's gradient.
WORD_BYTES = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """What is alive of a layer's weights: `kernels` of `taps` weights each, and `biases`."""

    kernels: int
    taps: int
    biases: int

    @property
    def operands(self) -> int:
        """Bytes of the 8-bit operands with their coordinates: what FF and NG read."""
        return self.kernels * (self.taps + COORDINATE_BYTES)

    def update_bytes(self, recipe: Recipe) -> int:
        """Bytes of an update: stored weights and momenta read and written, operands written."""
        state = 2 * (_bytes(recipe.stored_bits) + _bytes(recipe.momentum_bits))
        weights = self.kernels * self.taps * (state + 1)
        if recipe.update_rounding is Rounding.STOCHASTIC:
            weights += self.kernels * WORD_BYTES
        return weights + self.biases * (state + WORD_BYTES)


@dataclass(frozen=True, slots=True)
class Maps:
    """Feature maps around a layer, in codes of one image.

    Attributes:
        source: what the layer reads: the stored map, after pooling.
        output: what its convolution gives, before pooling; its error has this size too.
        stored: what FF stores: the pooled map.
        stored_code: bytes of a code of `stored`.
        pooled: whether the stored map is pooled, so that the places of the maxima are stored too.
        producer: size of the tensor whose error NG gives, before pooling. 0 for the first layer, which has no NG.
        source_pooled, source_rectified: whether NG needs the places of the maxima, or the stored map as a mask.
    """

    source: int
    output: int
    stored: int
    stored_code: int
    pooled: bool
    producer: int
    source_pooled: bool
    source_rectified: bool


def maps_of(network: Network, layer: MacLayer) -> Maps:
    """The maps around `layer`."""
    source, tail = layer.inputs[0], tail_of(network, layer)
    stored = tail[-1].name if tail else layer.name
    before = _stage_before(network, source)
    behind = () if before is None else tail_of(network, before)
    written = source if before is None else before.name
    alone = network.error_name(source, layer) == source
    return Maps(
        source=prod(network.shapes[source]),
        output=prod(network.shapes[layer.name]),
        stored=prod(network.shapes[stored]),
        stored_code=_bytes(layer.out_bits),
        pooled=any(isinstance(item, MaxPool2d) for item in tail),
        producer=prod(network.shapes[written]) if source in network.trainable else 0,
        source_pooled=any(isinstance(item, MaxPool2d) for item in behind),
        source_rectified=alone and network.is_rectified(source),
    )


def _stage_before(network: Network, tensor: str) -> MacLayer | None:
    """The layer with weights whose stage stores a tensor that nobody else reads; None where another kind of layer does."""
    behind = list[Layer]()
    while tensor != INPUT and len(network.readers[tensor]) == 1:
        layer = network.layer(tensor)
        if isinstance(layer, MacLayer):
            return layer if all(isinstance(item, Flatten) or item in tail_of(network, layer) for item in behind) else None
        behind.append(layer)
        tensor = layer.inputs[0]
    return None


def forward_bytes(maps: Maps, weights: Weights, images: int) -> int:
    """FF: inputs and operands read; stored codes, and places of maxima (a byte each), written."""
    written = maps.stored * (maps.stored_code + maps.pooled)
    return images * (maps.source + written) + weights.operands + weights.biases * CHANNEL_BYTES


def error_bytes(maps: Maps, weights: Weights, images: int) -> int:
    """NG: errors, operands, mask and places of maxima read; the errors of the layer below, before its pooling, written."""
    read = maps.output + maps.source * (maps.source_rectified + maps.source_pooled)
    return images * (read + maps.producer) + weights.operands


def gradient_bytes(maps: Maps, weights: Weights, images: int, recipe: Recipe) -> int:
    """WG with its update: inputs, errors and coordinates read, and what `Weights.update_bytes` says."""
    return images * (maps.source + maps.output) + weights.kernels * COORDINATE_BYTES + weights.update_bytes(recipe)


def _bytes(bits: int) -> int:
    return -(-bits // 8)
