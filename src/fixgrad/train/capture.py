"""From an ordinary `torch.nn.Module` to a `Network`: the user's network is taken as it is, nobody rewrites it.

The module is traced with `torch.fx`; each node becomes a layer, or is listed with what to use instead. All that does not
fit is found before anything is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from fixgrad.errors import UsageError
from fixgrad.network import INPUT, Flatten, Layer, MacLayer, MaxPool2d, Network, ReLU
from fixgrad.network.layers import Shape
from fixgrad.train.capture_modules import UnsupportedError, advice_for_call, advice_for_module, mac_layer, pool_window

#: Images in the batch with which shapes are followed: a number that no sensible shape contains by chance.
_EXAMPLE_BATCH = 3
#: Width of the codes of the last layer.
LOGIT_BITS = 16
#: Under this name a node that gives a tensor keeps its shape; a node that gives several keeps None.
_SHAPE = "fixgrad_shape"


class Captured(NamedTuple):
    """A network, and the initial value of every parameter (float64, by name: ``features_0.weight``)."""

    network: Network
    weights: dict[str, NDArray[np.float64]]


def capture(module: nn.Module, name: str, input_shape: Shape, input_frac: int) -> Captured:
    """Describe `module` as a network, with its own weights as the initial ones.

    Layers are named by their path in the module with ``_`` for dots. A rectifier after a convolution or a linear layer
    becomes part of it. Understood are Conv2d, Linear, ReLU, MaxPool2d with windows that do not overlap, Flatten (also as
    `flatten`, `view` or `reshape`), and Identity, nested in any way, one after the other.

    Args:
        module: maps float images [batch, channels, height, width] to logits [batch, classes].
        name: of the network.
        input_shape: (channels, height, width).
        input_frac: fractional bits of the 8-bit input codes.

    Raises:
        UsageError: something in it cannot be trained in fixed point; every such layer is named, with what to use.
    """
    graph = _traced(module, name, input_shape)
    translated = _Translation(graph, name)
    for node in graph.graph.nodes:
        translated.take(node)
    translated.refuse_if_needed()
    layers = _logits_last(translated.layers, name)
    network = Network(name, input_shape, input_frac, layers)
    return Captured(network, {key: _values(parameter) for key, parameter in translated.parameters.items()})


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape of every tensor in it."""

    node: fx.Node | None = None
    extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        """The node's result."""
        self.node = n
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta[_SHAPE] = tuple(result.shape)
        elif isinstance(result, tuple | list | dict) and any(isinstance(part, Tensor) for part in tree_leaves(result)):
            n.meta[_SHAPE] = None
        return result


def _traced(module: nn.Module, name: str, input_shape: Shape) -> fx.GraphModule:
    """The module as a graph in which every node knows the shape of its result."""
    if fx.Tracer().is_leaf_module(module, ""):
        module = nn.Sequential(module)
    modes = {part: part.training for part in module.modules()}
    module.eval()  # an example must not move the statistics of a module that is refused later
    shapes: _Shapes | None = None
    try:
        graph = fx.symbolic_trace(module)
        shapes = _Shapes(graph)
        with torch.no_grad():
            shapes.run(torch.zeros(_EXAMPLE_BATCH, *input_shape, dtype=_dtype(module)))
    except Exception as error:  # whatever the user's forward may raise
        where = f" through {_label(shapes.node)}" if shapes and shapes.node else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"model {name} cannot be followed on images {list(input_shape)}{where}: {reason}; forward() must take one batch "
            "of images and do the same for every one, without branches that depend on values"
        ) from error
    finally:
        for part, training in modes.items():
            part.training = training
    return graph


def _dtype(module: nn.Module) -> torch.dtype:
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)


def _values(parameter: Tensor) -> NDArray[np.float64]:
    return parameter.detach().to("cpu", torch.float64).numpy().copy()


