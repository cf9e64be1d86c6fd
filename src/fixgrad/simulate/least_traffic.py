"""The DRAM bytes that a layer's phase moves at least: every tensor that it reads or writes, once, as it lies in memory.

The tensors and their layout are those of docs/machine.md. A schedule that keeps a tensor on chip between two phases can move
less; one that does not fit a buffer moves more.
"""

from dataclasses import dataclass
from math import prod

from fixgrad.network import INPUT, MacLayer, MaxPool2d, Network
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
    source = layer.inputs[0]
    producer = network.source_of(source)
    stored = _stored_by(network, layer)
    return Maps(
        source=prod(network.shapes[source]),
        output=prod(network.shapes[layer.name]),
        stored=prod(network.shapes[stored]),
        stored_code=_bytes(layer.out_bits),
        pooled=_pools_between(network, layer.name, stored),
        producer=0 if producer == INPUT else prod(network.shapes[producer]),
        source_pooled=_pools_between(network, producer, source),
        source_rectified=network.is_rectified(source),
    )


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


def _stored_by(network: Network, layer: MacLayer) -> str:
    """The tensor that the next layer with weights reads: what FF of `layer` stores."""
    for later in network.mac_layers:
        if network.source_of(later.inputs[0]) == layer.name:
            return later.inputs[0]
    return layer.name


def _pools_between(network: Network, first: str, last: str) -> bool:
    """Whether a pooling stands between the tensors `first` and `last`."""
    while last not in (first, INPUT):
        layer = network.layer(last)
        if isinstance(layer, MaxPool2d):
            return True
        last = layer.inputs[0]
    return False
