"""Functions and methods that capture understands: the layers that they stand for."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import fx

from fixgrad.network import AdaptiveAvgPool2d, Add, Concat, Dropout, Flatten, Layer, PadChannels, ReLU, ReLU6, SlidingMaxPool2d
from fixgrad.numbers import ConvGeometry
from fixgrad.train.capture_modules import UnsupportedError, advice_for_call, average_pool, max_pool
from fixgrad.train.capture_trace import EXAMPLE_BATCH, arguments, called, shape_of

_POOL = ("input", "kernel_size", "stride", "padding")


class Call(NamedTuple):
    """A call: its node, the name that its layer shall have, and the names of the tensors that it reads."""

    node: fx.Node
    label: str
    sources: dict[fx.Node, str]

    @property
    def source(self) -> str:
        """The (first) tensor that is read."""
        return self.sources[self.first]

    @property
    def first(self) -> fx.Node:
        """The node of that tensor."""
        return next(iter(self.sources))


class Layers(NamedTuple):
    """What a call stands for: layers, one behind the other (none: it changes nothing), and whether its input is changed too."""

    layers: tuple[Layer, ...]
    in_place: bool = False


def layers_of_call(call: Call) -> Layers:
    """The layers of a function or method.

    Raises:
        UnsupportedError: there are none.
    """
    name = called(call.node)
    plain = name.rstrip("_")
    for names, translate in _CALLS:
        if plain in names:
            in_place = name != plain or name == "iadd" or bool(arguments(call.node, "input", "inplace").get("inplace"))
            return Layers(translate(call), in_place and plain in _IN_PLACE)
    raise UnsupportedError(advice_for_call(name))


def flattened(call: Call) -> tuple[Layer, ...]:
    """A change of shape, if it gives one vector for each image."""
    before, after = shape_of(call.first), shape_of(call.node)
    assert before is not None
    if after == before:
        return ()
    if after == (EXAMPLE_BATCH, math.prod(before[1:])):
        return (Flatten(name=call.label, inputs=(call.source,)),)
    raise UnsupportedError(
        f"makes {_images(after)} out of {_images(before)}; only flatten(1), one vector for each image, is possible"
    )


def added(call: Call) -> tuple[Layer, ...]:
    """The sum of two tensors of one shape."""
    given = arguments(call.node, "input", "other")
    left, right = given.get("input"), given.get("other")
    if not (isinstance(left, fx.Node) and isinstance(right, fx.Node)):
        raise UnsupportedError(f"{called(call.node)}(): adds a number; give the layer before it a bias")
    if given.get("alpha", 1) != 1:
        raise UnsupportedError(f"{called(call.node)}(): multiplies by alpha; leave it out")
    if shape_of(left) != shape_of(right):
        raise UnsupportedError(
            f"{called(call.node)}(): adds {_images(shape_of(left))} and {_images(shape_of(right))}; nothing is broadcast, the "
            "shapes must be equal"
        )
    return (Add(name=call.label, inputs=(call.sources[left], call.sources[right])),)


def joined(call: Call) -> tuple[Layer, ...]:
    """A concatenation along the channels."""
    given = arguments(call.node, "tensors", "dim")
    tensors, shape = list(given.get("tensors", ())), shape_of(call.node)
    assert shape is not None
    if given.get("dim", given.get("axis", 0)) % len(shape) != 1:
        raise UnsupportedError(f"{called(call.node)}(): joins along dimension {given.get('dim', 0)}; join channels, dim=1")
    inputs = tuple(call.sources[tensor] for tensor in tensors)
    return (Concat(name=call.label, inputs=inputs),) if len(inputs) > 1 else ()


def averaged(call: Call) -> tuple[Layer, ...]:
    """The mean over rows and columns: a global average pool, and flattening where the dimensions are not kept."""
    given = arguments(call.node, "input", "dim", "keepdim")
    shape, dims = shape_of(call.first), given.get("dim")
    if shape is None or len(shape) != 4 or not isinstance(dims, tuple | list) or sorted(dim % 4 for dim in dims) != [2, 3]:
        raise UnsupportedError(f"{called(call.node)}(): averages dimensions {dims}; average rows and columns, mean((2, 3))")
    pool = AdaptiveAvgPool2d(name=call.label, inputs=(call.source,))
    return (pool,) if given.get("keepdim") else (pool, Flatten(name=f"{call.label}_flat", inputs=(pool.name,)))


def dropped(call: Call) -> tuple[Layer, ...]:
    """Dropout, unless it is switched off."""
    given = arguments(call.node, "input", "p", "training")
    probability = float(given.get("p", 0.5))
    if not given.get("training", True) or probability == 0:
        return ()
    return (Dropout(name=call.label, inputs=(call.source,), p=probability),)


def picked(call: Call) -> tuple[Layer, ...]:
    """Every n-th row and column, ``x[:, :, ::2, ::2]``."""
    index, shape = arguments(call.node, "input", "index").get("index"), shape_of(call.first)
    parts = index if isinstance(index, tuple) else ()
    whole = len(parts) == 4 and all(isinstance(part, slice) and part.start in (None, 0) and part.stop is None for part in parts)
    if not whole or any(part.step not in (None, 1) for part in parts[:2]) or shape is None or len(shape) != 4:
        raise UnsupportedError("takes a part of a tensor; only every n-th row and column, x[:, :, ::n, ::n], can be taken")
    stride = (parts[2].step or 1, parts[3].step or 1)
    if stride == (1, 1):
        return ()
    return (SlidingMaxPool2d(name=call.label, inputs=(call.source,), window=(1, 1), geometry=ConvGeometry(stride)),)


def padded(call: Call) -> tuple[Layer, ...]:
    """Zero channels before and behind."""
    given = arguments(call.node, "input", "pad", "mode", "value")
    pad, shape = tuple(given.get("pad", ())), shape_of(call.first)
    assert shape is not None
    spatial = 2 * (len(shape) - 2)
    fits = len(pad) == spatial + 2 and not any(pad[:spatial]) and min(pad) >= 0
    if not fits or given.get("mode", "constant") != "constant" or given.get("value") not in (None, 0):
        raise UnsupportedError("pad(): only zero channels can be added; give pixels to the layer behind, as its padding")
    return (PadChannels(name=call.label, inputs=(call.source,), before=int(pad[-2]), behind=int(pad[-1])),)


def _max_pooled(call: Call) -> tuple[Layer, ...]:
    given = arguments(call.node, *_POOL, "dilation", "ceil_mode", "return_indices")
    given.pop("input", None)
    return (max_pool(call.label, call.source, **given),)


def _average_pooled(call: Call) -> tuple[Layer, ...]:
    given = arguments(call.node, *_POOL, "ceil_mode", "count_include_pad", "divisor_override")
    given.pop("input", None)
    return (average_pool(call.label, call.source, **given),)


def _adaptively_pooled(call: Call) -> tuple[Layer, ...]:
    return adaptive_pool(call, arguments(call.node, "input", "output_size").get("output_size"))


def adaptive_pool(call: Call, output: Any) -> tuple[Layer, ...]:
    """An adaptive average pool; nothing where every window is one pixel."""
    shape = shape_of(call.first)
    if shape is None or len(shape) != 4:
        raise UnsupportedError(f"pools {_images(shape)}; pool feature maps, before they are flattened")
    pair = output if isinstance(output, tuple | list) else (output, output)
    rows, columns = (int(size) if wanted is None else int(wanted) for wanted, size in zip(pair, shape[2:], strict=True))
    if (rows, columns) == shape[2:]:
        return ()
    return (AdaptiveAvgPool2d(name=call.label, inputs=(call.source,), output=(rows, columns)),)


def _images(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ()))


#: Those that may change their input.
_IN_PLACE = ("relu", "relu6", "add", "iadd", "dropout")
#: Names of functions and methods, without the underscore of those that work in place, and what makes layers of them.
_CALLS: tuple[tuple[tuple[str, ...], Callable[[Call], tuple[Layer, ...]]], ...] = (
    (("relu",), lambda call: (ReLU(name=call.label, inputs=(call.source,)),)),
    (("relu6",), lambda call: (ReLU6(name=call.label, inputs=(call.source,)),)),
    (("flatten", "view", "reshape"), flattened),
    (("contiguous",), lambda call: ()),
    (("add", "iadd"), added),
    (("cat", "concat", "concatenate"), joined),
    (("mean",), averaged),
    (("dropout",), dropped),
    (("getitem",), picked),
    (("pad",), padded),
    (("max_pool2d", "max_pool2d_with_indices", "boolean_dispatch"), _max_pooled),
    (("avg_pool2d",), _average_pooled),
    (("adaptive_avg_pool2d",), _adaptively_pooled),
)
