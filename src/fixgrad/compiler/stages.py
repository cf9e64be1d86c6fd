"""A layer with weights as the machine runs it: a stage, with what POST does behind it forward and backward."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from fixgrad.compiler.geometry import Axis
from fixgrad.compiler.infeasible import Infeasible
from fixgrad.network import Conv2d, Flatten, Layer, Linear, MacLayer, MaxPool2d, Network, ReLU
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
class ErrorSink:
    """Where POST puts the error that NG of a stage makes.

    Attributes:
        tensor: name of that error in the step table: the stage's input, or ``tensor@layer`` where others read that too.
        map: what is written, region ``error/NAME``.
        random: region with the first random element of each channel.
        masked: whether the error is 0 where the stage's source is not above 0.
        before: the stage whose output it is, through its pooling and rectifying, so that POST does these backward; None where
            the error is one of several or of a layer without weights.
    """

    tensor: str
    map: FeatureMap
    random: str
    masked: bool
    before: "Stage | None" = None

    @property
    def pool(self) -> tuple[int, int]:
        """Window that the error is scattered into; (1, 1) for none."""
        return (1, 1) if self.before is None else self.before.pool

    @property
    def argmax(self) -> str | None:
        """Region with the places of the maxima."""
        return None if self.before is None or not self.before.is_pooled else f"argmax/{self.before.name}"

    @property
    def bias_gradient(self) -> str | None:
        """Region of the bias gradients that POST adds to."""
        return None if self.before is None or not self.before.layer.bias else f"bias_gradient/{self.before.name}"


@dataclass(frozen=True, slots=True)
class Stage:
    """A layer with weights, and the rectifying, pooling and flattening behind it.

    Attributes:
        index: its number.
        layer: the layer.
        source: the map that it reads.
        target: the map that POST stores: behind ReLU and pooling.
        error: the error of the layer's output, before pooling: what WG and NG of this stage read, region ``error/NAME``.
        rows, columns: the convolution along each axis (of size 1 for a linear layer).
        rectify: of FF.
        pool: window behind the convolution; (1, 1) for none.
        source_pixels: pixels of the source that are columns of their own: all of them for a linear layer, 1 for a convolution.
        sink: of NG; None where no layer before has a parameter.
    """

    index: int
    layer: MacLayer
    source: FeatureMap
    target: FeatureMap
    error: FeatureMap
    rows: Axis
    columns: Axis
    rectify: Rectify
    pool: tuple[int, int]
    source_pixels: int
    sink: ErrorSink | None = None

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
    def is_pooled(self) -> bool:
        return self.pool != (1, 1)

    @property
    def masked(self) -> bool:
        """Whether NG of this stage is 0 where the source is not above 0."""
        return self.sink is not None and self.sink.masked


def make_stage(index: int, layer: MacLayer, tail: Sequence[Layer], source: FeatureMap, target: FeatureMap) -> Stage:
    """The stage of a layer, without the way of its errors.

    Args:
        tail: what POST does behind it.
        target: see `stored_map`.
    """
    pool = next((item.window for item in tail if isinstance(item, MaxPool2d)), (1, 1))
    rows, columns = _axes(layer, source)
    return Stage(
        index=index,
        layer=layer,
        source=source,
        target=target,
        error=FeatureMap(layer.name, layer.out_channels, rows.out_size, columns.out_size, (layer.name,)),
        rows=rows,
        columns=columns,
        rectify=_rectify(layer, tail),
        pool=pool,
        source_pixels=source.pixels if isinstance(layer, Linear) else 1,
    )


def _rectify(layer: MacLayer, tail: Sequence[Layer]) -> Rectify:
    if layer.relu:
        return Rectify.ACCUMULATORS
    return Rectify.CODES if any(isinstance(item, ReLU) for item in tail) else Rectify.NONE


def stored_tensors(layer: MacLayer, tail: Sequence[Layer]) -> tuple[str, ...]:
    """The tensors of a stage that its map holds: from the last layer on that changes codes or shape."""
    rectify = _rectify(layer, tail)
    changes = [
        position
        for position, item in enumerate(tail)
        if isinstance(item, MaxPool2d) or (isinstance(item, ReLU) and rectify is Rectify.CODES)
    ]
    names = [layer.name, *(item.name for item in tail)]
    return tuple(names[changes[-1] + 1 if changes else 0 :])


def map_of(network: Network, chain: Sequence[str], tensors: Sequence[str], bits: int) -> FeatureMap:
    """The map that holds some tensors of the same bytes, named by the last.

    Args:
        chain: of tensors, each made from the one before, that ends with them; the last one that is not flattened has its shape.
    """
    shape = next((network.shapes[name] for name in reversed(chain) if len(network.shapes[name]) == 3), None)
    channels, rows, columns = shape if shape else (network.shapes[chain[0]][0], 1, 1)
    return FeatureMap(tensors[-1], channels, rows, columns, tuple(tensors), bits)


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


def unfit_convolution(layer: Conv2d, shape: Shape) -> Iterator[Infeasible]:
    """What the fields of COMPUTE do not hold."""
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


def unfit_tail(layer: MacLayer, tail: Sequence[Layer]) -> Iterator[Infeasible]:
    """What POST cannot do behind a layer."""
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
