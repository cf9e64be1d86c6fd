"""A network: layers in order, with every shape worked out and checked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fixgrad.errors import UsageError
from fixgrad.network.layers import Flatten, Layer, MacLayer, MaxPool2d, ReLU, Shape, layer_from_dict

INPUT = "input"


@dataclass(frozen=True)
class Network:
    """An immutable description of a network.

    Attributes:
        name: for tables and files.
        input_shape: (channels, height, width) of one image.
        input_frac: fractional bits of the 8-bit input codes.
        layers: in an order in which each reads only tensors that stand before it. The last one gives the logits.

    Raises:
        UsageError: a name twice, a tensor that does not exist, shapes that do not fit, or no layer with weights.
    """

    name: str
    input_shape: Shape
    input_frac: int
    layers: tuple[Layer, ...]
    shapes: Mapping[str, Shape] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shapes: dict[str, Shape] = {INPUT: tuple(self.input_shape)}
        for layer in self.layers:
            if layer.name in shapes:
                raise UsageError(f"two layers of {self.name} are named {layer.name!r}: names must differ")
            missing = [name for name in layer.inputs if name not in shapes]
            if missing:
                raise UsageError(f"{layer.name} reads {missing[0]!r}, which no layer before it produces")
            shapes[layer.name] = layer.output_shape(*(shapes[name] for name in layer.inputs))
        object.__setattr__(self, "shapes", shapes)
        if not self.mac_layers:
            raise UsageError(f"{self.name} has no convolution and no linear layer: there is nothing to train")
        self._check_chain()

    def _check_chain(self) -> None:
        expected = INPUT
        for layer in self.layers:
            if layer.inputs != (expected,):
                raise UsageError(
                    f"{layer.name} reads {', '.join(layer.inputs)}: every layer must read the one before it ({expected})"
                )
            expected = layer.name
        if not isinstance(self.layers[-1], MacLayer):
            raise UsageError(f"{self.name} ends with {self.layers[-1].name}: it must end with the layer that gives the logits")
        if len(self.shapes[self.logits]) != 1:
            raise UsageError(f"{self.logits} gives the shape {self.shapes[self.logits]}: the logits must be a vector")

    @cached_property
    def mac_layers(self) -> tuple[MacLayer, ...]:
        """The layers with weights, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, MacLayer))

    @property
    def logits(self) -> str:
        """Name of the last tensor."""
        return self.layers[-1].name

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.shapes[self.logits][0]

    @cached_property
    def parameters(self) -> dict[str, Shape]:
        """Name and shape of every parameter, in order."""
        return {name: shape for layer in self.mac_layers for name, shape in layer.parameters.items()}

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise UsageError(f"{self.name} has no layer {name!r}: it has {', '.join(layer.name for layer in self.layers)}")

    def input_shape_of(self, layer: Layer) -> Shape:
        """Shape of the (first) tensor that the layer reads."""
        return self.shapes[layer.inputs[0]]

    def source_of(self, tensor: str) -> str:
        """The tensor whose number format `tensor` shares: pooling, flattening and rectifying pass codes on unchanged."""
        while tensor != INPUT:
            layer = self.layer(tensor)
            if isinstance(layer, MacLayer):
                break
            tensor = layer.inputs[0]
        return tensor

    def is_rectified(self, tensor: str) -> bool:
        """Whether a zero of `tensor` means that its rectifier is closed, so that no error passes."""
        while tensor != INPUT:
            layer = self.layer(tensor)
            if isinstance(layer, ReLU) or (isinstance(layer, MacLayer) and layer.relu):
                return True
            if not isinstance(layer, MaxPool2d | Flatten):
                return False
            tensor = layer.inputs[0]
        return False

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values from which `from_dict` makes an equal network."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "input_frac": self.input_frac,
            "layers": [layer.to_dict() for layer in self.layers],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Network":
        """The network that `to_dict` wrote."""
        try:
            layers: Sequence[Mapping[str, Any]] = fields["layers"]
            shape = tuple(int(extent) for extent in fields["input_shape"])
            return cls(str(fields["name"]), shape, int(fields["input_frac"]), tuple(map(layer_from_dict, layers)))
        except KeyError as missing:
            raise UsageError(f"the network description lacks {missing}") from None
