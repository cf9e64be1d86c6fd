"""Pools as fields of ELEMENTWISE."""

from itertools import pairwise

from fixgrad.compiler.stages import FeatureMap
from fixgrad.network import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d, SlidingMaxPool2d
from fixgrad.network.windows import Span, reciprocal

Fields = dict[str, int]
Pair = tuple[int, int]
_AXES = ("rows", "columns")


def max_window(layer: MaxPool2d | SlidingMaxPool2d) -> Fields:
    """The windows of a maximum."""
    if isinstance(layer, MaxPool2d):
        return _window(layer.window, layer.window, (0, 0))
    return _window(layer.window, layer.geometry.stride, layer.geometry.padding)


def average_window(layer: AvgPool2d | AdaptiveAvgPool2d, source: FeatureMap) -> Fields:
    """The windows of an average, and the factor of their sums."""
    rows, columns = layer.spans((source.channels, source.rows, source.columns))
    factor = {"factor": reciprocal(rows[0].counted * columns[0].counted)}
    if isinstance(layer, AvgPool2d):
        return factor | _window(layer.window, layer.geometry.stride, layer.geometry.padding)
    return factor | _window((rows[0].counted, columns[0].counted), (_stride(rows), _stride(columns)), (0, 0))


def are_equal(layer: AvgPool2d | AdaptiveAvgPool2d, shape: tuple[int, ...]) -> bool:
    """Whether all windows of an average count as many pixels, and lie equally far apart: one factor serves them all."""
    axes = layer.spans(shape)
    counts = all(len({span.counted for span in spans}) == 1 for spans in axes)
    # Those of other averages may be cut off at an edge, where the padding counts.
    return counts and (isinstance(layer, AvgPool2d) or all(len(_steps(spans)) <= 1 for spans in axes))


def _steps(spans: list[Span]) -> set[int]:
    return {after.start - before.start for before, after in pairwise(spans)}


def _stride(spans: list[Span]) -> int:
    """Pixels from one window to the next."""
    return _steps(spans).pop() if len(spans) > 1 else spans[0].counted


def _window(kernel: Pair, stride: Pair, padding: Pair) -> Fields:
    sizes = {"kernel": kernel, "stride": stride, "pad": padding}
    return {f"{name}_{axis}": pair[number] for name, pair in sizes.items() for number, axis in enumerate(_AXES)}
