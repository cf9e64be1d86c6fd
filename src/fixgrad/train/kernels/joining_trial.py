"""A trial of the compiled functions that join and normalise tensors: on small ones they must equal the eager ones."""

import numpy as np
import torch
from torch import Tensor

from fixgrad.network.normalisation import BackwardMap, ForwardMap
from fixgrad.network.windows import AvgPool2d
from fixgrad.numbers import StreamKey
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.train.kernels.joining import Joining, averages
from fixgrad.train.kernels.pointwise import Placement

_KEY = StreamKey(0x12345678, 0x9ABCDEF0)
_SHAPE = (2, 5, 4, 19)
_GEOMETRY = ConvGeometry(stride=(2, 1), padding=(1, 1))


def joining_agrees(one: Joining, other: Joining) -> bool:
    """Whether two implementations compute the same integers from a fixed sample of each function."""
    return all(torch.equal(mine, theirs) for mine, theirs in zip(_results(one), _results(other), strict=True))


def _sample(bits: int, first: int, shape: tuple[int, ...] = _SHAPE) -> Tensor:
    """Integers of `bits` bits that look random and are the same everywhere."""
    words = (torch.arange(first, first + torch.Size(shape).numel(), dtype=torch.int64) * 0x9E3779B1) & 0xFFFFFFFF
    codes = (words >> (32 - bits)) - (1 << (bits - 1))
    return codes.reshape(shape).to(torch.int8 if bits <= 8 else torch.int16)


def _results(joining: Joining) -> list[Tensor]:
    codes, wide, few = _sample(8, 1), _sample(16, 99), _sample(3, 7)
    sums = [torch.zeros(_SHAPE, dtype=torch.int32) for _ in range(4)]
    joining.align(codes, 9, sums[0], 0, add=False)
    joining.align(codes, -3, sums[0], 0, add=True)
    joining.drop(codes, 20000, 1 << 31, _KEY, Placement(1, 7), sums[1])
    factors = [np.arange(start, start + 19 * step, step, dtype=np.int64) for start, step in ((-(1 << 30), 1 << 27), (-99, 1 << 40))]
    joining.normalise(wide, ForwardMap(factors[0], factors[1]), 1 << 30, sums[2])
    joining.denormalise(codes, wide, BackwardMap(factors[0], -factors[0], factors[1]), sums[3])
    return [*sums, joining.code_sums(wide), joining.product_sums(codes, wide), *_pools(joining, codes, few)]


def _pools(joining: Joining, codes: Tensor, few: Tensor) -> list[Tensor]:
    pool = AvgPool2d(name="", inputs=("",), window=(3, 2), geometry=_GEOMETRY, count_padding=False)
    windows = averages(*pool.spans((19, 5, 4)))
    shape = (2, len(windows.rows), len(windows.columns), 19)
    pooled, spread, scattered = (torch.empty(each, dtype=torch.int32) for each in (shape, _SHAPE, _SHAPE))
    largest, errors = torch.empty(shape, dtype=torch.int8), _sample(8, 5, shape)
    joining.average(codes, windows, pooled)
    joining.average_error(errors, windows, spread)
    joining.slide_maxima(few, (3, 2), _GEOMETRY, largest)
    joining.slide_errors(few, largest, errors, (3, 2), _GEOMETRY, scattered)
    weights, sums, back = _sample(8, 3, (6, 19)), torch.empty(shape, dtype=torch.int32), torch.empty(_SHAPE, dtype=torch.int32)
    joining.depthwise(codes, weights, (3, 2), _GEOMETRY, sums)
    joining.depthwise_error(errors, weights, (3, 2), _GEOMETRY, back)
    gradient = joining.depthwise_gradient(codes, errors, (3, 2), _GEOMETRY)
    return [pooled, spread, largest, scattered, sums, back, gradient]
