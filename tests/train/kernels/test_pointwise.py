"""Both implementations of the pointwise functions against their NumPy definitions."""

import numpy as np
import pytest
import torch

from fixgrad.network.operations import element_index, pool_backward, pool_forward
from fixgrad.network.recipe import Coefficient, UpdateConstants
from fixgrad.network.update import ParameterFormats, TermShifts, update
from fixgrad.numbers import Rounding, hash32, magnitude_bits, requantise, saturate, shift_round, stream_key, wrap32
from fixgrad.train.kernels import pointwise_torch
from fixgrad.train.kernels.pointwise import Placement, UpdateJob, combined, on_host
from fixgrad.train.kernels.pointwise_numba import NumbaPointwise
from fixgrad.train.kernels.pointwise_torch import TorchPointwise

KEY = stream_key(7, 3, "error/conv")
LOWEST, HIGHEST = -(1 << 31), (1 << 31) - 1


@pytest.fixture(params=[TorchPointwise, NumbaPointwise])
def pointwise(request):
    return request.param()


def accumulators(shape, seed=0, bits=31):
    """int32 of all magnitudes, with the extremes among them."""
    rng = np.random.default_rng(seed)
    values = rng.integers(LOWEST, HIGHEST, shape, endpoint=True) >> rng.integers(31 - bits, 32, shape)
    values.reshape(-1)[:6] = [LOWEST, HIGHEST, 0, -1, 1, LOWEST + 1]
    return np.clip(values, LOWEST, HIGHEST).astype(np.int32)


def codes(shape, seed=0):
    return np.random.default_rng(seed).integers(-127, 128, shape, np.int8)


def magnitude(values):
    return max(int(values.max()), -int(values.min()))


@pytest.mark.parametrize("shift", [0, 1, 2, 8, 17, 30, 31])
@pytest.mark.parametrize("bits", [8, 5, 16])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_requantise_forward(pointwise, shift, bits, relu, biased):
    sums = accumulators((3, 4, 5, 7), seed=shift)
    bias = accumulators((7,), seed=bits) if biased else None
    exact = sums if bias is None else sums.astype(np.int64) + bias
    total, overflow = wrap32(exact.astype(np.int64))
    total = np.maximum(total, 0) if relu else total
    wide = shift_round(total, shift, Rounding.NEAREST)
    out = torch.empty(sums.shape, dtype=torch.int8 if bits <= 8 else torch.int32)
    tensors = torch.from_numpy(sums), None if bias is None else torch.from_numpy(bias)
    seen = on_host(pointwise.requantise_forward(*tensors, relu, shift, bits, out))
    assert np.array_equal(out.numpy(), saturate(wide, bits))
    assert seen == (magnitude(total.astype(np.int64)), (saturate(wide, bits) != wide).sum(), overflow)
    measured = on_host(pointwise.measure_forward(*tensors, relu))
    assert (measured.largest, measured.overflow) == (seen.largest, seen.overflow)


@pytest.mark.parametrize("shift", [0, 1, 7, 8, 16, 30, 31])
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (5, 33), (1, 1, 1, 1), (3, 2, 2, 1)])
def test_requantise_error(pointwise, shift, stochastic, gated, shape):
    sums = accumulators((np.prod(shape) + 6,), seed=shift)[: np.prod(shape)].reshape(shape)
    gate = codes(shape, seed=shift) if gated else None
    total = sums if gate is None else np.where(gate > 0, sums, 0)
    place = Placement(first=2, batch=11)
    channels_first = (shape[0], shape[-1], *shape[1:-1])
    index = np.moveaxis(element_index(channels_first, place.first, place.batch), 1, -1)
    random = hash32(index, KEY)
    wide = shift_round(total, shift, Rounding.STOCHASTIC if stochastic else Rounding.NEAREST, random)
    out = torch.empty(shape, dtype=torch.int8)
    gate_tensor = None if gate is None else torch.from_numpy(gate)
    key = KEY if stochastic else None
    seen = on_host(pointwise.requantise_error(torch.from_numpy(sums), gate_tensor, shift, key, place, out))
    assert np.array_equal(out.numpy(), saturate(wide, 8))
    assert seen == (magnitude(total.astype(np.int64)), (saturate(wide, 8) != wide).sum(), False)
    assert on_host(pointwise.measure_error(torch.from_numpy(sums), gate_tensor)).largest == seen.largest


def test_parts_of_a_batch_round_as_the_whole(pointwise):
    sums = torch.from_numpy(accumulators((9, 4, 3, 5), bits=20))
    whole, parts = (torch.empty(sums.shape, dtype=torch.int8) for _ in range(2))
    expected = pointwise.requantise_error(sums, None, 9, KEY, Placement(0, 9), whole)
    measures = [
        pointwise.requantise_error(sums[part], None, 9, KEY, Placement(part.start, 9), parts[part])
        for part in (slice(4, 9), slice(0, 3), slice(3, 4))
    ]
    assert torch.equal(whole, parts)
    assert torch.equal(combined(measures), expected)


def test_element_indices_beyond_32_bits_wrap(pointwise):
    """An element index is taken modulo 2**32: 3 * 70,000 * 30,000 is above it."""
    sums = torch.full((1, 1, 1, 4), 1 << 7, dtype=torch.int32)
    place = Placement(first=(1 << 32) - 2, batch=70_000 * 30_000)
    out = torch.empty(sums.shape, dtype=torch.int8)
    pointwise.requantise_error(sums, None, 8, KEY, place, out)
    index = np.arange(4, dtype=np.int64) * place.batch + place.first
    random = hash32(index, KEY)
    assert np.array_equal(out.numpy().reshape(-1), shift_round(np.full(4, 1 << 7), 8, Rounding.STOCHASTIC, random))


