"""Which networks the instruction set expresses: what of a network is outside is named before anything else is looked at."""

from collections.abc import Callable, Iterator
from itertools import takewhile

from fixgrad.compiler.graph_builder import node_layers
from fixgrad.compiler.infeasible import Infeasible
from fixgrad.compiler.stages import MAX_EDGE, unfit_convolution, unfit_tail
from fixgrad.compiler.windows import are_equal
from fixgrad.machine import PRESETS, Machine
from fixgrad.network import (
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    MacLayer,
    MaxPool2d,
    Network,
    PadChannels,
    ReLU,
    ReLU6,
    SlidingMaxPool2d,
)
from fixgrad.network.recipe import OPERAND_BITS

#: Most operands of an ELEMENTWISE, and taps of a window whose maximum it numbers.
_MOST_OPERANDS, _MOST_NUMBERED_TAPS = 2, 255
#: Kinds of layers that no instruction computes, and what to do.
_NEVER = {ReLU6: "a ReLU without a ceiling", Dropout: "a network without dropout"}


def unfit_layers(network: Network, machine: Machine) -> Iterator[Infeasible]:
    """Why the instructions of a machine do not express a network: every reason, layer by layer."""
    outside = network.outside_of_a_chain
    if not machine.elementwise_lanes and outside:
        yield _without_unit(outside, machine)
        return
    nodes = [] if not machine.elementwise_lanes else node_layers(network)
    for layer in network.layers:
        if isinstance(layer, MacLayer):
            yield from _unfit_stage(network, layer, _chain_tail(network, layer) if not machine.elementwise_lanes else ())
        elif layer in nodes:
            yield from _unfit_node(network, layer)
    if machine.elementwise_lanes:
        yield from _many_readers(network)


def _without_unit(outside: tuple[Layer, ...], machine: Machine) -> Infeasible:
    first = outside[0]
    others = f"; {len(outside) - 1} more layers need it too" if len(outside) > 1 else ""
    preset = f"{machine.name}-graph"
    if preset not in PRESETS:
        preset = next(name for name, each in PRESETS.items() if each.elementwise_lanes)
    remedies = (f"elementwise_lanes above 0, as machine {preset} has them", "a chain of layers such as vgg11")
    return Infeasible(first.name, "ff", f"elementwise unit ({first.kind}{others})", 1, 0, remedies)


def _chain_tail(network: Network, layer: MacLayer) -> tuple[Layer, ...]:
    """Everything up to the next layer with weights, of a chain."""
    behind = network.layers[network.layers.index(layer) + 1 :]
    return tuple(takewhile(lambda item: not isinstance(item, MacLayer), behind))


def _unfit_stage(network: Network, layer: MacLayer, tail: tuple[Layer, ...]) -> Iterator[Infeasible]:
    if isinstance(layer, Conv2d):
        yield from unfit_convolution(layer, network.input_shape_of(layer))
    read_by_norms = all(isinstance(each, BatchNorm) for each in _readers(network, layer.name))
    most = 16 if layer.name == network.logits or (read_by_norms and not layer.relu) else OPERAND_BITS
    if layer.out_bits > most:
        remedy = f"out_bits of {OPERAND_BITS}, the width of a multiplier's operand"
        yield Infeasible(layer.name, "ff", "bits for each output code", layer.out_bits, most, (remedy,))
    yield from unfit_tail(layer, tail)


def _readers(network: Network, tensor: str) -> Iterator[Layer]:
    """Who reads a tensor, through flattening."""
    for reader in network.readers[tensor]:
        if isinstance(reader.layer, Flatten):
            yield from _readers(network, reader.layer.name)
        else:
            yield reader.layer


