"""A trial of the compiled pointwise functions before they are trusted: on small tensors they must equal the eager ones.

It finds a compiler that is broken on this machine, and compiled code left over in a cache that does not fit.
"""

import torch
from torch import Tensor

from fixgrad.network.adam import adam_constants, adam_shifts
from fixgrad.network.recipe import Coefficient, Optimiser, Recipe, UpdateConstants
from fixgrad.network.update import ParameterFormats, TermShifts
from fixgrad.numbers import StreamKey
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.train.kernels.im2col import forward_windows, gradient_windows
from fixgrad.train.kernels.pointwise import AdamJob, Placement, Pointwise, UpdateJob

_KEY = StreamKey(0x12345678, 0x9ABCDEF0)
_PLACE = Placement(first=1, batch=7)


def agree(one: Pointwise, other: Pointwise) -> bool:
    """Whether two implementations compute the same integers from a fixed sample of each function."""
    return all(
        torch.equal(mine, theirs)
        for trial in (_lowering, _forward, _errors, _pooling, _update)
        for mine, theirs in zip(trial(one), trial(other), strict=True)
    )


def adam_agrees(one: Pointwise, other: Pointwise) -> bool:
    """The same of the update by Adam, from moments of zero through a few steps."""
    return all(torch.equal(mine, theirs) for mine, theirs in zip(_adam(one), _adam(other), strict=True))


def _sample(shape: tuple[int, ...], bits: int) -> Tensor:
    """Integers of `bits` bits that look random and are the same everywhere."""
    count = torch.Size(shape).numel()
    words = (torch.arange(1, count + 1, dtype=torch.int64) * 0x9E3779B1) & 0xFFFFFFFF
    codes = (words >> (32 - bits)) - (1 << (bits - 1))
    return codes.reshape(shape).to(torch.int8 if bits <= 8 else torch.int32)


def _lowering(pointwise: Pointwise) -> list[Tensor]:
    maps, geometry = _sample((2, 5, 4, 19), 8), ConvGeometry((2, 1), (1, 2), (1, 2))
    windows = forward_windows((5, 4), (3, 2), geometry), gradient_windows((9, 2), (3, 2), geometry)
    return [pointwise.im2col(maps, each).clone() for each in windows]


def _forward(pointwise: Pointwise) -> list[Tensor]:
    sums, bias = _sample((2, 3, 3, 19), 32), _sample((19,), 31)
    return [
        tensor
        for relu in (False, True)
        for out in [torch.empty(sums.shape, dtype=torch.int8)]
        for tensor in (pointwise.requantise_forward(sums, bias, relu, 23, 8, out), out)
    ]


def _errors(pointwise: Pointwise) -> list[Tensor]:
    sums, gate = _sample((2, 3, 3, 19), 32), _sample((2, 3, 3, 19), 8)
    return [
        tensor
        for key in (None, _KEY)
        for out in [torch.empty_like(gate)]
        for tensor in (pointwise.requantise_error(sums, gate, 22, key, _PLACE, out), out)
    ]


def _pooling(pointwise: Pointwise) -> list[Tensor]:
    maps, errors = _sample((2, 5, 4, 19), 3), _sample((2, 2, 2, 19), 8)
    pooled, spread = torch.empty_like(errors), torch.empty_like(maps)
    pointwise.pool(maps, (2, 2), pooled)
    pointwise.pool_error(maps, pooled, errors, (2, 2), spread)
    return [pooled, spread, pointwise.column_sums(maps)]


def _update(pointwise: Pointwise) -> list[Tensor]:
    formats, constants = ParameterFormats(24, 20, 24), UpdateConstants(230, Coefficient(200, 5), Coefficient(131, 9))
    found: list[Tensor] = []
    for key in (None, _KEY):
        stored, momentum, gradient = (_sample((3, 4, 19), bits) for bits in (24, 23, 31))
        mask, operand = _sample((3, 19), 8) > -50, torch.empty(3, 4, 19, dtype=torch.int8)
        job = UpdateJob(stored, momentum, gradient, mask, 2, operand, 15, formats, TermShifts(-9, 2, -4), constants, key)
        found += [pointwise.update(job), stored, momentum, operand]
    return found


def _adam(pointwise: Pointwise) -> list[Tensor]:
    formats, shape = ParameterFormats(24, 20, 24), (3, 4, 19)
    found: list[Tensor] = []
    for optimiser, key in ((Optimiser.ADAM, None), (Optimiser.ADAMW, _KEY)):
        recipe = Recipe(optimiser=optimiser, learning_rate=0.01, weight_decay=0.1, epsilon=1e-4)
        stored, first, second = _sample(shape, 24), torch.zeros(shape, dtype=torch.int32), torch.zeros(shape, dtype=torch.int32)
        mask, operand = _sample((3, 19), 8) > -50, torch.empty(shape, dtype=torch.int8)
        for step in range(3):
            constants = adam_constants(recipe, step, 10, 7, step)
            gradient = _sample(shape, 31) >> _sample(shape, 5).abs() + step
            shifts = adam_shifts(formats, 12, constants)
            job = AdamJob(stored, first, second, gradient, mask, 2, operand, 15, formats, shifts, constants, key)
            found.append(pointwise.adam(job))
        found += [stored, first, second, operand]
    return found