class _Translation:
    """Layers so far, and what was found that is none."""

    def __init__(self, graph: fx.GraphModule, name: str) -> None:
        self.layers: list[Layer] = []
        self.parameters: dict[str, Tensor] = {}
        self._modules = dict(graph.named_modules())
        self._name = name
        self._problems: list[str] = []
        self._tensors: dict[fx.Node, str] = {}
        self._seen: set[int] = set()

    def take(self, node: fx.Node) -> None:
        """Translate one node; nodes that compute sizes, such as ``x.size(0)``, are no layers."""
        if node.op == "output":
            self._output(node)
        elif node.op == "placeholder":
            self._placeholder(node)
        elif _SHAPE in node.meta:
            self._layer(node)

    def refuse_if_needed(self) -> None:
        """Raise UsageError with all problems, if there are any."""
        if self._problems:
            found = "; ".join(dict.fromkeys(self._problems))
            raise UsageError(f"model {self._name} cannot be trained in fixed point: {found}")

    def _placeholder(self, node: fx.Node) -> None:
        if self._tensors and not node.args:  # an argument with a default value does no harm
            self._problems.append(f"{node.name}: forward() takes more than one input; give it one batch of images")
        self._tensors[node] = INPUT

    def _output(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node):
            self._problems.append("forward() returns several values; return the logits alone")
        elif self.layers and self._tensors.get(result) != self.layers[-1].name:
            self._problems.append(f"{self.layers[-1].name} has no part in the result; remove it from forward()")

    def _layer(self, node: fx.Node) -> None:
        label = _label(node)
        source = self._source(node)
        try:
            self._add(node, label, source)
        except UnsupportedError as problem:
            self._problems.append(f"{label}: {problem}")
            self._tensors[node] = source

    def _source(self, node: fx.Node) -> str:
        """Name of the tensor that the node reads. What cannot be a chain is noted."""
        inputs = [source for source in node.all_input_nodes if source in self._tensors]
        for source in inputs:
            readers = [user for user in source.users if user.op == "output" or _SHAPE in user.meta]
            if len(readers) > 1:
                names = ", ".join(_label(user) for user in readers)
                self._problems.append(f"{_label(source)} is read by {names}: layers must form one chain, without branches")
        return self._tensors[inputs[0]] if inputs else INPUT

    def _add(self, node: fx.Node, label: str, source: str) -> None:
        if _shape(node) is None:
            raise UnsupportedError("gives several tensors; layers must form one chain, without branches")
        match node.op:
            case "call_module":
                self._add_module(node, label, source)
            case "call_function" | "call_method":
                self._add_call(node, label, source)
            case _:
                raise UnsupportedError("a tensor of the module is used directly; keep weights in Conv2d or Linear")

    def _add_module(self, node: fx.Node, label: str, source: str) -> None:
        module = self._modules[str(node.target)]
        if id(module) in self._seen and any(True for _ in module.parameters()):
            raise UnsupportedError("is used twice, and weights cannot be shared; give each place a layer of its own")
        self._seen.add(id(module))
        match module:
            case nn.Identity() | nn.Dropout(p=0.0) | nn.Dropout2d(p=0.0):
                self._tensors[node] = source
            case nn.ReLU():
                self._rectify(node, label, source)
            case nn.Flatten():
                self._flatten(node, label, source)
            case nn.MaxPool2d():
                window = pool_window(
                    module.kernel_size,
                    module.stride,
                    module.padding,
                    module.dilation,
                    module.ceil_mode,
                    module.return_indices,
                )
                self._append(node, MaxPool2d(name=label, inputs=(source,), window=window))
            case _ if type(module) in (nn.Conv2d, nn.Linear):
                self._append(node, mac_layer(module, label, source))
                self.parameters.update({f"{label}.{key}": value for key, value in module.named_parameters()})
            case _:
                same = _shape(node) == _shape(node.all_input_nodes[0]) if node.all_input_nodes else False
                if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) and same:
                    self._tensors[node] = source  # every window is one pixel
                    return
                raise UnsupportedError(advice_for_module(module))

    def _add_call(self, node: fx.Node, label: str, source: str) -> None:
        called = _called(node)
        if called in ("relu", "relu_"):
            self._rectify(node, label, source)
        elif called in ("flatten", "view", "reshape"):
            self._flatten(node, label, source)
        elif called == "contiguous":
            self._tensors[node] = source
        elif called.startswith("max_pool2d") or called == "boolean_dispatch":
            self._append(node, MaxPool2d(name=label, inputs=(source,), window=_call_window(node)))
        else:
            raise UnsupportedError(advice_for_call(called))

    def _rectify(self, node: fx.Node, label: str, source: str) -> None:
        last = self.layers[-1] if self.layers else None
        if isinstance(last, MacLayer) and last.name == source:
            self.layers[-1] = replace(last, relu=True)
            self._tensors[node] = source
        else:
            self._append(node, ReLU(name=label, inputs=(source,)))

    def _flatten(self, node: fx.Node, label: str, source: str) -> None:
        before, after = _shape(node.all_input_nodes[0]), _shape(node)
        assert before is not None
        if after == before:
            self._tensors[node] = source
        elif after == (_EXAMPLE_BATCH, int(np.prod(before[1:]))):
            self._append(node, Flatten(name=label, inputs=(source,)))
        else:
            raise UnsupportedError(
                f"makes {_images(after)} out of {_images(before)}; only flatten(1), one vector for each image, is possible"
            )

    def _append(self, node: fx.Node, layer: Layer) -> None:
        self.layers.append(layer)
        self._tensors[node] = layer.name


def _logits_last(layers: Sequence[Layer], name: str) -> tuple[Layer, ...]:
    """The layers with the last one's codes widened to logits."""
    last = layers[-1] if layers else None
    if not isinstance(last, MacLayer):
        what = f"ends with {last.name}" if last else "has no layers"
        raise UsageError(f"model {name} {what}: it must end with the Linear or Conv2d layer that gives the logits")
    if last.relu:
        raise UsageError(f"model {name}: {last.name} gives the logits, but is rectified; remove the ReLU behind it")
    return (*layers[:-1], replace(last, out_bits=LOGIT_BITS))


def _label(node: fx.Node) -> str:
    """The layer's path in the module, or what fx calls the call; parameter names need it without dots."""
    label = str(node.target).replace(".", "_") if node.op == "call_module" else node.name
    return f"{label}_" if label == INPUT and node.op != "placeholder" else label


def _called(node: fx.Node) -> str:
    if node.op == "call_method":
        return str(node.target)
    target: Callable[..., Any] | str = node.target
    return str(getattr(target, "__name__", target))


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    """Shape of the node's result; None where it is no tensor."""
    shape: tuple[int, ...] | None = node.meta.get(_SHAPE)
    return shape


def _images(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ()))


def _call_window(node: fx.Node) -> tuple[int, int]:
    """Window of a call of `max_pool2d`, whose arguments may stand in order or by name."""
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return pool_window(
        given.get("kernel_size"),
        given.get("stride"),
        given.get("padding", 0),
        given.get("dilation", 1),
        given.get("ceil_mode", False),
        given.get("return_indices", False),
    )
