"""Every path of the integer product against int64, with data of one sign at the depths where inexact units fail."""

import itertools
import logging

import numpy as np
import pytest
import torch

from fixgrad.errors import FixgradError, UsageError
from fixgrad.train.kernels import gemm as module
from fixgrad.train.kernels.gemm import SAFE_TERMS, GemmPath, choose_path, gemm, gemm_exact, is_exact, wrap

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forget_tests():
    yield
    is_exact.cache_clear()


def wrapped(exact):
    return ((exact + (1 << 31)) % (1 << 32)) - (1 << 31)


@pytest.mark.parametrize("path", GemmPath)
@pytest.mark.parametrize("depth", [1, 2, 27, 1040, 1041, 4608, 40_000, SAFE_TERMS, SAFE_TERMS + 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_adversarial_depths(path, depth, sign):
    a = torch.full((5, depth), 127, dtype=torch.int8)
    b = torch.full((depth, 19), sign * 127, dtype=torch.int8)
    assert (gemm(a, b, path) == wrapped(sign * depth * 127**2)).all()
    assert (gemm_exact(a, b, path) == sign * depth * 127**2).all()


@pytest.mark.parametrize("path", GemmPath)
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 1, 1), (3, 7, 5), (17, 65, 33), (128, 576, 10), (64, 4608, 48)])
def test_random_shapes_and_transposed_operands(path, rows, depth, columns):
    rng = np.random.default_rng(rows * depth)
    a, b = rng.integers(-127, 128, (rows, depth), np.int8), rng.integers(-127, 128, (depth, columns), np.int8)
    expected = torch.from_numpy(a.astype(np.int64) @ b.astype(np.int64))
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    for x in (left, left.t().contiguous().t()):
        for y in (right, right.t().contiguous().t()):
            assert torch.equal(gemm(x, y, path).long(), expected)
            out = torch.empty(rows, columns, dtype=torch.int32)
            assert gemm(x, y, path, out) is out
            assert torch.equal(out.long(), expected)


def test_sums_beyond_32_bits_wrap_and_are_flagged():
    exact = torch.tensor([(1 << 31) - 1, -(1 << 31)])
    values, overflow = wrap(exact)
    assert torch.equal(values.long(), exact)
    assert not overflow
    values, overflow = wrap(torch.tensor([1 << 31, 5]))
    assert values.tolist() == [-(1 << 31), 5]
    assert overflow


@pytest.mark.parametrize("path", GemmPath)
def test_paths_of_this_machine_are_exact(path):
    assert is_exact(path, "cpu")


def saturating_pairs(a, b, *, out):
    """An int8 product as on CPUs that add pairs of products in 16 bits, which saturate."""
    a, b = a.long(), b.long()
    if a.shape[1] % 2:
        a, b = torch.nn.functional.pad(a, (0, 1)), torch.nn.functional.pad(b, (0, 0, 0, 1))
    pairs = torch.einsum("mkp,kpn->mkn", (a.unflatten(1, (-1, 2)) + 128), b.unflatten(0, (-1, 2)))
    exact = pairs.clamp(-(1 << 15), (1 << 15) - 1).sum(dim=1) - 128 * b.sum(dim=0)
    return out.copy_(exact)


def test_a_saturating_int8_path_is_found_out(monkeypatch, caplog):
    monkeypatch.setattr(module.torch, "_int_mm", saturating_pairs)
    is_exact.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert choose_path("auto", CPU) is GemmPath.FP32
    assert "path int8 fails its exactness test on this cpu" in caplog.text
    with pytest.raises(FixgradError, match="path int8 fails its exactness test on this cpu: use path='auto'"):
        choose_path("int8", CPU)


def test_a_missing_int8_product_is_found_out(monkeypatch):
    def missing(a, b, *, out):
        raise RuntimeError("not implemented")

    monkeypatch.setattr(module.torch, "_int_mm", missing)
    is_exact.cache_clear()
    assert choose_path("auto", CPU) is GemmPath.FP32


def test_reduced_precision_is_found_out(monkeypatch):
    exact_mm = torch.mm
    monkeypatch.setattr(module.torch, "mm", lambda a, b, out: out.copy_(exact_mm(a, b).bfloat16()))
    is_exact.cache_clear()
    assert not is_exact(GemmPath.FP32, "cpu")


def test_no_exact_path_at_all(monkeypatch):
    monkeypatch.setattr(module, "is_exact", lambda path, device: False)
    with pytest.raises(FixgradError, match="no path gives exact integer products on this cpu: tried int8, fp32, fp64"):
        choose_path("auto", CPU)


@pytest.mark.parametrize("path", GemmPath)
def test_a_path_can_be_forced(path):
    assert choose_path(path.value, CPU) is path


def test_unknown_path():
    with pytest.raises(UsageError, match="path 'int4' is unknown: choose auto, int8, fp32, fp64"):
        choose_path("int4", CPU)


@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 1, 1), (16, 8, 8), (17, 27, 10), (24, 64, 40), (33, 9, 3)])
def test_shapes_that_a_gpu_refuses_are_filled_up(rows, depth, columns, monkeypatch):
    """On a GPU `_int_mm` takes more than 16 rows, and a depth and columns that are multiples of 8."""

    def particular(a, b):
        assert a.shape[0] > 16
        assert a.shape[1] % 8 == b.shape[1] % 8 == 0
        return (a.int() @ b.int()).int()

    rng = np.random.default_rng(rows)
    a = torch.from_numpy(rng.integers(-127, 128, (rows, depth), np.int8))
    b = torch.from_numpy(rng.integers(-127, 128, (depth, columns), np.int8))
    monkeypatch.setattr(module.torch, "_int_mm", particular)
    assert torch.equal(module._cuda_int8_gemm(a, b), a.int() @ b.int())


@pytest.mark.parametrize("path", ["int8", "fp32", "fp64"])
def test_vectors_in_any_layout(path):
    """A side of 1 leaves the strides of a matrix open; all of them must give the product."""
    rng = np.random.default_rng(5)
    for rows, depth, columns in itertools.product((1, 2, 5), (1, 2, 40), (1, 2, 5)):
        a = torch.from_numpy(rng.integers(-127, 128, (rows, depth), np.int8))
        b = torch.from_numpy(rng.integers(-127, 128, (depth, columns), np.int8))
        expected = a.to(torch.int64) @ b.to(torch.int64)
        for left, right in itertools.product((a, a.t().contiguous().t()), (b, b.t().contiguous().t())):
            assert torch.equal(gemm(left, right, GemmPath(path)).to(torch.int64), expected), (rows, depth, columns)
