"""Exact integer matrix products in PyTorch, [M, K] int8 by [K, N] int8 to int32 accumulators that wrap.

Three paths give the same integers:

* ``int8``: `torch._int_mm`, on int8 dot-product instructions (VNNI, tensor cores). They add into 32 bits modulo 2**32,
  which is the accumulator's definition, so any K is exact. CPUs without VNNI add pairs of products in 16 bits that
  saturate: `is_exact` tests for that.
* ``fp32``: float32 GEMMs over segments of K, each short enough that no sum of products exceeds 2**24, added in integers.
* ``fp64``: the same with 2**53: one segment for any K that fits into memory.

`fixgrad.numbers.gemm` proves when a floating-point GEMM is exact.
"""

import logging
from enum import StrEnum
from functools import lru_cache

import torch
from torch import Tensor

from fixgrad.errors import FixgradError, UsageError
from fixgrad.numbers.gemm import FLOAT32_LIMIT
from fixgrad.train.kernels.scratch import scratch

#: The largest magnitude of an operand code.
LARGEST_CODE = 127
#: Sums of up to this many products fit into 31 bits: no accumulator can overflow.
SAFE_TERMS = ((1 << 31) - 1) // LARGEST_CODE**2
#: Products of codes that a float32 sum holds exactly.
FLOAT32_TERMS = FLOAT32_LIMIT // LARGEST_CODE**2

#: Bytes of the right operand in floating point that a product is cut into, so that it stays in a cache with its sums.
_RIGHT_BYTES = 4 << 20

_log = logging.getLogger(__name__)


class GemmPath(StrEnum):
    """How integer products are computed. All paths give the same bits."""

    INT8 = "int8"
    FP32 = "fp32"
    FP64 = "fp64"


def choose_path(wanted: str, device: torch.device) -> GemmPath:
    """The path to take: the one that is asked for, or the first exact one of int8, fp32, fp64 for ``"auto"``.

    Raises:
        UsageError: an unknown path.
        FixgradError: the path that is asked for is not exact on this device.
    """
    kind = device.type
    if wanted != "auto":
        if wanted not in list(GemmPath):
            raise UsageError(f"path {wanted!r} is unknown: choose auto, {', '.join(GemmPath)}")
        if not is_exact(GemmPath(wanted), kind):
            raise FixgradError(f"path {wanted} fails its exactness test on this {kind}: use path='auto'")
        return GemmPath(wanted)
    for path in GemmPath:
        if is_exact(path, kind):
            return path
        _log.warning("integer products: path %s fails its exactness test on this %s, trying the next", path, kind)
    raise FixgradError(f"no path gives exact integer products on this {kind}: tried {', '.join(GemmPath)}")


def gemm(a: Tensor, b: Tensor, path: GemmPath, out: Tensor | None = None) -> Tensor:
    """The product of `a` [M, K] and `b` [K, N], int8 codes of -127..127, as wrapped int32 [M, N], in `out` if given.

    Either operand may be a transposed view.
    """
    if a.device.type == "cuda" and path is GemmPath.INT8:
        product = _cuda_int8_gemm(a, b)
        return product if out is None else out.copy_(product)
    if out is None:
        out = torch.empty((a.shape[0], b.shape[1]), dtype=torch.int32, device=a.device)
    return torch._int_mm(_unambiguous(a), _unambiguous(b), out=out) if path is GemmPath.INT8 else _float_gemm(a, b, path, out)


def _unambiguous(operand: Tensor) -> Tensor:
    """The same matrix, with the strides of a row-major one where a side of 1 leaves them open.

    `torch._int_mm` of PyTorch 2.13 takes a [1, K] whose strides are (1, 1), the transpose of a column, for column-major, and
    leaves garbage in the result.
    """
    return operand.reshape(-1).view(operand.shape) if 1 in operand.shape else operand


