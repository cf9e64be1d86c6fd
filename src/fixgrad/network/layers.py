"""The layers of a network, as both the training half and the hardware half see them. No torch, no weights: shapes alone.

Every layer is one immutable node of a graph. Its name is also the name of the tensor that it produces. A feature map has
the shape (channels, height, width) and a vector the shape (features,): the batch is never part of a shape here.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from fixgrad.errors import UsageError
from fixgrad.network.recipe import OPERAND_BITS
from fixgrad.numbers.convolution import ConvGeometry

Shape = tuple[int, ...]
#: Every layer, by the kind that its dictionary names.
LAYER_KINDS: dict[str, type["Layer"]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What all layers have: a name, and the names of the tensors that they read."""

    name: str
    inputs: tuple[str, ...]
    kind: ClassVar[str]
    #: Whether its output is made anew from accumulators, with a scale of its own. Others pass codes on in their format.
    rescales: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            LAYER_KINDS[cls.kind] = cls

    @property
    def rescales_error(self) -> bool:
        """Whether the error of its input is made anew from accumulators. Others pass error codes on in their format."""
        return self.rescales

    @property
    def code_bits(self) -> int:
        """Width of the codes that a layer with a scale of its own gives."""
        return OPERAND_BITS

    @property
    def rectifies(self) -> bool:
        """Whether the layer itself sets negative values to zero."""
        return False

    @property
    def ceiling(self) -> int | None:
        """The value at which a rectifying layer cuts its output off: 6 for ReLU6."""
        return None

    @property
    def parameters(self) -> dict[str, Shape]:
        """Name and shape of each parameter."""
        return {}

    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the output; raises UsageError where the inputs do not fit."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values, with the layer's kind."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class MacLayer(Layer):
    """A layer with weights: it multiplies, accumulates in 32 bits, adds its bias, rectifies, and requantises.

    Attributes:
        bias: whether there is one.
        relu: whether the accumulators are rectified before they are requantised.
        out_bits: width of the output codes: 8 for an operand of a further layer, 16 for the logits.
    """

    rescales: ClassVar[bool] = True
    bias: bool = True
    relu: bool = False
    out_bits: int = OPERAND_BITS

    @property
    def code_bits(self) -> int:
        return self.out_bits

    @property
    def rectifies(self) -> bool:
        return self.relu

    @property
    def weight_shape(self) -> Shape:
        """Shape of the weights, output channels first."""
        raise NotImplementedError

    @property
    def out_channels(self) -> int:
        """Output channels, or output features."""
        return self.weight_shape[0]

    @property
    def parameters(self) -> dict[str, Shape]:
        """Name and shape of each parameter, ``conv1.weight`` and ``conv1.bias``."""
        shapes = {f"{self.name}.weight": self.weight_shape}
        if self.bias:
            shapes[f"{self.name}.bias"] = (self.out_channels,)
        return shapes

    def macs(self, output: Shape) -> int:
        """Multiply-accumulates of one pass over one image when nothing is pruned and padding is counted."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv2d(MacLayer):
    """A convolution. Weights are [out_channels, in_channels / groups, kernel height, kernel width]."""

    kind: ClassVar[str] = "conv2d"
    in_channels: int
    filters: int
    kernel: tuple[int, int]
    geometry: ConvGeometry = field(default_factory=ConvGeometry)

    @property
    def weight_shape(self) -> Shape:
        return (self.filters, self.in_channels // self.geometry.groups, *self.kernel)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if len(shape) != 3 or shape[0] != self.in_channels:
            raise UsageError(f"{self.name} reads {self.in_channels} channels, but its input has the shape {shape}")
        return (self.filters, *self.geometry.output_size(shape[1], shape[2], *self.kernel))

    def macs(self, output: Shape) -> int:
        _, per_filter, height, width = self.weight_shape
        return self.filters * per_filter * height * width * output[1] * output[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(MacLayer):
    """A fully connected layer. Weights are [out_features, in_features]."""

    kind: ClassVar[str] = "linear"
    in_features: int
    out_features: int

    @property
    def weight_shape(self) -> Shape:
        return (self.out_features, self.in_features)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if shape != (self.in_features,):
            raise UsageError(
                f"{self.name} reads {self.in_features} features, but its input has the shape {shape}: "
                f"flatten it first, or change in_features"
            )
        return (self.out_features,)

    def macs(self, output: Shape) -> int:
        return self.in_features * self.out_features


@dataclass(frozen=True, slots=True, kw_only=True)
class ReLU(Layer):
    """A rectifier that stands alone (one that follows a MAC layer is that layer's `relu` flag)."""

    kind: ClassVar[str] = "relu"

    @property
    def rectifies(self) -> bool:
        return True

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool2d(Layer):
    """Maximum over windows that do not overlap; the first of equal maxima, in raster order, takes the error."""

    kind: ClassVar[str] = "maxpool2d"
    window: tuple[int, int] = (2, 2)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if len(shape) != 3 or shape[1] < self.window[0] or shape[2] < self.window[1]:
            raise UsageError(f"{self.name} pools windows of {self.window}, but its input has the shape {shape}")
        return (shape[0], shape[1] // self.window[0], shape[2] // self.window[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatten(Layer):
    """A feature map as a vector, in the order channel, row, column."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, *inputs: Shape) -> Shape:
        size = 1
        for extent in inputs[0]:
            size *= extent
        return (size,)


def layer_from_dict(fields: Mapping[str, Any]) -> Layer:
    """The layer that `Layer.to_dict` wrote; raises UsageError for an unknown kind or a wrong field."""
    values = dict(fields)
    kind = values.pop("kind", None)
    if kind not in LAYER_KINDS:
        raise UsageError(f"layer kind {kind!r} is unknown: it must be one of {', '.join(LAYER_KINDS)}")
    values["inputs"] = tuple(values.get("inputs", ()))
    for name, value in values.items():
        if isinstance(value, list):  # a pair, which JSON knows as a list alone
            values[name] = tuple(value)
    if "geometry" in values:
        geometry: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values["geometry"].items()
        }
        values["geometry"] = ConvGeometry(**geometry)
    try:
        return LAYER_KINDS[kind](**values)
    except TypeError as problem:
        raise UsageError(f"layer {values.get('name')!r} of kind {kind}: {problem}") from None
