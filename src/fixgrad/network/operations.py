"""The operations of a training step on integer arrays, NumPy, written from their definitions.

Feature maps are [batch, channel, row, column], vectors [batch, feature].
"""

import numpy as np
from numpy.typing import NDArray

from fixgrad.network.junctions import DROPOUT_FRAC, MAX_ALIGNMENT, Add, Concat, Dropout, PadChannels, ReLU6
from fixgrad.network.layers import Conv2d, Flatten, Layer, Linear, MacLayer, MaxPool2d, ReLU
from fixgrad.network.pool_operations import average_errors, average_sums, sliding_errors, sliding_maxima
from fixgrad.network.scaling import common_frac
from fixgrad.network.windows import RECIPROCAL_FRAC, AdaptiveAvgPool2d, AvgPool2d, SlidingMaxPool2d
from fixgrad.numbers import Accumulated, StreamKey, align, hash32, wrap32
from fixgrad.numbers.convolution import (
    conv_forward_reference,
    conv_input_gradient_reference,
    conv_weight_gradient_reference,
)
from fixgrad.numbers.gemm import matmul_reference

Codes = NDArray[np.integer]


def mac_forward(layer: MacLayer, x: Codes, weight: Codes) -> Accumulated:
    """FF: accumulators of W x."""
    match layer:
        case Conv2d():
            return conv_forward_reference(x, weight, layer.geometry)
        case Linear():
            return matmul_reference(x, weight.T)
    raise TypeError(f"{layer.kind} has no FF")


def mac_input_gradient(layer: MacLayer, dy: Codes, weight: Codes, input_shape: tuple[int, ...]) -> Accumulated:
    """NG: accumulators of W^T dy, for an input of `input_shape` (without the batch)."""
    match layer:
        case Conv2d():
            return conv_input_gradient_reference(dy, weight, (input_shape[1], input_shape[2]), layer.geometry)
        case Linear():
            return matmul_reference(dy, weight)
    raise TypeError(f"{layer.kind} has no NG")


def mac_weight_gradient(layer: MacLayer, x: Codes, dy: Codes) -> Accumulated:
    """WG: accumulators of dy x^T, summed over the batch."""
    match layer:
        case Conv2d():
            return conv_weight_gradient_reference(x, dy, layer.kernel, layer.geometry)
        case Linear():
            return matmul_reference(dy.T, x)
    raise TypeError(f"{layer.kind} has no WG")


def bias_gradient(dy: Codes) -> Accumulated:
    """Sum of the errors over the batch and the pixels, for each output channel."""
    return wrap32(np.asarray(dy, np.int64).sum(axis=(0, *range(2, dy.ndim))))


def pool_windows(x: Codes, window: tuple[int, int]) -> Codes:
    """The windows of a feature map: [batch, channel, rows, columns, window elements in raster order].

    Rows and columns that fill no window are left out.
    """
    batch, channels, height, width = x.shape
    rows, columns = height // window[0], width // window[1]
    cut = x[:, :, : rows * window[0], : columns * window[1]]
    split = cut.reshape(batch, channels, rows, window[0], columns, window[1])
    return split.transpose(0, 1, 2, 4, 3, 5).reshape(batch, channels, rows, columns, -1)


def pool_forward(x: Codes, window: tuple[int, int]) -> Codes:
    """Maximum of each window."""
    maxima: Codes = pool_windows(x, window).max(axis=-1)
    return maxima


def pool_backward(x: Codes, dy: Codes, window: tuple[int, int]) -> Codes:
    """The error of each window goes to its first maximum; all other elements get zero."""
    windows = pool_windows(x, window)
    batch, channels, rows, columns, size = windows.shape
    first = windows.argmax(axis=-1)[..., None] == np.arange(size)
    maps = (first * dy[..., None]).reshape(batch, channels, rows, columns, *window).transpose(0, 1, 2, 4, 3, 5)
    dx = np.zeros(x.shape, dy.dtype)
    dx[:, :, : rows * window[0], : columns * window[1]] = maps.reshape(
        batch, channels, rows * window[0], columns * window[1]
    )
    return dx


def ceiling_code(ceiling: int, frac: int) -> int:
    """The code of a rectifier's ceiling at `frac` fractional bits: where it has none, the largest 32-bit number."""
    return int(align(np.array(ceiling), max(frac, -62), 32)) if frac < 32 - ceiling.bit_length() else (1 << 31) - 1


