"""A network: a graph of layers in order, with every shape worked out and checked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from fixgrad.errors import UsageError
from fixgrad.network.batch_norm import BatchNorm
from fixgrad.network.junctions import Add, Concat, Dropout, PadChannels, ReLU6
from fixgrad.network.layers import Conv2d, Flatten, Layer, Linear, MacLayer, MaxPool2d, ReLU, Shape, layer_from_dict
from fixgrad.network.recipe import OPERAND_BITS
from fixgrad.network.windows import AdaptiveAvgPool2d, AvgPool2d, SlidingMaxPool2d

INPUT = "input"
#: What the machine's instruction set expresses, as long as each layer reads the one before it.
CHAIN_LAYERS = (Conv2d, Linear, ReLU, MaxPool2d, Flatten)
_JOINING = (Add, Concat)
_KNOWN = (*CHAIN_LAYERS, *_JOINING, ReLU6, PadChannels, Dropout, SlidingMaxPool2d, AvgPool2d, AdaptiveAvgPool2d, BatchNorm)


class Reader(NamedTuple):
    """A layer that reads a tensor, and the place of the tensor among the layer's inputs."""

    layer: Layer
    position: int


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
            if not isinstance(layer, _JOINING) and len(layer.inputs) != 1:
                raise UsageError(f"{layer.name} reads {len(layer.inputs)} tensors: {layer.kind} takes one")
            shapes[layer.name] = layer.output_shape(*(shapes[name] for name in layer.inputs))
        object.__setattr__(self, "shapes", shapes)
        if not self.mac_layers:
            raise UsageError(f"{self.name} has no convolution and no linear layer: there is nothing to train")
        self._check_ends()
        self._check_widths()

    def _check_ends(self) -> None:
        unread = [tensor for tensor in (INPUT, *(layer.name for layer in self.layers[:-1])) if not self.readers[tensor]]
        if unread:
            raise UsageError(f"{unread[0]} of {self.name} is read by no layer: only the last one, {self.logits}, may be")
        if not isinstance(self.layers[-1], MacLayer):
            raise UsageError(f"{self.name} ends with {self.layers[-1].name}: it must end with the layer that gives the logits")
        if len(self.shapes[self.logits]) != 1:
            raise UsageError(f"{self.logits} gives the shape {self.shapes[self.logits]}: the logits must be a vector")

    def _check_widths(self) -> None:
        joining = (layer for layer in self.layers if layer.rescales and not isinstance(layer, MacLayer | BatchNorm))
        for layer in joining:
            for tensor in layer.inputs:
                bits = self.code_bits(tensor)
                if bits > OPERAND_BITS:
                    raise UsageError(f"{layer.name} reads codes of {bits} bits from {tensor}: it takes {OPERAND_BITS}")

    @cached_property
    def readers(self) -> dict[str, list[Reader]]:
        """Who reads each tensor, in order."""
        found: dict[str, list[Reader]] = {INPUT: [], **{layer.name: [] for layer in self.layers}}
        for layer in self.layers:
            for position, tensor in enumerate(layer.inputs):
                found[tensor].append(Reader(layer, position))
        return found

    @cached_property
    def is_chain(self) -> bool:
        """Whether the machine's instruction set expresses the network: see `outside_of_a_chain`."""
        return not self.outside_of_a_chain

    @cached_property
    def outside_of_a_chain(self) -> tuple[Layer, ...]:
        """Layers of a kind that the machine does not compute, or that do not read just the layer before them."""
        before = (INPUT, *(layer.name for layer in self.layers))
        return tuple(
            layer
            for layer, tensor in zip(self.layers, before, strict=False)
            if not isinstance(layer, CHAIN_LAYERS) or layer.inputs != (tensor,)
        )

    @cached_property
    def trainable(self) -> frozenset[str]:
        """The tensors that depend on a parameter: they have an error. The input has none."""
        found: set[str] = set()
        for layer in self.layers:
            if layer.parameters or found.intersection(layer.inputs):
                found.add(layer.name)
        return frozenset(found)

    def error_name(self, tensor: str, layer: Layer) -> str:
        """Name of the error that `layer` sends to `tensor`: the tensor's own where nobody else reads it."""
        return tensor if len(self.readers[tensor]) == 1 else f"{tensor}@{layer.name}"

    @cached_property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        """The layers that normalise, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, BatchNorm))

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
        return {name: shape for layer in self.layers for name, shape in layer.parameters.items()}

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
            layer = self._by_name[tensor]
            if layer.rescales:
                break
            tensor = layer.inputs[0]
        return tensor

    def code_bits(self, tensor: str) -> int:
        """Width of the codes of `tensor`."""
        source = self.source_of(tensor)
        return OPERAND_BITS if source == INPUT else self._by_name[source].code_bits

    def rectifier_of(self, tensor: str) -> Layer | None:
        """The layer whose rectifier a zero of `tensor` tells to be closed, so that no error passes; None if there is none."""
        while tensor != INPUT:
            layer = self._by_name[tensor]
            if layer.rectifies:
                return layer
            if layer.rescales:
                break
            tensor = layer.inputs[0]
        return None

    def is_rectified(self, tensor: str) -> bool:
        """Whether a zero of `tensor` means that its rectifier is closed, so that no error passes."""
        return self.rectifier_of(tensor) is not None

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

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
