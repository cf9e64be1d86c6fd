"""Pooling on integer arrays [batch, channel, row, column], NumPy, written from its definitions."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fixgrad.network.windows import AdaptiveAvgPool2d, AvgPool2d, SlidingMaxPool2d, reciprocal

Codes = NDArray[np.integer]
Int64s = NDArray[np.int64]
#: Below every code: what padding is taken for.
_PADDING = -(1 << 31)


def average_sums(layer: AvgPool2d | AdaptiveAvgPool2d, x: Codes) -> Int64s:
    """Sum of each window times the reciprocal of its size: RECIPROCAL_FRAC bits more than the codes."""
    rows, columns = layer.spans(x.shape[1:])
    sums = np.zeros((*x.shape[:2], len(rows), len(columns)), np.int64)
    for (i, row), (j, column) in product(enumerate(rows), enumerate(columns)):
        window = x[:, :, row.start : row.stop, column.start : column.stop].astype(np.int64)
        sums[:, :, i, j] = window.sum(axis=(2, 3)) * reciprocal(row.counted * column.counted)
    return sums


def average_errors(layer: AvgPool2d | AdaptiveAvgPool2d, dy: Codes, input_shape: tuple[int, ...]) -> Int64s:
    """Each pixel's error: the sum, over the windows that hold it, of their errors times their reciprocals."""
    rows, columns = layer.spans(input_shape)
    errors = np.zeros((len(dy), *input_shape), np.int64)
    for (i, row), (j, column) in product(enumerate(rows), enumerate(columns)):
        share = dy[:, :, i, j].astype(np.int64) * reciprocal(row.counted * column.counted)
        errors[:, :, row.start : row.stop, column.start : column.stop] += share[:, :, None, None]
    return errors


def sliding_maxima(layer: SlidingMaxPool2d, x: Codes) -> Codes:
    """Maximum of each window."""
    maxima: Codes = np.stack([tap for tap, _ in _taps(layer, x)]).max(axis=0).astype(x.dtype)
    return maxima


def sliding_errors(layer: SlidingMaxPool2d, x: Codes, dy: Codes) -> Int64s:
    """The error of each window goes to its first maximum; where windows overlap, errors are added."""
    taps = list(_taps(layer, x))
    first = np.stack([tap for tap, _ in taps]).argmax(axis=0)
    (ph, pw), (sh, sw) = layer.geometry.padding, layer.geometry.stride
    padded = np.zeros((*x.shape[:2], x.shape[2] + 2 * ph, x.shape[3] + 2 * pw), np.int64)
    for index, (tap, (top, left)) in enumerate(taps):
        rows, columns = tap.shape[2:]
        target = padded[:, :, top : top + (rows - 1) * sh + 1 : sh, left : left + (columns - 1) * sw + 1 : sw]
        target += np.where(first == index, dy, 0)
    return padded[:, :, ph : ph + x.shape[2], pw : pw + x.shape[3]]


def _taps(layer: SlidingMaxPool2d, x: Codes) -> Iterator[tuple[Int64s, tuple[int, int]]]:
    """What each element of the windows sees, in raster order, and its place in the padded map."""
    (ph, pw), (sh, sw), (dh, dw) = layer.geometry.padding, layer.geometry.stride, layer.geometry.dilation
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=_PADDING)
    rows, columns = layer.geometry.output_size(x.shape[2], x.shape[3], *layer.window)
    for u, v in product(range(layer.window[0]), range(layer.window[1])):
        top, left = u * dh, v * dw
        yield padded[:, :, top : top + (rows - 1) * sh + 1 : sh, left : left + (columns - 1) * sw + 1 : sw], (top, left)