@pytest.mark.parametrize("window", [(2, 2), (1, 1), (3, 2), (2, 5)])
@pytest.mark.parametrize("size", [(6, 10), (7, 11), (3, 5)])
def test_pool(pointwise, window, size):
    maps = codes((3, *size, 4)) // 40  # few values: many equal maxima
    if window[0] > size[0] or window[1] > size[1]:
        pytest.skip("the window does not fit")
    first = maps.transpose(0, 3, 1, 2)
    expected = pool_forward(first, window).transpose(0, 2, 3, 1)
    pooled = torch.empty(expected.shape, dtype=torch.int8)
    pointwise.pool(torch.from_numpy(maps), window, pooled)
    assert np.array_equal(pooled.numpy(), expected)
    errors = codes(expected.shape, seed=5)
    out = torch.full(maps.shape, 99, dtype=torch.int8)
    pointwise.pool_error(torch.from_numpy(maps), pooled, torch.from_numpy(errors), window, out)
    assert np.array_equal(out.numpy().transpose(0, 3, 1, 2), pool_backward(first, errors.transpose(0, 3, 1, 2), window))


def test_pool_of_the_lowest_codes(pointwise):
    maps, pooled = torch.full((1, 2, 2, 3), -127, dtype=torch.int8), torch.empty(1, 1, 1, 3, dtype=torch.int8)
    pointwise.pool(maps, (2, 2), pooled)
    assert (pooled == -127).all()


@pytest.mark.parametrize("shape", [(200_000, 3), (4, 5, 6, 7), (1, 1)])
def test_column_sums(pointwise, shape):
    errors = np.full(shape, -127, np.int8)
    errors[..., 0] = codes(shape[:-1])
    expected = errors.reshape(-1, shape[-1]).sum(axis=0, dtype=np.int64)
    assert np.array_equal(pointwise.column_sums(torch.from_numpy(errors)).numpy(), expected)


FORMATS = {
    "stored 24, momentum 24": ParameterFormats(24, 20, 24),
    "stored 32, momentum 16": ParameterFormats(32, 27, 16),
    "stored 16, momentum 32": ParameterFormats(16, 13, 32),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize(("gradient_shift", "decay_shift"), [(-62, -62), (-20, -9), (-1, 0), (0, 3), (24, 24)])
@pytest.mark.parametrize("pruned", [False, True])
def test_update(pointwise, name, rounding, gradient_shift, decay_shift, pruned):
    formats, shape = FORMATS[name], (6, 9, 5)
    rng = np.random.default_rng(abs(gradient_shift))
    limits = [(1 << (bits - 1)) - 1 for bits in (formats.stored_bits, formats.momentum_bits)]
    stored, momentum = (rng.integers(-limit, limit, shape, endpoint=True).astype(np.int32) for limit in limits)
    stored.reshape(-1)[:2], momentum.reshape(-1)[2:4] = [limits[0], -limits[0]], [limits[1], -limits[1]]
    gradient = accumulators(shape)
    mask = rng.random((6, 5)) < 0.5 if pruned else None
    if mask is not None:
        stored, momentum = (np.where(mask[:, None], codes, 0).astype(np.int32) for codes in (stored, momentum))
    shifts = TermShifts(gradient_shift, decay_shift, formats.stored_frac - formats.momentum_frac)
    constants = UpdateConstants(230, Coefficient(200, 5), Coefficient(131, 9))
    linear = (np.arange(270).reshape(6, 5, 9) + 12 * 45).transpose(0, 2, 1)
    stochastic = rounding is Rounding.STOCHASTIC
    live = gradient if mask is None else np.where(mask[:, None], gradient, 0)
    expected = update(stored, momentum, live, formats, shifts, constants, rounding, hash32(linear, KEY) if stochastic else None)
    tensors = [torch.from_numpy(codes.copy()) for codes in (stored, momentum, gradient)]
    operand = torch.empty(shape, dtype=torch.int8)
    mask_tensor = None if mask is None else torch.from_numpy(mask)
    job = UpdateJob(*tensors, mask_tensor, 12, operand, 9, formats, shifts, constants, KEY if stochastic else None)
    largest = pointwise.update(job)
    assert np.array_equal(job.stored.numpy(), expected.stored)
    assert np.array_equal(job.momentum.numpy(), expected.momentum)
    assert np.array_equal(operand.numpy(), requantise(expected.stored, 9, 8))
    assert int(largest).bit_length() == magnitude_bits(expected.stored)


def test_update_of_a_bias_leaves_no_operand(pointwise):
    formats, constants = ParameterFormats(24, 20, 24), UpdateConstants(230, Coefficient(200, 5), Coefficient(0, 0))
    stored, momentum, gradient = (torch.arange(5, dtype=torch.int32).reshape(1, 1, 5) << n for n in (9, 4, 12))
    shifts = TermShifts(3, 0, -4)
    expected = update(stored.numpy().copy(), momentum.numpy(), gradient.numpy(), formats, shifts, constants, Rounding.NEAREST)
    pointwise.update(UpdateJob(stored, momentum, gradient, None, 0, None, 0, formats, shifts, constants, None))
    assert np.array_equal(stored.numpy(), expected.stored)
    assert np.array_equal(momentum.numpy(), expected.momentum)


def test_hash_on_tensors_equals_the_definition():
    index = np.random.default_rng(0).integers(LOWEST, HIGHEST, 1000)
    expected = hash32(index, KEY).astype(np.int64)
    assert np.array_equal(pointwise_torch.hash32(torch.from_numpy(index), KEY).numpy(), expected)
