"""Joining, pooling, dropping and normalising as single passes over the CPU's memory, compiled by Numba.

See `fixgrad.train.kernels.fused` for what holds of all such functions. Arrays are [rows, channels] or
[images, rows, columns, channels], channels innermost, so that the innermost loops are vectors.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fixgrad.train.kernels.compiling import compiled
from fixgrad.train.kernels.fused import hashed

Codes = NDArray[Any]
Int32 = NDArray[Any]
Int64 = NDArray[Any]
UInt32 = NDArray[Any]
int32: Any = numba.int32
int64: Any = numba.int64
uint32: Any = numba.uint32


@compiled
def align(codes: Codes, left: int, right: int, out: Int32, channel: int, add: bool) -> None:
    """int8 [rows, channels], one of the shifts 0, in or added to the channels of int32 [rows, all] from `channel` on."""
    rows, channels = codes.shape
    up, down = int32(left), int32(right)
    below, half = int32(max(right - 1, 0)), int32(1) if right > 0 else int32(0)
    for row in range(rows):
        x, y = codes[row], out[row, channel : channel + channels]
        if add:
            for c in range(channels):
                value = int32(x[c]) << up
                y[c] += int32((value >> down) + ((value >> below) & half))
        else:
            for c in range(channels):
                value = int32(x[c]) << up
                y[c] = int32((value >> down) + ((value >> below) & half))


@compiled
def drop(
    codes: Codes,
    factor: int,
    threshold: int,
    key_low: int,
    key_high: int,
    rounds: UInt32,
    pixels: int,
    first: int,
    batch: int,
    out: Int32,
) -> None:
    """int8 [rows, channels] times `factor`, 0 where the element's hash is below `threshold`; see `fused.requantise_error`."""
    rows, channels = codes.shape
    low, high, stride = uint32(key_low), uint32(key_high), uint32(pixels * batch)
    limit, scale = uint32(threshold), int32(factor)
    r0, r1, r2, r3, r4, r5 = rounds[0], rounds[1], rounds[2], rounds[3], rounds[4], rounds[5]
    r6, r7, r8, r9, r10, r11 = rounds[6], rounds[7], rounds[8], rounds[9], rounds[10], rounds[11]
    words = (r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11)
    for row in range(rows):
        base = uint32((row % pixels) * batch + first + row // pixels)
        for c in range(channels):
            random = hashed((base + uint32(c) * stride) ^ low, high, words)
            out[row, c] = int32(codes[row, c]) * scale if random >= limit else int32(0)


@compiled
def average(maps: Codes, rows: Int64, columns: Int64, reciprocals: Int64, out: Int32) -> None:
    """Sum of each window of int8 [images, rows, columns, channels] times its reciprocal."""
    for image in range(len(maps)):
        for i in range(len(rows)):
            for j in range(len(columns)):
                y = out[image, i, j]
                y[:] = 0
                for r in range(rows[i, 0], rows[i, 1]):
                    for q in range(columns[j, 0], columns[j, 1]):
                        x = maps[image, r, q]
                        for c in range(len(y)):
                            y[c] += int32(x[c])
                factor = int32(reciprocals[i, j])
                for c in range(len(y)):
                    y[c] = y[c] * factor


@compiled
def average_error(errors: Codes, rows: Int64, columns: Int64, reciprocals: Int64, out: Int32) -> None:
    """The error of each window times its reciprocal, added to all its pixels."""
    out[:] = 0
    for image in range(len(errors)):
        for i in range(len(rows)):
            for j in range(len(columns)):
                dy, factor = errors[image, i, j], int32(reciprocals[i, j])
                for r in range(rows[i, 0], rows[i, 1]):
                    for q in range(columns[j, 0], columns[j, 1]):
                        dx = out[image, r, q]
                        for c in range(len(dy)):
                            dx[c] += int32(dy[c]) * factor


@compiled
def slide_maxima(maps: Codes, window: Int64, stride: Int64, padding: Int64, dilation: Int64, out: Codes) -> None:
    """Maximum of each window; what lies outside of the map is no element."""
    images, height, width, channels = maps.shape
    for image in range(images):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                y, begun = out[image, i, j], False
                for u in range(window[0]):
                    r = i * stride[0] + u * dilation[0] - padding[0]
                    if r < 0 or r >= height:
                        continue
                    for v in range(window[1]):
                        q = j * stride[1] + v * dilation[1] - padding[1]
                        if q < 0 or q >= width:
                            continue
                        x = maps[image, r, q]
                        if begun:
                            for c in range(channels):
                                y[c] = max(y[c], x[c])
                        else:
                            y[:] = x
                            begun = True


@compiled
def slide_errors(
    maps: Codes,
    pooled: Codes,
    errors: Codes,
    window: Int64,
    stride: Int64,
    padding: Int64,
    dilation: Int64,
    taken: Codes,
    out: Codes,
) -> None:
    """The error of each window added where its first maximum is; `taken` is int8 [channels]."""
    _images, height, width, channels = maps.shape
    out[:] = 0
    for image in range(len(errors)):
        for i in range(errors.shape[1]):
            for j in range(errors.shape[2]):
                y, dy = pooled[image, i, j], errors[image, i, j]
                taken[:] = 0
                for u in range(window[0]):
                    r = i * stride[0] + u * dilation[0] - padding[0]
                    if r < 0 or r >= height:
                        continue
                    for v in range(window[1]):
                        q = j * stride[1] + v * dilation[1] - padding[1]
                        if q < 0 or q >= width:
                            continue
                        x, dx = maps[image, r, q], out[image, r, q]
                        for c in range(channels):
                            hit = (x[c] == y[c]) & (taken[c] == 0)
                            dx[c] += dy[c] if hit else 0
                            taken[c] |= hit


#: Rows whose products with a code of 16 bits are added in 32 bits: 256 * 127 * 32767 is below 2**30.
_ROWS = 256


@compiled
def code_sums(codes: Codes, total: Int64, squares: Int64) -> None:
    """Adds codes of up to 16 bits [rows, channels], and their squares, to int64 [channels]."""
    rows, channels = codes.shape
    part = np.zeros(channels, np.int32)
    for begin in range(0, rows, _ROWS):
        part[:] = 0
        for row in range(begin, min(begin + _ROWS, rows)):
            x = codes[row]
            for c in range(channels):
                value = int32(x[c])
                part[c] += value
                squares[c] += int64(value * value)
        for c in range(channels):
            total[c] += int64(part[c])


@compiled
def product_sums(errors: Codes, codes: Codes, total: Int64, products: Int64) -> None:
    """Adds error codes, and their products with codes of up to 16 bits, to int64 [channels]."""
    rows, channels = codes.shape
    part, product = np.zeros(channels, np.int32), np.zeros(channels, np.int32)
    for begin in range(0, rows, _ROWS):
        part[:] = 0
        product[:] = 0
        for row in range(begin, min(begin + _ROWS, rows)):
            x, e = codes[row], errors[row]
            for c in range(channels):
                error = int32(e[c])
                part[c] += error
                product[c] += error * int32(x[c])
        for c in range(channels):
            total[c] += int64(part[c])
            products[c] += int64(product[c])


@compiled
def normalise(codes: Codes, factor: Int64, offset: Int64, shift: int, ceiling: int, out: Int32) -> None:
    """factor * x + offset, cut by `shift` bits, in int32 [rows, channels]; `offset` holds the half that rounds."""
    rows, channels = codes.shape
    low, high, cut = -int64(0x7FFFFFFF), int64(ceiling), int64(shift)
    for row in range(rows):
        x, y = codes[row], out[row]
        for c in range(channels):
            value = (int64(x[c]) * factor[c] + offset[c]) >> cut
            y[c] = int32(min(max(value, low), high))


@compiled
def denormalise(
    errors: Codes, codes: Codes, by_error: Int64, by_code: Int64, offset: Int64, shift: int, out: Int32
) -> None:
    """by_error * e + by_code * x + offset, cut by `shift` bits, in int32 [rows, channels]."""
    rows, channels = codes.shape
    low, high, cut = -int64(0x7FFFFFFF), int64(0x7FFFFFFF), int64(shift)
    for row in range(rows):
        e, x, y = errors[row], codes[row], out[row]
        for c in range(channels):
            value = (int64(e[c]) * by_error[c] + int64(x[c]) * by_code[c] + offset[c]) >> cut
            y[c] = int32(min(max(value, low), high))