def _float_gemm(a: Tensor, b: Tensor, path: GemmPath, out: Tensor) -> Tensor:
    """In buffers that are used again: new ones cost more than the products of layers with few channels."""
    dtype, terms = (torch.float32, FLOAT32_TERMS) if path is GemmPath.FP32 else (torch.float64, SAFE_TERMS)
    columns = b.shape[1]
    for start in range(0, a.shape[1], terms):
        left = _as_float("left", a[:, start : start + terms], dtype)
        width = max(_RIGHT_BYTES // (left.shape[1] * dtype.itemsize), 1)
        for first in range(0, columns, width):
            block = slice(first, first + width)
            right = _as_float("right", b[start : start + terms, block], dtype)
            sums = torch.mm(left, right, out=scratch("float sums", (len(left), right.shape[1]), a, dtype))
            if start == 0:
                out[:, block] = sums
            else:
                out[:, block] += scratch("integer sums", tuple(sums.shape), a, torch.int32).copy_(sums)
    return out


def _as_float(role: str, operand: Tensor, dtype: torch.dtype) -> Tensor:
    """The same codes in a scratch buffer that lies as the operand does: turning it round would take longer than the product."""
    if operand.stride(0) < operand.stride(1):
        return _as_float(role, operand.t(), dtype).t()
    return scratch(role, tuple(operand.shape), operand, dtype).copy_(operand)


def gemm_exact(a: Tensor, b: Tensor, path: GemmPath) -> Tensor:
    """The product as int64, exact for any K."""
    total = torch.zeros(a.shape[0], b.shape[1], dtype=torch.int64, device=a.device)
    for start in range(0, a.shape[1], SAFE_TERMS):
        part = slice(start, start + SAFE_TERMS)
        total += gemm(a[:, part], b[part], path)
    return total


def wrap(exact: Tensor) -> tuple[Tensor, Tensor]:
    """Exact int64 sums modulo 2**32 as int32, and a bool tensor that tells whether one lay outside of 32 bits."""
    wrapped = exact.to(torch.int32)
    return wrapped, (wrapped != exact).any()


def _cuda_int8_gemm(a: Tensor, b: Tensor) -> Tensor:
    """cuBLASLt takes M above 16, and K and N that are multiples of 8: zeros fill up the rest."""
    (rows, depth), columns = a.shape, b.shape[1]
    more_rows = -rows % 8 if rows > 16 else 24 - rows
    more_depth, more_columns = -depth % 8, -columns % 8
    if more_rows or more_depth:
        a = torch.nn.functional.pad(a, (0, more_depth, 0, more_rows))
    if more_depth or more_columns:
        b = torch.nn.functional.pad(b, (0, more_columns, 0, more_depth))
    return torch._int_mm(a, b)[:rows, :columns]


@lru_cache
def is_exact(path: GemmPath, device_type: str) -> bool:
    """Whether the path is exact on this machine, found by trial once a process (a few milliseconds).

    All products are 127 * 127 of one sign, the worst case: 16-bit sums of pairs saturate, float32 sums of more than
    1,040 round, and at 133,145 products a sum leaves 31 bits and must wrap. The shapes reach the kernels for vectors, odd
    tails and transposed operands.
    """
    for rows, depth, columns in ((1, 64, 1), (17, 1041, 33), (40, 4608, 70), (3, SAFE_TERMS + 1, 5)):
        a = torch.full((rows, depth), LARGEST_CODE, dtype=torch.int8, device=device_type)
        b = torch.full((depth, columns), -LARGEST_CODE, dtype=torch.int8, device=device_type)
        expected = (-depth * LARGEST_CODE**2 + (1 << 31)) % (1 << 32) - (1 << 31)
        for left, right in ((a, b), (a, b.t().contiguous().t()), (a.t().contiguous().t(), b)):
            try:
                product = gemm(left, right, path)
            except RuntimeError:
                return False
            if not bool((product == expected).all()):
                return False
    return True
