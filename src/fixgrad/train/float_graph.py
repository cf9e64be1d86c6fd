"""A network of any shape as an ordinary float32 module, for the baseline."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fixgrad.network import (
    INPUT,
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MacLayer,
    MaxPool2d,
    Network,
    PadChannels,
    ReLU,
    ReLU6,
    SlidingMaxPool2d,
)


class FloatBatchNorm(nn.Module):
    """Batch normalisation whose parameters have the names that a `Network` gives them.

    Attributes:
        gamma, beta: parameters.
        running_mean, running_variance: what evaluation uses.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, layer: BatchNorm) -> None:
        super().__init__()
        self._layer = layer
        self.gamma, self.beta = nn.Parameter(torch.ones(layer.channels)), nn.Parameter(torch.zeros(layer.channels))
        self.register_buffer("running_mean", torch.zeros(layer.channels))
        self.register_buffer("running_variance", torch.ones(layer.channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised with the statistics of the batch in training, with the running ones in evaluation."""
        running = self.running_mean, self.running_variance
        y = F.batch_norm(x, *running, self.gamma, self.beta, self.training, self._layer.momentum, self._layer.eps)
        return rectified(y, self._layer)


class PaddedChannels(nn.Module):
    """Zero channels before and behind."""

    def __init__(self, layer: PadChannels) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, ...] with more channels."""
        return F.pad(x, (*(0,) * (2 * (x.dim() - 2)), self._layer.before, self._layer.behind))


class Summed(nn.Module):
    """The sum of tensors."""

    def __init__(self, layer: Add) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, *inputs: Tensor) -> Tensor:
        """The sum, rectified where the layer is."""
        return rectified(torch.stack(inputs).sum(dim=0) if len(inputs) > 2 else inputs[0] + inputs[1], self._layer)


class Joined(nn.Module):
    """Tensors one behind the other along the channels."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """[batch, channels, ...]"""
        return torch.cat(inputs, dim=1)


class Rectified(nn.Module):
    """A layer with weights and the rectifier that is part of it."""

    def __init__(self, layer: MacLayer, module: nn.Module) -> None:
        super().__init__()
        self._layer, self.module = layer, module

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, rectified where the layer is."""
        return rectified(self.module(x), self._layer)


class FloatGraph(nn.Module):
    """A network as a module: float32 [batch, channels, height, width] in, logits [batch, classes] out."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network
        self.parts = nn.ModuleList(float_layer(layer) for layer in network)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        tensors = {INPUT: x}
        for layer, part in zip(self._network, self.parts, strict=True):
            tensors[layer.name] = part(*(tensors[name] for name in layer.inputs))
        return tensors[self._network.logits]

    def tensors_by_name(self) -> dict[str, Tensor]:
        """Parameters and running statistics, by the names of the network."""
        found: dict[str, Tensor] = {}
        for layer, part in zip(self._network, self.parts, strict=True):
            owner = part.module if isinstance(part, Rectified) else part
            for name, tensor in (*owner.named_parameters(), *owner.named_buffers()):
                found[f"{layer.name}.{name}"] = tensor
        return found


def rectified(y: Tensor, layer: Layer) -> Tensor:
    """y behind the rectifier that is part of the layer."""
    if not layer.rectifies:
        return y
    return F.relu(y) if layer.ceiling is None else F.hardtanh(y, 0.0, float(layer.ceiling))


def _convolution(layer: Conv2d) -> nn.Module:
    geometry = layer.geometry
    moves = geometry.stride, geometry.padding, geometry.dilation, geometry.groups
    return nn.Conv2d(layer.in_channels, layer.filters, layer.kernel, *moves, layer.bias)


def plain_layer(layer: Layer) -> nn.Module:
    """The module of one layer, without the rectifier of a layer with weights."""
    return _MODULES[type(layer)](layer)


def float_layer(layer: Layer) -> nn.Module:
    """The module of one layer."""
    return Rectified(layer, plain_layer(layer)) if isinstance(layer, MacLayer) else plain_layer(layer)


_MODULES: dict[type[Layer], Callable[..., nn.Module]] = {
    Conv2d: _convolution,
    Linear: lambda layer: nn.Linear(layer.in_features, layer.out_features, layer.bias),
    ReLU: lambda layer: nn.ReLU(),
    ReLU6: lambda layer: nn.ReLU6(),
    MaxPool2d: lambda layer: nn.MaxPool2d(layer.window),
    Flatten: lambda layer: nn.Flatten(),
    BatchNorm: FloatBatchNorm,
    Add: Summed,
    Concat: lambda layer: Joined(),
    PadChannels: PaddedChannels,
    Dropout: lambda layer: nn.Dropout(layer.p),
    AdaptiveAvgPool2d: lambda layer: nn.AdaptiveAvgPool2d(layer.output),
    AvgPool2d: lambda layer: nn.AvgPool2d(
        layer.window, layer.geometry.stride, layer.geometry.padding, count_include_pad=layer.count_padding
    ),
    SlidingMaxPool2d: lambda layer: nn.MaxPool2d(
        layer.window, layer.geometry.stride, layer.geometry.padding, layer.geometry.dilation
    ),
}
