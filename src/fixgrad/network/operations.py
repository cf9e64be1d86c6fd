"""The operations of a training step on integer arrays, NumPy, written from their definitions.

Feature maps are [batch, channel, row, column], vectors [batch, feature].
"""

import numpy as np
from numpy.typing import NDArray

from fixgrad.network.layers import Conv2d, Flatten, Layer, Linear, MacLayer, MaxPool2d, ReLU
from fixgrad.numbers import Accumulated, wrap32
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


def pass_forward(layer: Layer, x: Codes) -> Codes:
    """Forward of a layer without weights: the codes keep their format."""
    match layer:
        case ReLU():
            return np.maximum(x, 0)
        case MaxPool2d():
            return pool_forward(x, layer.window)
        case Flatten():
            return x.reshape(len(x), -1)
    raise TypeError(f"{layer.kind} changes the format of its codes")


def pass_backward(layer: Layer, x: Codes, dy: Codes) -> Codes:
    """Backward of a layer without weights: the error codes keep their format."""
    match layer:
        case ReLU():
            return np.where(x > 0, dy, 0)
        case MaxPool2d():
            return pool_backward(x, dy, layer.window)
        case Flatten():
            return dy.reshape(x.shape)
    raise TypeError(f"{layer.kind} changes the format of its codes")


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
