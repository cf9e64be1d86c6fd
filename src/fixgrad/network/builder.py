"""Builds a network layer by layer, following the shapes."""

from fixgrad.network.batch_norm import WIDE_BITS, BatchNorm
from fixgrad.network.graph import INPUT, Network
from fixgrad.network.junctions import Add, Dropout
from fixgrad.network.layers import Conv2d, Flatten, Layer, Linear, Shape
from fixgrad.network.windows import AdaptiveAvgPool2d
from fixgrad.numbers.convolution import ConvGeometry

#: Width of the codes of the last layer.
LOGIT_BITS = 16


class NetworkBuilder:
    """Layers so far, and the shapes of their tensors. Each method appends a layer and returns the name of its tensor."""

    def __init__(self, name: str, input_shape: Shape, input_frac: int) -> None:
        self._name = name
        self._input_frac = input_frac
        self._layers: list[Layer] = []
        self._shapes: dict[str, Shape] = {INPUT: input_shape}

    def append(self, layer: Layer) -> str:
        """Any layer."""
        self._shapes[layer.name] = layer.output_shape(*(self._shapes[tensor] for tensor in layer.inputs))
        self._layers.append(layer)
        return layer.name

    def channels(self, tensor: str) -> int:
        """Channels, or features, of a tensor."""
        return self._shapes[tensor][0]

    def conv_norm(
        self, name: str, norm: str, tensor: str, filters: int, kernel: int, stride: int = 1, groups: int = 1, **rectifier: bool
    ) -> str:
        """A convolution padded to the same size without a bias, and its normalisation; `relu` and `clip6` go to the latter."""
        convolution = Conv2d(
            name=name,
            inputs=(tensor,),
            in_channels=self.channels(tensor),
            filters=filters,
            kernel=(kernel, kernel),
            geometry=ConvGeometry((stride, stride), (kernel // 2, kernel // 2), groups=groups),
            bias=False,
            out_bits=WIDE_BITS,
        )
        return self.append(BatchNorm(name=norm, inputs=(self.append(convolution),), channels=filters, **rectifier))

    def add(self, name: str, *tensors: str, relu: bool = False) -> str:
        """A sum."""
        return self.append(Add(name=name, inputs=tensors, relu=relu))

    def classifier(self, name: str, tensor: str, classes: int, dropout: float = 0.0) -> Network:
        """Global average, dropout and a linear layer: the network is complete."""
        tensor = self.append(AdaptiveAvgPool2d(name="avgpool", inputs=(tensor,)))
        tensor = self.append(Flatten(name="flatten", inputs=(tensor,)))
        if dropout:
            tensor = self.append(Dropout(name="dropout", inputs=(tensor,), p=dropout))
        features = self.channels(tensor)
        self.append(Linear(name=name, inputs=(tensor,), in_features=features, out_features=classes, out_bits=LOGIT_BITS))
        return Network(self._name, self._shapes[INPUT], self._input_frac, tuple(self._layers))
