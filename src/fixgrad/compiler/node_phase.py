"""Layers without weights as instructions of the elementwise unit: forward, backward, and the sums of errors."""

from dataclasses import replace

from fixgrad.compiler.context import Context
from fixgrad.compiler.elementwise import MapUse, Stored, activation, error
from fixgrad.compiler.graph import Backward, ErrorSum, Node, SentError
from fixgrad.compiler.layout import PASS_ENTRY, has_argmax
from fixgrad.compiler.resources import NO_WAITS
from fixgrad.compiler.stages import FeatureMap
from fixgrad.compiler.stream import Label
from fixgrad.compiler.update_phase import update_vector
from fixgrad.compiler.windows import average_window, max_window
from fixgrad.machine.elementwise_instructions import (
    ERRORS_OF_MAXIMA,
    MAXIMUM,
    NORMALISE_EVALUATION,
    NORMALISE_FF,
    NORMALISE_NG,
)
from fixgrad.network import AdaptiveAvgPool2d, AvgPool2d, BatchNorm, Concat, MaxPool2d, PadChannels, SlidingMaxPool2d


def lower_node(context: Context, node: Node) -> None:
    """FF of a node."""
    layer, label, target = node.layer, Label(node.name, "ff"), activation(node.target)
    entry = f"ff/{node.name}" if layer.rescales else PASS_ENTRY
    if isinstance(layer, Concat):
        first = 0
        for number, item in enumerate(node.sources):
            part = MapUse(label, node.index, f"{entry}/{number}", entry, target, activation(item), offset=first, partial=True)
            part.emit(context)
            first += item.channels
        return
    rectify = {"rectify": int(layer.rectifies)}
    use = MapUse(label, node.index, entry, entry if layer.rescales else None, target, activation(node.sources[0]), fields=rectify)
    match layer:
        case BatchNorm():
            _forward_coefficients(context, node, layer, label)
            use = replace(use, record=f"record/{node.name}")
        case MaxPool2d() | SlidingMaxPool2d():
            use = replace(use, window={**max_window(layer), "combine": MAXIMUM})
            if has_argmax(node) and context.trains:
                use = replace(use, argmax=f"argmax/{node.name}", argmax_map=node.target, fields={**rectify, "with_argmax": 1})
        case AvgPool2d() | AdaptiveAvgPool2d():
            use = replace(use, window=average_window(layer, node.sources[0]))
        case PadChannels():
            use = replace(use, offset=layer.before)
        case _ if len(node.sources) == 2:
            use = replace(use, second=activation(node.sources[1]))
    use.emit(context)


def lower_node_errors(context: Context, back: Backward) -> None:
    """What a node sends to its inputs, and the update of its parameters."""
    node = back.step
    assert isinstance(node, Node)
    if isinstance(node.layer, BatchNorm):
        _backward_coefficients(context, node, node.layer, back)
    for sent in back.sent:
        _sent_use(context, sent).emit(context)
    for name in node.layer.parameters:
        update_vector(context, Label(node.name, "update"), node.index, f"update/{name}", name, node.target.channels)


def lower_error_sum(context: Context, item: ErrorSum) -> None:
    """The error of a tensor with two readers."""
    node = context.graph.step_of_tensor(item.tensor)
    first, second = map(error, item.parts)
    entry = f"sum/{item.tensor}"
    use = MapUse(Label(node.name, "ng"), node.index, entry, entry, error(item.target), first, second)
    replace(use, mask=_mask(item.mask), random=f"random/{node.name}").emit(context)


def lower_bias_error(context: Context, back: Backward) -> None:
    """The gradient of a bias whose errors POST does not add up."""
    if back.bias_error is not None:
        label, target = Label(back.step.name, "wg"), context.layout.address(f"bias_gradient/{back.step.name}")
        _sums(context, label, back.step.index, target, error(back.bias_error), None)


