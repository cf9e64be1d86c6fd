"""A user's module as a graph in which every node knows the shape of its result."""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from fixgrad.errors import UsageError
from fixgrad.network import INPUT
from fixgrad.network.layers import Shape

#: Images in the batch with which shapes are followed: a number that no sensible shape contains by chance.
EXAMPLE_BATCH = 3
#: Under this name a node that gives a tensor keeps its shape; a node that gives several keeps None.
_SHAPE = "fixgrad_shape"
#: Under this name a node that gives no tensor keeps its result, such as a size.
_VALUE = "fixgrad_value"


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
        else:
            n.meta[_VALUE] = result
        return result


def traced(module: nn.Module, name: str, input_shape: Shape) -> fx.GraphModule:
    """The module as a graph, followed on images of zeros.

    It is traced as it trains, and run as it evaluates: an example must not move the statistics of a module that is refused
    later. The modes of all its parts are given back.

    Raises:
        UsageError: it cannot be followed.
    """
    if fx.Tracer().is_leaf_module(module, ""):
        module = nn.Sequential(module)
    modes = {part: part.training for part in module.modules()}
    shapes: _Shapes | None = None
    try:
        graph = fx.symbolic_trace(module.train())
        shapes = _Shapes(graph.eval())
        with torch.no_grad():
            shapes.run(torch.zeros(EXAMPLE_BATCH, *input_shape, dtype=_dtype(module)))
    except Exception as error:  # whatever the user's forward may raise
        where = f" through {label_of(shapes.node)}" if shapes and shapes.node else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"model {name} cannot be followed on images {list(input_shape)}{where}: {reason}; forward() must take one batch "
            "of images and do the same for every one, without branches that depend on values"
        ) from error
    finally:
        for part, training in modes.items():
            part.training = training
    return graph


def gives_tensors(node: fx.Node) -> bool:
    """Whether the node's result is a tensor, or holds some."""
    return _SHAPE in node.meta


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Shape of the node's result, batch first; None where it is no tensor."""
    shape: tuple[int, ...] | None = node.meta.get(_SHAPE)
    return shape


def label_of(node: fx.Node) -> str:
    """The layer's path in the module, or what fx calls the call; parameter names need it without dots."""
    label = str(node.target).replace(".", "_") if node.op == "call_module" else node.name
    return f"{label}_" if label == INPUT and node.op != "placeholder" else label


def called(node: fx.Node) -> str:
    """Name of the function or method that a node calls."""
    return str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", node.target))


def arguments(node: fx.Node, *names: str) -> dict[str, Any]:
    """The arguments of a call by the names of the parameters, in order or by name; sizes as numbers, tensors as nodes."""
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return dict(fx.node.map_arg(given, lambda each: each if gives_tensors(each) else each.meta.get(_VALUE)))


def _dtype(module: nn.Module) -> torch.dtype:
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)
