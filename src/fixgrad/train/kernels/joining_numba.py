"""Joining, pooling, dropping and normalising on the CPU, each one pass over memory (see `fixgrad.train.kernels.fused_joining`)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fixgrad.network.normalisation import PRODUCT_FRAC, BackwardMap, ForwardMap
from fixgrad.numbers import StreamKey
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.numbers.counter_hash import HASH_ROUNDS
from fixgrad.train.kernels import fused_depthwise, fused_joining
from fixgrad.train.kernels.joining import Averages
from fixgrad.train.kernels.pointwise import Placement

_ROUNDS = np.array(HASH_ROUNDS, np.uint32).reshape(-1)
_HALF = 1 << (PRODUCT_FRAC - 1)
#: The widest right shift of an 8-bit code that leaves something to round.
_WIDEST = 31


class NumbaJoining:
    """See `fixgrad.train.kernels.joining.Joining`."""

    def align(self, codes: Tensor, left: int, out: Tensor, channel: int, add: bool) -> None:
        fused_joining.align(_rows(codes), max(left, 0), min(max(-left, 0), _WIDEST), _rows(out), channel, add)

    def drop(self, codes: Tensor, factor: int, threshold: int, key: StreamKey, place: Placement, out: Tensor) -> None:
        rows = _rows(codes)
        pixels = len(rows) // len(codes)
        fused_joining.drop(rows, factor, threshold, *key, _ROUNDS, pixels, place.first, place.batch, _rows(out))

    def average(self, maps: Tensor, windows: Averages, out: Tensor) -> None:
        fused_joining.average(maps.numpy(), *windows, out.numpy())

    def average_error(self, errors: Tensor, windows: Averages, out: Tensor) -> None:
        fused_joining.average_error(errors.numpy(), *windows, out.numpy())

    def slide_maxima(self, maps: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor) -> None:
        size, stride, padding, dilation = _moves(window, geometry)
        fused_joining.slide_maxima(maps.numpy(), size, stride, padding, dilation, out.numpy())

    def slide_errors(
        self, maps: Tensor, pooled: Tensor, errors: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor
    ) -> None:
        taken = np.empty(maps.shape[3], np.int8)
        size, stride, padding, dilation = _moves(window, geometry)
        arrays = maps.numpy(), pooled.numpy(), errors.numpy()
        fused_joining.slide_errors(*arrays, size, stride, padding, dilation, taken, out.numpy())

    def depthwise(self, maps: Tensor, weights: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor) -> None:
        size, stride, padding, dilation = _moves(window, geometry)
        fused_depthwise.forward(maps.numpy(), weights.numpy(), size, stride, padding, dilation, out.numpy())

    def depthwise_error(
        self, errors: Tensor, weights: Tensor, window: tuple[int, int], geometry: ConvGeometry, out: Tensor
    ) -> None:
        size, stride, padding, dilation = _moves(window, geometry)
        fused_depthwise.backward(errors.numpy(), weights.numpy(), size, stride, padding, dilation, out.numpy())

    def depthwise_gradient(self, maps: Tensor, errors: Tensor, window: tuple[int, int], geometry: ConvGeometry) -> Tensor:
        size, stride, padding, dilation = _moves(window, geometry)
        sums = np.zeros((window[0] * window[1], maps.shape[3]), np.int64)
        fused_depthwise.gradient(maps.numpy(), errors.numpy(), size, stride, padding, dilation, sums)
        return torch.from_numpy(sums)

    def code_sums(self, codes: Tensor) -> Tensor:
        sums = np.zeros((2, codes.shape[-1]), np.int64)
        fused_joining.code_sums(_rows(codes), *sums)
        return torch.from_numpy(sums)

    def product_sums(self, errors: Tensor, codes: Tensor) -> Tensor:
        sums = np.zeros((2, codes.shape[-1]), np.int64)
        fused_joining.product_sums(_rows(errors), _rows(codes), *sums)
        return torch.from_numpy(sums)

    def normalise(self, codes: Tensor, mapped: ForwardMap, ceiling: int, out: Tensor) -> None:
        fused_joining.normalise(_rows(codes), mapped.factor, mapped.offset + _HALF, PRODUCT_FRAC, ceiling, _rows(out))

    def denormalise(self, errors: Tensor, codes: Tensor, mapped: BackwardMap, out: Tensor) -> None:
        maps = mapped.by_error, mapped.by_code, mapped.offset + _HALF
        fused_joining.denormalise(_rows(errors), _rows(codes), *maps, PRODUCT_FRAC, _rows(out))


def _moves(window: tuple[int, int], geometry: ConvGeometry) -> tuple[NDArray[np.int64], ...]:
    return tuple(np.array(pair, np.int64) for pair in (window, geometry.stride, geometry.padding, geometry.dilation))


def _rows(tensor: Tensor) -> NDArray[Any]:
    """[rows, channels] without a copy: the tensors of a tile are contiguous."""
    codes: NDArray[Any] = tensor.numpy()
    return codes.reshape(-1, codes.shape[-1])