def _sent_use(context: Context, sent: SentError) -> MapUse:
    node, layer = sent.node, sent.node.layer
    entry = f"ng/{node.name}" if sent.is_new else PASS_ENTRY
    use = MapUse(
        Label(node.name, "ng"),
        node.index,
        entry,
        entry if sent.is_new else None,
        error(sent.target),
        error(sent.error),
        mask=_mask(sent.mask),
        random=f"random/{context.graph.made_by[layer.inputs[sent.position]]}" if sent.is_new else None,
    )
    match layer:
        case BatchNorm():
            return replace(use, second=activation(node.sources[0]), record=f"record/{node.name}")
        case MaxPool2d() | SlidingMaxPool2d() if has_argmax(node):
            window = {**max_window(layer), "combine": ERRORS_OF_MAXIMA, "transposed": 1}
            return replace(use, window=window, argmax=f"argmax/{node.name}", argmax_map=node.target)
        case MaxPool2d() | SlidingMaxPool2d():
            return replace(use, window={**max_window(layer), "transposed": 1})
        case AvgPool2d() | AdaptiveAvgPool2d():
            return replace(use, window={**average_window(layer, node.sources[0]), "transposed": 1})
        case PadChannels():
            return replace(use, offset=-layer.before)
        case Concat():
            return replace(use, offset=-sum(item.channels for item in node.sources[: sent.position]))
    return use


def _mask(item: FeatureMap | None) -> Stored | None:
    return None if item is None else activation(item)


def _forward_coefficients(context: Context, node: Node, layer: BatchNorm, label: Label) -> None:
    """Sums of what is normalised, and the coefficients that follow; of a forward pass alone from the running statistics."""
    source, record = activation(node.sources[0]), context.layout.address(f"record/{node.name}")
    if context.trains:
        _sums(context, label, node.index, record, source, source)
    fields = {
        "mode": NORMALISE_FF if context.trains else NORMALISE_EVALUATION,
        "beta": context.layout.address(f"bias/{layer.beta}"),
        "average": layer.average_factor,
    }
    _scalars(context, node, layer, label, f"ff/{node.name}", fields)


def _backward_coefficients(context: Context, node: Node, layer: BatchNorm, back: Backward) -> None:
    """Sums of errors, the coefficients that follow, and the gradients of gamma and beta."""
    label, address = Label(node.name, "ng"), context.layout.address
    _sums(context, label, node.index, address(f"record/{node.name}"), error(back.error), activation(node.sources[0]))
    fields = {
        "mode": NORMALISE_NG,
        "gamma_gradient": address(f"bias_gradient/{layer.gamma}"),
        "beta_gradient": address(f"bias_gradient/{layer.beta}"),
    }
    _scalars(context, node, layer, label, f"ng/{node.name}" if back.sent else PASS_ENTRY, fields)


def _scalars(context: Context, node: Node, layer: BatchNorm, label: Label, entry: str, fields: dict[str, int]) -> None:
    param, loaded = context.use_param(entry, label)
    shared = {
        "record": context.layout.address(f"record/{node.name}"),
        "gamma": context.layout.address(f"bias/{layer.gamma}"),
        "channels": node.target.channels,
        "count": context.batch * node.target.pixels,
        "param": param,
    }
    context.stream.emit("NORMALISE", label, node.index, loaded, {**shared, **fields})


def _sums(context: Context, label: Label, number: int, target: int, first: Stored, second: Stored | None) -> None:
    item = first.map
    fields = {
        "first": context.layout.address(first.region),
        "first_wide": int(item.bits > 8),
        "target": target,
        "micro_batches": context.micro_batches,
        "batch_words": item.words,
        "channels": item.channels,
        "channel_words": item.pixels,
        "pixels": item.pixels,
    }
    if second is not None:
        fields |= {"second": context.layout.address(second.region), "second_wide": int(second.map.bits > 8), "products": 1}
    context.stream.emit("CHANNEL_SUMS", label, number, NO_WAITS, fields)
