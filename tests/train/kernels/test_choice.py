"""The choice of kernels: what works is taken, and what gives other integers is found out."""

import logging
import subprocess
import sys

import pytest
import torch

from fixgrad.train.kernels import choice, pointwise_numba
from fixgrad.train.kernels.choice import choose_kernels
from fixgrad.train.kernels.gemm import GemmPath
from fixgrad.train.kernels.pointwise_numba import NumbaPointwise
from fixgrad.train.kernels.pointwise_torch import TorchPointwise
from fixgrad.train.kernels.trial import agree

CPU = torch.device("cpu")


@pytest.fixture
def forgotten():
    choice._fused_pointwise.cache_clear()
    yield
    choice._fused_pointwise.cache_clear()


def test_fused_functions_on_a_cpu():
    kernels = choose_kernels(CPU)
    assert isinstance(kernels.pointwise, NumbaPointwise)
    assert kernels.workers.count == torch.get_num_threads()
    assert choose_kernels(CPU, "fp64").path is GemmPath.FP64
    assert type(choose_kernels(CPU, fused=False).pointwise) is TorchPointwise


def off_by_one(name):
    """NumbaPointwise with one function that errs in a single element."""

    class Wrong(NumbaPointwise):
        pass

    def wrong(self, *arguments):
        measure = getattr(super(Wrong, self), name)(*arguments)
        tensors = [tensor for tensor in arguments if isinstance(tensor, torch.Tensor)]
        (tensors[-1] if tensors else arguments[0].stored).reshape(-1)[7] ^= 1
        return measure

    setattr(Wrong, name, wrong)
    return Wrong


@pytest.mark.parametrize("name", ["requantise_forward", "requantise_error", "pool", "pool_error", "update"])
def test_a_wrong_function_is_found_out(name, monkeypatch, caplog, forgotten):
    assert not agree(off_by_one(name)(), TorchPointwise())
    monkeypatch.setattr(pointwise_numba, "NumbaPointwise", off_by_one(name))
    with caplog.at_level(logging.WARNING):
        assert type(choose_kernels(CPU).pointwise) is TorchPointwise
    assert "compiled functions give other integers than eager ones" in caplog.text


def test_a_wrong_sum_is_found_out():
    class Wrong(NumbaPointwise):
        def column_sums(self, errors):
            return super().column_sums(errors) + 1

    assert not agree(Wrong(), TorchPointwise())


def test_a_compiler_that_fails_is_found_out(monkeypatch, caplog, forgotten):
    def broken(*arguments):
        raise OSError("no LLVM")

    monkeypatch.setattr(pointwise_numba.fused, "update", broken)
    with caplog.at_level(logging.WARNING):
        assert type(choose_kernels(CPU).pointwise) is TorchPointwise
    assert "Numba does not work here (no LLVM)" in caplog.text


def test_without_a_folder_for_compiled_code():
    """Where Numba finds no folder to keep compiled code in, functions are compiled for the process alone."""
    script = (
        "from numba.core.caching import CacheImpl; CacheImpl._locator_classes = []\n"
        "import numpy as np; from fixgrad.train.kernels import fused\n"
        "sums = np.zeros(2, np.int64); fused.column_sums(np.array([[1, -2], [3, -4]], np.int8), sums); print(sums)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[ 4 -6]", done.stderr