def pass_forward(layer: Layer, x: Codes, frac: int = 0) -> Codes:
    """Forward of a layer without a scale of its own: the codes keep their format, of `frac` fractional bits."""
    match layer:
        case ReLU():
            return np.maximum(x, 0)
        case ReLU6():
            return np.clip(x, 0, ceiling_code(6, frac))
        case SlidingMaxPool2d():
            return sliding_maxima(layer, x)
        case PadChannels():
            return np.pad(x, ((0, 0), (layer.before, layer.behind), *((0, 0),) * (x.ndim - 2)))
        case MaxPool2d():
            return pool_forward(x, layer.window)
        case Flatten():
            return x.reshape(len(x), -1)
    raise TypeError(f"{layer.kind} changes the format of its codes")


def pass_backward(layer: Layer, x: Codes, dy: Codes, frac: int = 0) -> Codes:
    """Backward of a layer that passes error codes on in their format. `frac` is that of the input `x`."""
    match layer:
        case ReLU():
            return np.where(x > 0, dy, 0)
        case ReLU6():
            return np.where((x > 0) & (x < ceiling_code(6, frac)), dy, 0)
        case Add() | Concat():  # of a concatenation, `dy` is the part that belongs to x
            return dy
        case SlidingMaxPool2d():
            return sliding_errors(layer, x, dy)
        case PadChannels():
            return dy[:, layer.before : layer.before + x.shape[1]]
        case MaxPool2d():
            return pool_backward(x, dy, layer.window)
        case Flatten():
            return dy.reshape(x.shape)
    raise TypeError(f"{layer.kind} changes the format of its codes")


def aligned_sum(parts: list[Codes], fracs: list[int]) -> tuple[Codes, int]:
    """The sum of 8-bit codes of several scales, at the fractional bits that are returned: see `common_frac`."""
    frac = common_frac(fracs, MAX_ALIGNMENT)
    aligned = [align(codes, frac - own, 32) for codes, own in zip(parts, fracs, strict=True)]
    return np.sum(aligned, axis=0), frac


def junction_forward(layer: Layer, inputs: list[Codes], fracs: list[int], key: StreamKey) -> tuple[Codes, int]:
    """Accumulators of a layer without parameters that has a scale of its own, and their fractional bits.

    `key` is the stream of dropping.
    """
    match layer:
        case Add():
            return aligned_sum(inputs, fracs)
        case Concat():
            frac = common_frac(fracs, MAX_ALIGNMENT)
            return np.concatenate([align(x, frac - own, 32) for x, own in zip(inputs, fracs, strict=True)], axis=1), frac
        case Dropout():
            return dropped(layer, inputs[0], key), fracs[0] + DROPOUT_FRAC
        case AvgPool2d() | AdaptiveAvgPool2d():
            return average_sums(layer, inputs[0]), fracs[0] + RECIPROCAL_FRAC
    raise TypeError(f"{layer.kind} has no accumulators")


def junction_backward(layer: Layer, x: Codes, dy: Codes, key: StreamKey) -> Codes:
    """Accumulators of the error of such a layer's input, or of overlapping maxima."""
    match layer:
        case Dropout():
            return dropped(layer, dy, key)
        case AvgPool2d() | AdaptiveAvgPool2d():
            return average_errors(layer, dy, x.shape[1:])
        case SlidingMaxPool2d():
            return sliding_errors(layer, x, dy)
    raise TypeError(f"{layer.kind} makes no accumulators of errors")


def dropped(layer: Dropout, codes: Codes, key: StreamKey) -> Codes:
    """Codes times 1 / (1 - p), and 0 where the element's random bits are below p."""
    stays = hash32(element_index(codes.shape), key) >= np.uint32(layer.threshold)
    products: Codes = np.asarray(codes, np.int64) * layer.factor * stays
    return products


def element_index(shape: tuple[int, ...], offset: int = 0, batch: int | None = None) -> NDArray[np.int64]:
    """Index of each element of a [batch, ...] tensor in its random stream: the batch is innermost, as in the machine's memory.

    Args:
        shape: of the tensor at hand.
        offset: position of its first image in the global batch.
        batch: the global batch size; by default the batch at hand is all of it.
    """
    images = shape[0]
    inner = int(np.prod(shape[1:], dtype=np.int64))
    places = np.arange(inner, dtype=np.int64) * (images if batch is None else batch)
    return (places[None, :] + (np.arange(images, dtype=np.int64) + offset)[:, None]).reshape(shape)
