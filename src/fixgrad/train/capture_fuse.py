"""From layers as they were written to layers as they are computed: rectifiers join what they rectify, widths follow readers."""

from collections.abc import Sequence
from dataclasses import replace

from fixgrad.errors import UsageError
from fixgrad.network import Add, BatchNorm, Layer, MacLayer, ReLU, ReLU6
from fixgrad.network.batch_norm import WIDE_BITS
from fixgrad.network.builder import LOGIT_BITS


def fused(layers: Sequence[Layer], name: str) -> tuple[Layer, ...]:
    """The layers of the network `name`, of which the last one gives the result.

    A rectifier becomes part of the convolution, linear layer, normalisation or sum that nobody else reads. What only
    normalisations read has wide codes. The last layer gives logits.

    Raises:
        UsageError: that one has no weights.
    """
    joined = _wide(_rectified(layers))
    last = joined[-1] if joined else None
    if not isinstance(last, MacLayer) or last.relu:
        raise UsageError(f"model {name} {_bad_end(last)}")
    return (*joined[:-1], replace(last, out_bits=LOGIT_BITS))


def _bad_end(last: Layer | None) -> str:
    if last is None:
        return "has no layers: it must end with the Linear or Conv2d layer that gives the logits"
    if isinstance(last, MacLayer):
        return f"gives logits that are rectified: {last.name} gives the logits, but is rectified; remove the ReLU behind it"
    return f"ends with {last.name}: it must end with the Linear or Conv2d layer that gives the logits"


def _rectified(layers: Sequence[Layer]) -> list[Layer]:
    """The same with rectifiers inside of what they rectify."""
    found: dict[str, Layer] = {}
    names: dict[str, str] = {}
    for layer in layers:
        source = layer.inputs[0]
        alone = sum(each.inputs.count(source) for each in layers) == 1
        before = found.get(names.get(source, source))
        merged = _merged(before, layer) if alone and before is not None else None
        if merged is None:
            found[layer.name] = replace(layer, inputs=tuple(names.get(tensor, tensor) for tensor in layer.inputs))
        else:
            found[merged.name] = merged
            names[layer.name] = merged.name
    return list(found.values())


def _merged(before: Layer, rectifier: Layer) -> Layer | None:
    """The layer together with the rectifier behind it; None where that is a layer of its own."""
    match before, rectifier:
        case (MacLayer() | Add(), ReLU()):
            return replace(before, relu=True)
        case BatchNorm(), ReLU():
            return replace(before, relu=True)
        case BatchNorm(), ReLU6():
            return replace(before, relu=True, clip6=True)
    return None


def _wide(layers: Sequence[Layer]) -> list[Layer]:
    """The same with wide codes where only normalisations read them."""
    found = []
    for layer in layers:
        readers = [each for each in layers if layer.name in each.inputs]
        if isinstance(layer, MacLayer) and not layer.relu and readers and all(isinstance(each, BatchNorm) for each in readers):
            layer = replace(layer, out_bits=WIDE_BITS)
        found.append(layer)
    return found
