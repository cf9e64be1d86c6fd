"""From an ordinary `torch.nn.Module` to a `Network`: the user's network is taken as it is, nobody rewrites it.

The module is traced with `torch.fx`; each node becomes a layer, or is listed with what to use instead. All that does not
fit is found before anything is refused.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from fixgrad.errors import UsageError
from fixgrad.network import INPUT, BatchNorm, Dropout, Layer, MacLayer, Network, ReLU, ReLU6
from fixgrad.network.layers import Shape
from fixgrad.train.capture_calls import Call, Layers, adaptive_pool, flattened, layers_of_call
from fixgrad.train.capture_fuse import fused
from fixgrad.train.capture_modules import UnsupportedError, advice_for_module, average_pool, batch_norm, mac_layer, max_pool
from fixgrad.train.capture_trace import gives_tensors, label_of, shape_of, traced

__all__ = ["Captured", "CapturedModule", "capture", "capture_module"]


class Captured(NamedTuple):
    """A network, and the initial value of every parameter (float64, by name: ``features_0.weight``)."""

    network: Network
    weights: dict[str, NDArray[np.float64]]


class CapturedModule(NamedTuple):
    """A network, and where its numbers lie in the module.

    Attributes:
        network: what the module computes.
        tensors: the module's own parameters and running statistics, by their names in the network (``layer1_0_bn1.gamma``,
            ``layer1_0_bn1.running_mean``).
    """

    network: Network
    tensors: dict[str, Tensor]

    @property
    def weights(self) -> dict[str, NDArray[np.float64]]:
        """Copies of the values."""
        return {name: _values(tensor) for name, tensor in self.tensors.items()}


def capture(module: nn.Module, name: str, input_shape: Shape, input_frac: int) -> Captured:
    """Describe `module` as a network, with its own weights (and running statistics) as the initial ones.

    Layers are named by their path in the module with ``_`` for dots. A rectifier after a convolution, linear layer,
    normalisation or sum becomes part of it. See docs/training.md for what is understood.

    Args:
        module: maps float images [batch, channels, height, width] to logits [batch, classes].
        name: of the network.
        input_shape: (channels, height, width).
        input_frac: fractional bits of the 8-bit input codes.

    Raises:
        UsageError: something in it cannot be trained in fixed point; every such layer is named, with what to use.
    """
    captured = capture_module(module, name, input_shape, input_frac)
    return Captured(captured.network, captured.weights)


def capture_module(module: nn.Module, name: str, input_shape: Shape, input_frac: int) -> CapturedModule:
    """The same, with the module's tensors in place of their values."""
    graph = traced(module, name, input_shape)
    translated = _Translation(graph, name)
    for node in graph.graph.nodes:
        translated.take(node)
    translated.refuse_if_needed()
    _refuse_equal_names(translated.layers, name)
    network = Network(name, input_shape, input_frac, fused(translated.layers, name))
    return CapturedModule(network, translated.tensors)


def _refuse_equal_names(layers: list[Layer], name: str) -> None:
    names = [layer.name for layer in layers]
    twice = next((each for each in names if names.count(each) > 1), None)
    if twice is not None:
        raise UsageError(f"two layers of {name} are named {twice!r}: names must differ, also with _ for the dots of a path")


def _values(parameter: Tensor) -> NDArray[np.float64]:
    return parameter.detach().to("cpu").double().numpy().copy()


