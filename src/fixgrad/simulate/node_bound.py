"""The bytes that layers without weights move at least: every map that one reads or writes, once, as it lies in memory.

What batch normalisation reads twice (for its sums, and for its map) counts once: a machine with room for it would keep it.
"""

from math import prod

from fixgrad.compiler.graph import Backward, Node
from fixgrad.compiler.layout import code_bytes, micro_batches
from fixgrad.compiler.stages import FeatureMap
from fixgrad.machine import Machine
from fixgrad.network import BatchNorm, MaxPool2d, SlidingMaxPool2d


def forward_bound(node: Node, machine: Machine, batch: int) -> int:
    """Bytes of FF of a layer without weights."""
    read = sum(_bytes(item, machine, batch) for item in dict.fromkeys(node.sources))
    return int(read * _read_share(node)) + _bytes(node.target, machine, batch)


def backward_bound(back: Backward, machine: Machine, batch: int) -> int:
    """Bytes of NG of a layer without weights: errors, what normalisation reads beside them, masks, and what is sent."""
    if not back.sent:
        return 0
    assert isinstance(back.step, Node)
    read = [back.error, *(item.mask for item in back.sent if item.mask is not None)]
    if isinstance(back.step.layer, BatchNorm):
        read += back.step.sources
    # A concatenation sends each input a part of its error.
    written = [item.target for item in back.sent]
    whole = sum(_bytes(item, machine, batch) for item in (*dict.fromkeys(read[1:]), *written))
    return whole + min(_bytes(back.error, machine, batch), sum(_bytes(item, machine, batch) for item in written))


def sums_bound(back: Backward, machine: Machine, batch: int) -> int:
    """Bytes of the sums of errors of a layer's tensors: the parts, and the sums."""
    maps = [item for each in back.sums for item in (*dict.fromkeys(each.parts), each.target)]
    return sum(_bytes(item, machine, batch) for item in maps)


def _bytes(item: FeatureMap, machine: Machine, batch: int) -> int:
    return item.words * micro_batches(batch, machine.lanes) * machine.lanes * code_bytes(item.bits)


def _read_share(node: Node) -> float:
    """Share of its source that a layer reads: windows may leave pixels out."""
    layer, source = node.layer, node.sources[0]
    if isinstance(layer, MaxPool2d):
        return prod(_read(size, window, window, 0) / size for size, window in _sizes(source, layer.window))
    if isinstance(layer, SlidingMaxPool2d):
        stride, padding = layer.geometry.stride, layer.geometry.padding
        axes = zip(_sizes(source, layer.window), stride, padding, strict=True)
        return prod(_read(size, window, step, pad) / size for (size, window), step, pad in axes)
    return 1.0


def _sizes(source: FeatureMap, window: tuple[int, int]) -> list[tuple[int, int]]:
    return list(zip((source.rows, source.columns), window, strict=True))


def _read(size: int, window: int, stride: int, padding: int) -> int:
    """Pixels of an axis that lie in a window."""
    starts = [number * stride - padding for number in range((size + 2 * padding - window) // stride + 1)]
    return len({place for start in starts for place in range(start, start + window)} & {*range(size)})
