"""Both implementations of the update by Adam against its NumPy definition."""

import logging

import numpy as np
import pytest
import torch

from fixgrad.network import Recipe
from fixgrad.network.adam import adam_constants, adam_shifts, adam_update
from fixgrad.network.update import ParameterFormats
from fixgrad.numbers import Rounding, hash32, magnitude_bits, requantise, stream_key
from fixgrad.train.kernels import choice, pointwise_numba
from fixgrad.train.kernels.choice import choose_kernels
from fixgrad.train.kernels.pointwise import AdamJob
from fixgrad.train.kernels.pointwise_numba import NumbaPointwise
from fixgrad.train.kernels.pointwise_torch import TorchPointwise
from fixgrad.train.kernels.trial import adam_agrees

KEY = stream_key(7, 3, "update/conv.weight")
CPU = torch.device("cpu")


@pytest.fixture(params=[TorchPointwise, NumbaPointwise])
def pointwise(request):
    return request.param()


def words(rng, shape, signed):
    """Moments of all sizes, zeros and both ends among them."""
    mantissa = rng.integers(2**22, 2**23, shape) * (rng.choice([-1, 1], shape) if signed else 1)
    found = (mantissa << 8) + rng.integers(0, 256, shape)
    found[rng.random(shape) < 0.2] = 0
    found.reshape(-1)[:2] = [((2**23 - 1) << 8) + 255, 2**22 << 8]
    return found.astype(np.int32)


def sample(seed, shape, stored_bits):
    """Stored codes, moments and gradients."""
    rng, limit = np.random.default_rng(seed), 2 ** (stored_bits - 1) - 1
    gradient = rng.integers(-(2**31), 2**31, shape) >> rng.integers(0, 32, shape)
    gradient.reshape(-1)[:4] = [-(2**31), 2**31 - 1, 0, -1]
    stored = rng.integers(-limit, limit, shape, endpoint=True).astype(np.int32)
    return stored, words(rng, shape, True), words(rng, shape, False), gradient.astype(np.int32)


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
@pytest.mark.parametrize(
    ("stored_bits", "stored_frac", "gradient_frac", "rate", "decay", "epsilon", "steps"),
    [
        (24, 24, 17, 1e-3, 0.01, 1e-8, 0),
        (24, 20, -10, 1e4 - 1, 0.9, 0.0, 9),
        (16, 13, 60, 1e-12, 1e-9, 1e-8, 10**6),
        (32, 30, 30, 0.0, 0.0, 0.5, 3),
        (32, 5, 17, 0.3, 1e-3, 1e-30, 100),
    ],
)
@pytest.mark.parametrize("pruned", [False, True])
def test_adam(pointwise, rounding, optimiser, stored_bits, stored_frac, gradient_frac, rate, decay, epsilon, steps, pruned):
    shape, formats = (6, 9, 21), ParameterFormats(stored_bits, stored_frac, 24)
    stored, first, second, gradient = sample(steps % 97, shape, stored_bits)
    mask = np.random.default_rng(1).random((6, 21)) < 0.5 if pruned else None
    if mask is not None:
        stored, first, second = (np.where(mask[:, None], codes, 0).astype(np.int32) for codes in (stored, first, second))
    recipe = Recipe(optimiser=optimiser, learning_rate=rate, weight_decay=decay, epsilon=epsilon, schedule="constant")
    constants = adam_constants(recipe, steps, 10**7, 37, steps)
    shifts = adam_shifts(formats, gradient_frac, constants)
    linear = (np.arange(stored.size).reshape(6, 21, 9) + 12 * 189).transpose(0, 2, 1)
    key = KEY if rounding is Rounding.STOCHASTIC else None
    live = gradient if mask is None else np.where(mask[:, None], gradient, 0)
    random = None if key is None else hash32(linear, key)
    expected = adam_update(stored, first, second, live, formats, shifts, constants, rounding, random)
    tensors = [torch.from_numpy(codes.copy()) for codes in (stored, first, second, gradient)]
    operand, mask_tensor = torch.empty(shape, dtype=torch.int8), None if mask is None else torch.from_numpy(mask)
    shift = stored_bits - 8
    largest = pointwise.adam(AdamJob(*tensors, mask_tensor, 12, operand, shift, formats, shifts, constants, key))
    for found, wanted in zip(tensors, expected, strict=False):
        assert np.array_equal(found.numpy(), wanted)
    assert np.array_equal(operand.numpy(), requantise(expected.stored, shift, 8))
    assert int(largest).bit_length() == magnitude_bits(expected.stored)
    if mask is not None:
        assert not any(tensor.numpy().transpose(0, 2, 1)[~mask].any() for tensor in (*tensors[:3], operand))


def test_a_bias_of_one_element_has_no_operand(pointwise):
    formats, recipe = ParameterFormats(24, 20, 24), Recipe(optimiser="adam", learning_rate=0.01, schedule="constant")
    constants = adam_constants(recipe, 0, 10, 8, 0)
    shifts = adam_shifts(formats, 12, constants)
    arrays = [np.full((1, 1, 1), value, np.int32) for value in (500, 0, 0, -7)]
    expected = adam_update(*arrays, formats, shifts, constants, Rounding.NEAREST)
    tensors = [torch.from_numpy(array.copy()) for array in arrays]
    pointwise.adam(AdamJob(*tensors, None, 0, None, 0, formats, shifts, constants, None))
    assert [tensor.item() for tensor in tensors[:3]] == [array.item() for array in expected]
    assert expected.stored.item() > 500


def test_a_wrong_function_is_found_out(monkeypatch, caplog):
    """It errs in a single element: updates are eager then, for Adam alone."""

    class Wrong(NumbaPointwise):
        def adam(self, job):
            largest = super().adam(job)
            job.second.reshape(-1)[7] ^= 1
            return largest

    assert not adam_agrees(Wrong(), TorchPointwise())
    assert adam_agrees(NumbaPointwise(), TorchPointwise())
    monkeypatch.setattr(pointwise_numba, "NumbaPointwise", Wrong)
    for cached in (choice._fused_pointwise, choice._fused_adam_works):
        cached.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert type(choose_kernels(CPU, adapts=True).pointwise) is TorchPointwise
        assert "compiled functions give other integers than eager ones" in caplog.text
        assert type(choose_kernels(CPU).pointwise) is Wrong
    finally:
        for cached in (choice._fused_pointwise, choice._fused_adam_works):
            cached.cache_clear()
