"""Depthwise convolution as single passes over the CPU's memory, compiled by Numba; see `fixgrad.train.kernels.fused`.

Each channel has a kernel of its own, so there is no matrix product: the channels are the vectors. Maps are
[images, rows, columns, channels], weights [taps, channels], taps in raster order.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fixgrad.train.kernels.compiling import compiled

Codes = NDArray[Any]
Int32 = NDArray[Any]
Int64 = NDArray[Any]
int32: Any = numba.int32
int64: Any = numba.int64


@compiled
def forward(
    maps: Codes, weights: Codes, window: Int64, stride: Int64, padding: Int64, dilation: Int64, out: Int32
) -> None:
    """FF: int32 accumulators."""
    images, height, width, channels = maps.shape
    for image in range(images):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                y = out[image, i, j]
                y[:] = 0
                for u in range(window[0]):
                    r = i * stride[0] + u * dilation[0] - padding[0]
                    if r < 0 or r >= height:
                        continue
                    for v in range(window[1]):
                        q = j * stride[1] + v * dilation[1] - padding[1]
                        if q < 0 or q >= width:
                            continue
                        x, w = maps[image, r, q], weights[u * window[1] + v]
                        for c in range(channels):
                            y[c] += int32(x[c]) * int32(w[c])


@compiled
def backward(
    errors: Codes, weights: Codes, window: Int64, stride: Int64, padding: Int64, dilation: Int64, out: Int32
) -> None:
    """NG: int32 accumulators of the error of the input."""
    _images, height, width, channels = out.shape
    out[:] = 0
    for image in range(len(errors)):
        for i in range(errors.shape[1]):
            for j in range(errors.shape[2]):
                dy = errors[image, i, j]
                for u in range(window[0]):
                    r = i * stride[0] + u * dilation[0] - padding[0]
                    if r < 0 or r >= height:
                        continue
                    for v in range(window[1]):
                        q = j * stride[1] + v * dilation[1] - padding[1]
                        if q < 0 or q >= width:
                            continue
                        dx, w = out[image, r, q], weights[u * window[1] + v]
                        for c in range(channels):
                            dx[c] += int32(dy[c]) * int32(w[c])


@compiled
def gradient(
    maps: Codes, errors: Codes, window: Int64, stride: Int64, padding: Int64, dilation: Int64, out: Int64
) -> None:
    """WG: added to int64 [taps, channels]; the sums of one row of outputs stay within 32 bits."""
    images, height, width, channels = maps.shape
    row = np.zeros(out.shape, np.int32)
    for image in range(images):
        for i in range(errors.shape[1]):
            row[:] = 0
            for j in range(errors.shape[2]):
                dy = errors[image, i, j]
                for u in range(window[0]):
                    r = i * stride[0] + u * dilation[0] - padding[0]
                    if r < 0 or r >= height:
                        continue
                    for v in range(window[1]):
                        q = j * stride[1] + v * dilation[1] - padding[1]
                        if q < 0 or q >= width:
                            continue
                        x, dw = maps[image, r, q], row[u * window[1] + v]
                        for c in range(channels):
                            dw[c] += int32(x[c]) * int32(dy[c])
            for t in range(len(out)):
                for c in range(channels):
                    out[t, c] += int64(row[t, c])