def _unfit_node(network: Network, layer: Layer) -> Iterator[Infeasible]:
    if type(layer) in _NEVER:
        yield Infeasible(layer.name, "ff", f"instruction for {layer.kind}", 1, 0, (_NEVER[type(layer)],))
        return
    shape = network.input_shape_of(layer)
    if len(shape) == 3 and max(shape[1:]) > MAX_EDGE:
        yield Infeasible(layer.name, "ff", "pixels along an edge", max(shape[1:]), MAX_EDGE, ("smaller images",))
    if isinstance(layer, BatchNorm) and layer.clip6:
        yield Infeasible(layer.name, "ff", "instruction for a ceiling of 6", 1, 0, (_NEVER[ReLU6],))
    for check in _CHECKS.get(type(layer), ()):
        yield from check(network, layer)


def _many_readers(network: Network) -> Iterator[Infeasible]:
    for tensor, readers in network.readers.items():
        if tensor in network.trainable and len(readers) > _MOST_OPERANDS:
            remedy = f"a network whose tensors have {_MOST_OPERANDS} readers at most"
            yield Infeasible(tensor, "ng", "operands for the errors of its readers", len(readers), _MOST_OPERANDS, (remedy,))


def _unfit_sum(network: Network, layer: Layer) -> Iterator[Infeasible]:
    if len(layer.inputs) > _MOST_OPERANDS:
        remedy = f"sums of {_MOST_OPERANDS} tensors, one behind the other"
        yield Infeasible(layer.name, "ff", "operands of a sum", len(layer.inputs), _MOST_OPERANDS, (remedy,))
    if len({_pixels(network, tensor) for tensor in layer.inputs}) > 1:
        what = "memory layout for a flattened and an unflattened operand"
        yield Infeasible(layer.name, "ff", what, 1, 0, ("flattening behind the sum",))


def _unfit_flat(network: Network, layer: Layer) -> Iterator[Infeasible]:
    """Features that are pixels of a map in memory."""
    if any(len(network.shapes[tensor]) == 1 and _pixels(network, tensor) > 1 for tensor in layer.inputs):
        what = "memory layout for flattened maps of several pixels"
        yield Infeasible(layer.name, "ff", what, 1, 0, ("this layer before flattening",))


def _pixels(network: Network, tensor: str) -> int:
    """Pixels of a channel of the map that holds a tensor."""
    while tensor in network.shapes and len(network.shapes[tensor]) == 1:
        layer = next((each for each in network.layers if each.name == tensor), None)
        if layer is None or isinstance(layer, MacLayer):
            return 1
        tensor = layer.inputs[0]
    rows, columns = network.shapes[tensor][1:]
    return rows * columns


def _unfit_maximum(network: Network, layer: Layer) -> Iterator[Infeasible]:
    assert isinstance(layer, MaxPool2d | SlidingMaxPool2d)
    taps = layer.window[0] * layer.window[1]
    if taps > _MOST_NUMBERED_TAPS:
        yield Infeasible(layer.name, "ff", "pixels of a window", taps, _MOST_NUMBERED_TAPS, ("a smaller window",))
    if isinstance(layer, SlidingMaxPool2d) and max(layer.geometry.dilation) > 1 and taps > 1:
        yield Infeasible(layer.name, "ff", "pixels of dilation", max(layer.geometry.dilation), 1, ("a window without dilation",))


def _unfit_average(network: Network, layer: Layer) -> Iterator[Infeasible]:
    assert isinstance(layer, AvgPool2d | AdaptiveAvgPool2d)
    if not are_equal(layer, network.input_shape_of(layer)):
        yield Infeasible(layer.name, "ff", "factors for windows of different sizes", 2, 1, ("windows that count as many pixels each",))


_CHECKS: dict[type[Layer], tuple[Callable[[Network, Layer], Iterator[Infeasible]], ...]] = {
    Add: (_unfit_sum,),
    BatchNorm: (_unfit_flat,),
    Concat: (_unfit_flat,),
    PadChannels: (_unfit_flat,),
    MaxPool2d: (_unfit_maximum,),
    SlidingMaxPool2d: (_unfit_maximum,),
    AvgPool2d: (_unfit_average,),
    AdaptiveAvgPool2d: (_unfit_average,),
    ReLU: (),
}