class _Translation:
    """Layers so far, and what was found that is none."""

    def __init__(self, graph: fx.GraphModule, name: str) -> None:
        self.layers: list[Layer] = []
        self.tensors: dict[str, Tensor] = {}
        self._modules = dict(graph.named_modules())
        self._name = name
        self._problems: list[str] = []
        self._names: dict[fx.Node, str] = {}
        self._seen: set[int] = set()

    def take(self, node: fx.Node) -> None:
        """Translate one node; nodes that compute sizes, such as ``x.size(0)``, are no layers."""
        if node.op == "output":
            self._output(node)
        elif node.op == "placeholder":
            self._placeholder(node)
        elif gives_tensors(node):
            self._layer(node)

    def refuse_if_needed(self) -> None:
        """Raise UsageError with all problems, if there are any."""
        if self._problems:
            found = "; ".join(dict.fromkeys(self._problems))
            raise UsageError(f"model {self._name} cannot be trained in fixed point: {found}")

    def _placeholder(self, node: fx.Node) -> None:
        if self._names and not node.args:  # an argument with a default value does no harm
            self._problems.append(f"{node.name}: forward() takes more than one input; give it one batch of images")
        self._names[node] = INPUT

    def _output(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node):
            self._problems.append("forward() returns several values; return the logits alone")
            return
        wanted = self._names.get(result)
        read = {tensor for layer in self.layers for tensor in layer.inputs}
        for layer in self.layers:
            if layer.name not in read and layer.name != wanted:
                self._problems.append(f"{layer.name} has no part in the result; remove it from forward()")
        if wanted in read:
            self._problems.append(f"{wanted} gives the logits, but is read on; return the last layer's result")

    def _layer(self, node: fx.Node) -> None:
        label = label_of(node)
        sources = {source: self._names[source] for source in node.all_input_nodes if source in self._names}
        call = Call(node, label, sources)
        try:
            self._append(call, self._translated(call))
        except UnsupportedError as problem:
            self._problems.append(f"{label}: {problem}")
            self._names[node] = next(iter(sources.values()), INPUT)

    def _translated(self, call: Call) -> Layers:
        if shape_of(call.node) is None:
            raise UnsupportedError("gives several tensors; use two layers, one for each")
        match call.node.op:
            case "call_module":
                return self._of_module(call)
            case "call_function" | "call_method" if call.sources:
                return layers_of_call(call)
            case _:
                raise UnsupportedError("a tensor of the module is used directly; keep weights in Conv2d or Linear")

    def _of_module(self, call: Call) -> Layers:
        module = self._modules[str(call.node.target)]
        if id(module) in self._seen:
            if any(True for _ in module.parameters()):
                raise UnsupportedError("is used twice, and weights cannot be shared; give each place a layer of its own")
            call = call._replace(label=call.node.name)  # a rectifier that stands in several places
        self._seen.add(id(module))
        layers = self._layers_of(module, call)
        for layer in layers:
            self._keep_tensors(layer, module)
        return Layers(layers, bool(getattr(module, "inplace", False)))

    def _layers_of(self, module: nn.Module, call: Call) -> tuple[Layer, ...]:
        label, source = call.label, call.source
        match module:
            case nn.Identity() | nn.Dropout(p=0.0) | nn.Dropout2d(p=0.0):
                return ()
            case nn.Dropout():
                return (Dropout(name=label, inputs=(source,), p=module.p),)
            case nn.ReLU():
                return (ReLU(name=label, inputs=(source,)),)
            case nn.ReLU6():
                return (ReLU6(name=label, inputs=(source,)),)
            case nn.Flatten():
                return flattened(call)
            case nn.MaxPool2d():
                given = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
                return (max_pool(label, source, **{name: getattr(module, name) for name in given}),)
            case nn.AvgPool2d():
                given = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
                return (average_pool(label, source, **{name: getattr(module, name) for name in given}),)
            case nn.AdaptiveAvgPool2d():
                return adaptive_pool(call, module.output_size)
            case _ if type(module) in (nn.Conv2d, nn.Linear):
                return (mac_layer(module, label, source),)
            case _ if type(module) in (nn.BatchNorm2d, nn.BatchNorm1d):
                assert isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)
                return (batch_norm(module, label, source),)
            case nn.AdaptiveMaxPool2d() if shape_of(call.node) == shape_of(call.first):
                return ()  # every window is one pixel
        raise UnsupportedError(advice_for_module(module))

    def _keep_tensors(self, layer: Layer, module: nn.Module) -> None:
        if isinstance(layer, MacLayer):
            self.tensors |= {f"{layer.name}.{key}": value for key, value in module.named_parameters()}
        elif isinstance(layer, BatchNorm):
            held = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_variance": "running_var"}
            self.tensors |= {f"{layer.name}.{name}": getattr(module, own) for name, own in held.items()}

    def _append(self, call: Call, found: Layers) -> None:
        self.layers += found.layers
        result = found.layers[-1].name if found.layers else call.source
        if found.in_place and found.layers:
            # Whoever reads the changed tensor later, by whatever name, sees the change.
            before = call.source
            self._names |= {node: result for node, name in self._names.items() if name == before}
        self._names[call.node] = result

