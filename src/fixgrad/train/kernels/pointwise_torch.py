"""The pointwise functions of a training step in eager PyTorch integer operations, for any device.

Each follows its definition in `fixgrad.numbers` and `fixgrad.network`. `fixgrad.train.kernels.pointwise_numba` fuses
them for the CPU.
"""

import torch
from torch import Tensor

from fixgrad.network.adam import STEP_BITS, STEP_FRAC
from fixgrad.network.recipe import MOMENTUM_FRAC, OPERAND_BITS
from fixgrad.network.update import TERM_BITS
from fixgrad.numbers import StreamKey
from fixgrad.numbers.counter_hash import HASH_KEY_ROUND, HASH_ROUNDS
from fixgrad.train.kernels import adam_torch
from fixgrad.train.kernels.im2col import Windows, im2col
from fixgrad.train.kernels.pointwise import AdamJob, Placement, UpdateJob


class TorchPointwise:
    """See `fixgrad.train.kernels.pointwise.Pointwise`."""

    def im2col(self, maps: Tensor, windows: Windows) -> Tensor:
        return im2col(maps, windows)

    def measure_forward(self, sums: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        return _measure(*_biased(sums, bias, relu))

    def requantise_forward(self, sums: Tensor, bias: Tensor | None, relu: bool, shift: int, bits: int, out: Tensor) -> Tensor:
        sums, overflow = _biased(sums, bias, relu)
        return _measure(sums, overflow, _saturate_into(out, _shift_nearest(sums, shift), bits))

    def measure_error(self, sums: Tensor, gate: Tensor | None) -> Tensor:
        return _measure(_gated(sums, gate))

    def requantise_error(
        self, sums: Tensor, gate: Tensor | None, shift: int, key: StreamKey | None, place: Placement, out: Tensor
    ) -> Tensor:
        sums = _gated(sums, gate)
        if key is None or shift == 0:
            rounded = _shift_nearest(sums, shift)
        else:
            random = hash32(element_index(sums.shape, place, sums.device), key)
            rounded = _shift_stochastic(sums.to(torch.int64), shift, random)
        return _measure(sums, saturated=_saturate_into(out, rounded, OPERAND_BITS))

    def pool(self, maps: Tensor, window: tuple[int, int], out: Tensor) -> None:
        out.copy_(_pool_windows(maps, window).amax(dim=(2, 4)))

    def pool_error(self, maps: Tensor, pooled: Tensor, errors: Tensor, window: tuple[int, int], out: Tensor) -> None:
        out.zero_()
        windows, targets = _pool_windows(maps, window), _pool_windows(out, window)
        open_windows = torch.ones_like(pooled, dtype=torch.bool)
        for row in range(window[0]):
            for column in range(window[1]):
                hit = open_windows & (windows[:, :, row, :, column] == pooled)
                targets[:, :, row, :, column] = errors * hit
                open_windows &= ~hit

    def column_sums(self, errors: Tensor) -> Tensor:
        return errors.reshape(-1, errors.shape[-1]).sum(dim=0, dtype=torch.int64)

    def update(self, job: UpdateJob) -> Tensor:
        random = _random_of(job)
        stored, momentum, gradient = job.stored.to(torch.int64), job.momentum.to(torch.int64), _live_gradient(job)
        constants, shifts = job.constants, job.shifts
        total = momentum * constants.momentum
        total += _align(gradient * constants.rate.mantissa, shifts.gradient, TERM_BITS)
        total += _align(stored * constants.decay.mantissa, shifts.decay, TERM_BITS)
        momentum = _saturate(_shift_round(total, MOMENTUM_FRAC, random), job.formats.momentum_bits)
        if shifts.step >= 0:
            change = momentum << shifts.step
        else:
            below = None if random is None else (random << MOMENTUM_FRAC) & 0xFFFFFFFF
            change = _shift_round(momentum, -shifts.step, below)
        job.momentum.copy_(momentum)
        return _store(job, stored - change)

    def adam(self, job: AdamJob) -> Tensor:
        stored, constants, shifts = job.stored.to(torch.int64), job.constants, job.shifts
        gradient = _live_gradient(job) * constants.inverse_batch.mantissa
        gradient = gradient + _align(stored * constants.coupled.mantissa, shifts.coupled, TERM_BITS)
        moments = adam_torch.new_moments(gradient, job.first, job.second, shifts, constants)
        total = adam_torch.change(moments, shifts, constants) + _align(stored * constants.decay.mantissa, shifts.decay, STEP_BITS)
        job.first.copy_(moments.first)
        job.second.copy_(moments.second)
        return _store(job, stored - _shift_round(total, STEP_FRAC, _random_of(job)))


def _random_of(job: UpdateJob | AdamJob) -> Tensor | None:
    return None if job.key is None else hash32(_parameter_index(job.stored, job.position), job.key)


def _live_gradient(job: UpdateJob | AdamJob) -> Tensor:
    gradient = job.gradient.to(torch.int64)
    return gradient if job.mask is None else gradient * job.mask[:, None]


def _store(job: UpdateJob | AdamJob, moved: Tensor) -> Tensor:
    """Saturate and write stored codes, and their operands; the largest magnitude."""
    stored = _saturate(moved, job.formats.stored_bits)
    job.stored.copy_(stored)
    if job.operand is not None:
        job.operand.copy_(_saturate(_shift_nearest(stored, job.operand_shift), OPERAND_BITS))
    return stored.abs().amax()


def hash32(element: Tensor, key: StreamKey) -> Tensor:
    """32 random bits of each element index, as int64 of 0 to 2**32 - 1: `fixgrad.numbers.hash32` on any device.

    It runs in int32, whose additions wrap; a logical right shift is an arithmetic one with the sign's copies masked off.
    """
    a = element.to(torch.int32) ^ _signed(key.low)
    for index, (constant, left, right) in enumerate(HASH_ROUNDS):
        if index == HASH_KEY_ROUND:
            a = a ^ _signed(key.high)
        a = a + _signed(constant) + (a << left)
        a = a ^ ((a >> right) & ((1 << (32 - right)) - 1))
    return a.to(torch.int64) & 0xFFFFFFFF


def element_index(shape: torch.Size, place: Placement, device: torch.device) -> Tensor:
    """Index in its random stream of each element of a [images, rows, columns, channels] or [images, features] tensor.

    It is ((channel * rows + row) * columns + column) * batch + image, as int64 taken into the range of int32: what the hash
    sees of it.
    """
    images, channels = shape[0], shape[-1]
    pixels = shape[1:-1].numel()
    image = torch.arange(place.first, place.first + images, device=device).reshape(-1, 1, 1)
    pixel = torch.arange(pixels, device=device).reshape(1, -1, 1)
    channel = torch.arange(channels, device=device).reshape(1, 1, -1)
    return _modulo32(((channel * pixels + pixel) * place.batch + image).reshape(shape))


def _parameter_index(stored: Tensor, first: int) -> Tensor:
    """Linear index of each element of [out, taps, in] in the parameter's own order, [out, in, taps]."""
    outputs, taps, inputs = stored.shape
    linear = torch.arange(stored.numel(), device=stored.device) + first * taps * inputs
    return _modulo32(linear.reshape(outputs, inputs, taps).transpose(1, 2))


def _modulo32(index: Tensor) -> Tensor:
    return ((index + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def _pool_windows(maps: Tensor, window: tuple[int, int]) -> Tensor:
    """A view [images, rows, window rows, columns, window columns, channels], without what fills no window."""
    rows, columns = maps.shape[1] // window[0], maps.shape[2] // window[1]
    cut = maps[:, : rows * window[0], : columns * window[1]]
    windows: Tensor = cut.unflatten(1, (rows, window[0])).unflatten(3, (columns, window[1]))
    return windows


def _gated(sums: Tensor, gate: Tensor | None) -> Tensor:
    return sums if gate is None else sums * (gate > 0)


def _biased(sums: Tensor, bias: Tensor | None, relu: bool) -> tuple[Tensor, Tensor | None]:
    """Sums with bias and rectifier, and whether adding the bias left 32 bits."""
    overflow = None
    if bias is not None:
        total = sums + bias
        # A sum leaves 32 bits where both terms have one sign and the total the other.
        overflow = (((total ^ sums) & (total ^ bias)) < 0).any()
        sums = total
    return sums.clamp_min(0) if relu else sums, overflow


def _measure(sums: Tensor, overflow: Tensor | None = None, saturated: Tensor | None = None) -> Tensor:
    low, high = torch.aminmax(sums)
    largest = torch.maximum(high.to(torch.int64), -low.to(torch.int64))
    none = torch.zeros_like(largest)
    return torch.stack(
        (largest, none if saturated is None else saturated, none if overflow is None else overflow.to(torch.int64))
    )


def _saturate(values: Tensor, bits: int) -> Tensor:
    limit = (1 << (bits - 1)) - 1
    return values.clamp(-limit, limit)


def _saturate_into(out: Tensor, values: Tensor, bits: int) -> Tensor:
    """Writes saturated codes; returns how many saturated."""
    codes = _saturate(values, bits)
    out.copy_(codes)
    return (codes != values).sum()


def _shift_nearest(values: Tensor, shift: int) -> Tensor:
    """floor(values / 2**shift + 1/2), with no addition that could wrap: the highest bit that is cut off rounds up."""
    if shift == 0:
        return values
    return (values >> shift) + ((values >> (shift - 1)) & 1)


def _shift_stochastic(values: Tensor, shift: int, random: Tensor) -> Tensor:
    return (values + (random >> (32 - shift))) >> shift


def _shift_round(values: Tensor, shift: int, random: Tensor | None) -> Tensor:
    if random is None or shift == 0:
        return _shift_nearest(values, shift)
    return _shift_stochastic(values, shift, random)


def _align(values: Tensor, left: int, bits: int) -> Tensor:
    limit = (1 << (bits - 1)) - 1
    if left >= 0:
        bound = limit >> left
        return values.clamp(-bound, bound) << left
    return _shift_nearest(values, -left).clamp(-limit, limit)
