"""The network as the machine runs it: one stage for each layer with weights, with what its post-processor does behind it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from fixgrad.compiler.geometry import Axis
from fixgrad.compiler.infeasible import Infeasible, InfeasibleError
from fixgrad.network import INPUT, Conv2d, Flatten, Layer, Linear, MacLayer, MaxPool2d, Network, ReLU
from fixgrad.network.layers import Shape
from fixgrad.network.recipe import OPERAND_BITS

#: The instruction's fields for these sizes end here.
MAX_EDGE, MAX_KERNEL, MAX_STEP, MAX_POOL = 1023, 15, 15, 7


class Rectify(IntEnum):
    """Where POST rectifies: not at all, the accumulators (a layer's `relu`), or the codes (a ReLU that stands alone)."""

    NONE = 0
    ACCUMULATORS = 1
    CODES = 2


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """A tensor in memory.

    Attributes:
        name: of the last tensor that it holds.
        channels, rows, columns: of one image.
        tensors: names of all tensors whose codes it holds: a flattened map holds the same bytes as the map.
        bits: width of its codes.
    """

    name: str
    channels: int
    rows: int
    columns: int
    tensors: tuple[str, ...]
    bits: int = OPERAND_BITS

    @property
    def pixels(self) -> int:
        return self.rows * self.columns

    @property
    def words(self) -> int:
        """Words of a micro-batch: one pixel of one channel for all lanes each."""
        return self.channels * self.pixels


@dataclass(frozen=True, slots=True)
class Stage:
    """A layer with weights, and the rectifying, pooling and flattening behind it.

    Attributes:
        index: its number.
        layer: the layer.
        source: the map that it reads.
        target: the map that POST stores: behind ReLU and pooling.
        rows, columns: the convolution along each axis (of size 1 for a linear layer).
        rectify: of FF.
        pool: window behind the convolution; (1, 1) for none.
        masked: whether NG of this stage is 0 where the source is not above 0.
        source_pixels: pixels of the source that are columns of their own: all of them for a linear layer, 1 for a convolution.
    """

    index: int
    layer: MacLayer
    source: FeatureMap
    target: FeatureMap
    rows: Axis
    columns: Axis
    rectify: Rectify
    pool: tuple[int, int]
    masked: bool
    source_pixels: int

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def taps(self) -> int:
        """Weights of a kernel."""
        return self.rows.kernel * self.columns.kernel

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(output channels, columns): a column is an input channel, or an input channel of one pixel for a linear layer."""
        return self.layer.out_channels, self.source.channels * self.source_pixels

    @property
    def out_pixels(self) -> int:
        """Pixels of one output channel before pooling."""
        return self.rows.out_size * self.columns.out_size

    @property
    def error(self) -> FeatureMap:
        """The error of the layer's output, before pooling: what WG and NG of this stage read."""
        return FeatureMap(self.name, self.layer.out_channels, self.rows.out_size, self.columns.out_size, (self.name,))

    @property
    def is_pooled(self) -> bool:
        return self.pool != (1, 1)


def input_layers(network: Network) -> tuple[Layer, ...]:
    """Layers without weights before the first one with: the host computes them when it writes the input."""
    first = next(index for index, layer in enumerate(network.layers) if isinstance(layer, MacLayer))
    return network.layers[:first]


def stages(network: Network) -> tuple[Stage, ...]:
    """The stages of `network`.

    Raises:
        InfeasibleError: the instruction set cannot express a layer; every reason is listed.
    """
    reasons = list(_unsupported(network))
    if reasons:
        raise InfeasibleError(reasons)
    before = input_layers(network)
    tensors = (INPUT, *(layer.name for layer in before))
    source, found = _map(network, tensors, len(tensors) - 1, OPERAND_BITS), list[Stage]()
    for layer, tail in _tails(network):
        stage = _stage(len(found), layer, tail, source, network)
        found.append(stage)
        source = stage.target
    return tuple(found)


def _tails(network: Network) -> Iterator[tuple[MacLayer, list[Layer]]]:
    """Each layer with weights, and the layers without up to the next one with."""
    start = len(input_layers(network))
    layer, tail = network.layers[start], list[Layer]()
    for following in network.layers[start + 1 :]:
        if isinstance(following, MacLayer):
            assert isinstance(layer, MacLayer)
            yield layer, tail
            layer, tail = following, []
        else:
            tail.append(following)
    assert isinstance(layer, MacLayer)
    yield layer, tail


def _stage(index: int, layer: MacLayer, tail: list[Layer], source: FeatureMap, network: Network) -> Stage:
    stands_alone = any(isinstance(item, ReLU) for item in tail)
    rectify = Rectify.ACCUMULATORS if layer.relu else Rectify.CODES if stands_alone else Rectify.NONE
    pool = next((item.window for item in tail if isinstance(item, MaxPool2d)), (1, 1))
    rows, columns = _axes(layer, source)
    return Stage(
        index=index,
        layer=layer,
        source=source,
        target=_target(layer, tail, rectify, network),
        rows=rows,
        columns=columns,
        rectify=rectify,
        pool=pool,
        masked=network.is_rectified(layer.inputs[0]),
        source_pixels=source.pixels if isinstance(layer, Linear) else 1,
    )


def _target(layer: MacLayer, tail: list[Layer], rectify: Rectify, network: Network) -> FeatureMap:
    """The stored map: the tensors from the last layer on that changes codes or shape."""
    changes = [
        position
        for position, item in enumerate(tail)
        if isinstance(item, MaxPool2d) or (isinstance(item, ReLU) and rectify is Rectify.CODES)
    ]
    names = [layer.name, *(item.name for item in tail)]
    return _map(network, names, changes[-1] + 1 if changes else 0, layer.out_bits)


def _map(network: Network, chain: Sequence[str], stored_from: int, bits: int) -> FeatureMap:
    """The map that holds the tensors of `chain` from `stored_from` on; its shape is the last one that is not flattened."""
    shape = next((network.shapes[name] for name in reversed(chain) if len(network.shapes[name]) == 3), None)
    channels, rows, columns = shape if shape else (network.shapes[chain[0]][0], 1, 1)
    return FeatureMap(chain[-1], channels, rows, columns, tuple(chain[stored_from:]), bits)


def _axes(layer: MacLayer, source: FeatureMap) -> tuple[Axis, Axis]:
    if not isinstance(layer, Conv2d):
        return Axis(1, 1), Axis(1, 1)
    out = layer.geometry.output_size(source.rows, source.columns, *layer.kernel)
    geometry = layer.geometry
    rows, columns = (
        Axis(size, out[axis], layer.kernel[axis], geometry.stride[axis], geometry.padding[axis], geometry.dilation[axis])
        for axis, size in enumerate((source.rows, source.columns))
    )
    return rows, columns


def _unsupported(network: Network) -> Iterator[Infeasible]:
    for layer, tail in _tails(network):
        if isinstance(layer, Conv2d):
            yield from _unsupported_convolution(layer, network.input_shape_of(layer))
        last = layer.name == network.logits
        if layer.out_bits > (16 if last else OPERAND_BITS):
            yield Infeasible(
                layer.name, "ff", "bits for each output code", layer.out_bits, 16 if last else OPERAND_BITS,
                ("out_bits of 8, the width of a multiplier's operand",),
            )  # fmt: skip
        yield from _unsupported_tail(layer, tail)


def _unsupported_convolution(layer: Conv2d, shape: Shape) -> Iterator[Infeasible]:
    geometry = layer.geometry
    limits = (
        ("pixels along an edge", max(shape[1:]), MAX_EDGE, "smaller images"),
        ("taps along an edge of the kernel", max(layer.kernel), MAX_KERNEL, "a smaller kernel"),
        ("pixels of stride", max(geometry.stride), MAX_STEP, "a smaller stride"),
        ("pixels of padding", max(geometry.padding), MAX_STEP, "less padding"),
        ("pixels of dilation", max(geometry.dilation), MAX_STEP, "less dilation"),
    )
    for what, needed, available, remedy in limits:
        if needed > available:
            yield Infeasible(layer.name, "ff", what, needed, available, (remedy,))


def _unsupported_tail(layer: MacLayer, tail: list[Layer]) -> Iterator[Infeasible]:
    pools = [item for item in tail if isinstance(item, MaxPool2d)]
    if len(pools) > 1:
        yield Infeasible(pools[1].name, "ff", "poolings behind one layer", len(pools), 1, ("one pool of the combined window",))
    for pool in pools:
        if max(pool.window) > MAX_POOL:
            yield Infeasible(pool.name, "ff", "pixels along an edge of the window", max(pool.window), MAX_POOL, ("a smaller window",))
    if layer.out_bits > OPERAND_BITS and tail:
        yield Infeasible(tail[0].name, "ff", "bits a code behind the logits", layer.out_bits, OPERAND_BITS, ("no layer behind them",))
    flat = next((position for position, item in enumerate(tail) if isinstance(item, Flatten)), None)
    assert flat is None or not any(isinstance(item, MaxPool2d) for item in tail[flat:])
