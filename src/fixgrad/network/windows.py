"""Pooling in its general form: maxima of windows that overlap or reach into padding, and averages."""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from fixgrad.errors import UsageError
from fixgrad.network.layers import Layer, Shape
from fixgrad.numbers.convolution import ConvGeometry

#: Fractional bits of the reciprocal of a window's size: 127 * 2**23 leaves a sum of errors room in 31 bits.
RECIPROCAL_FRAC = 23
#: The largest window: its reciprocal keeps 11 bits.
LARGEST_WINDOW = 1 << 12


class Span(NamedTuple):
    """The pixels start .. stop - 1 of a row or column that a window covers, and the number for which they count in an average."""

    start: int
    stop: int
    counted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingMaxPool2d(Layer):
    """Maximum over windows of any stride, padding and dilation; padding is never a maximum.

    The first of equal maxima, in raster order, takes the error. Where windows overlap, the errors that meet are added.
    With a window of 1x1 it picks every n-th pixel.
    """

    kind: ClassVar[str] = "sliding_maxpool2d"
    window: tuple[int, int]
    geometry: ConvGeometry = field(default_factory=ConvGeometry)

    @property
    def rescales_error(self) -> bool:
        """Where no two windows overlap, an error is that of one window."""
        reach = [dilation * (size - 1) + 1 for dilation, size in zip(self.geometry.dilation, self.window, strict=True)]
        return any(extent > stride for extent, stride in zip(reach, self.geometry.stride, strict=True))

    def output_shape(self, *inputs: Shape) -> Shape:
        _check_map(self.name, inputs[0])
        if any(2 * padding > size for padding, size in zip(self.geometry.padding, self.window, strict=True)):
            raise UsageError(
                f"{self.name} pads {self.geometry.padding} around windows of {self.window}: at most half a window, "
                "so that each holds a pixel"
            )
        return (inputs[0][0], *self.geometry.output_size(inputs[0][1], inputs[0][2], *self.window))


@dataclass(frozen=True, slots=True, kw_only=True)
class AvgPool2d(Layer):
    """Average over windows of any stride and padding.

    Attributes:
        count_padding: whether the zeros of the padding count in the average.
    """

    kind: ClassVar[str] = "avgpool2d"
    rescales: ClassVar[bool] = True
    window: tuple[int, int]
    geometry: ConvGeometry = field(default_factory=ConvGeometry)
    count_padding: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        _check_map(self.name, inputs[0])
        rows, columns = self.spans(inputs[0])
        _check_spans(self.name, rows, columns)
        return (inputs[0][0], len(rows), len(columns))

    def spans(self, shape: Shape) -> tuple[list[Span], list[Span]]:
        """What the windows cover of the rows and of the columns of an input of `shape`."""
        outputs = self.geometry.output_size(shape[1], shape[2], *self.window)
        return self._axis(0, shape[1], outputs[0]), self._axis(1, shape[2], outputs[1])

    def _axis(self, axis: int, extent: int, outputs: int) -> list[Span]:
        size, spans = self.window[axis], []
        for index in range(outputs):
            first = index * self.geometry.stride[axis] - self.geometry.padding[axis]
            start, stop = max(first, 0), min(first + size, extent)
            spans.append(Span(start, stop, size if self.count_padding else stop - start))
        return spans


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveAvgPool2d(Layer):
    """Average over windows that cut an input of any size into `output` parts: i * size // n to -(-(i + 1) * size // n)."""

    kind: ClassVar[str] = "adaptive_avgpool2d"
    rescales: ClassVar[bool] = True
    output: tuple[int, int] = (1, 1)

    def output_shape(self, *inputs: Shape) -> Shape:
        _check_map(self.name, inputs[0])
        if min(self.output) < 1:
            raise UsageError(f"{self.name} gives {self.output} pixels: give at least 1 in either direction")
        _check_spans(self.name, *self.spans(inputs[0]))
        return (inputs[0][0], *self.output)

    def spans(self, shape: Shape) -> tuple[list[Span], list[Span]]:
        """What the windows cover of the rows and of the columns of an input of `shape`."""
        rows, columns = (self._axis(shape[1 + axis], self.output[axis]) for axis in (0, 1))
        return rows, columns

    def _axis(self, extent: int, outputs: int) -> list[Span]:
        ends = [(index * extent // outputs, -(-(index + 1) * extent // outputs)) for index in range(outputs)]
        return [Span(start, stop, stop - start) for start, stop in ends]


def reciprocal(count: int) -> int:
    """1 / count with RECIPROCAL_FRAC fractional bits, to nearest: exact for powers of two."""
    return ((1 << RECIPROCAL_FRAC) + count // 2) // count


def _check_map(name: str, shape: Shape) -> None:
    if len(shape) != 3:
        raise UsageError(f"{name} pools feature maps, but its input has the shape {shape}: pool before you flatten")


def _check_spans(name: str, rows: list[Span], columns: list[Span]) -> None:
    largest = max(span.counted for span in rows) * max(span.counted for span in columns)
    if largest > LARGEST_WINDOW:
        raise UsageError(f"{name} averages {largest} pixels: at most {LARGEST_WINDOW}; pool in two layers")
    if min(span.stop - span.start for span in (*rows, *columns)) < 1:
        raise UsageError(f"{name} has a window that holds no pixel: use less padding")
