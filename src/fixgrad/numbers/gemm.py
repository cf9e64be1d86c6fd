"""Exact integer matrix products on floating-point units.

BLAS has no int8 GEMM that every CPU offers, but its float32 GEMM is quick, and exact for integers as long as
nothing has to be rounded. Here is when that is so; the functions below compute such a bound from the operands
before they choose a path.

**Claim.** Let a (M x K) and b (K x N) hold integers, p a float format with a significand of s bits (24 for
float32, 53 for float64), and B >= max over (m, n) of sum_k |a[m,k]| * |b[k,n]|. If B <= 2**s, and no operand
exceeds 2**s, a GEMM in p yields the exact integers, whatever its blocking, its number of threads, the order
of its additions, and with or without fused multiply-add.

**Proof.** Every integer of magnitude <= 2**s is a number of p, so the operands are. Whatever the order, each
intermediate result of an entry is the sum of the products of some subset S of the indices k: one product
alone, a lane of a vector register, a partial sum of a block. Its exact value is an integer, and |sum over S|
<= sum over S of |a|*|b| <= sum over all k <= B <= 2**s. So it is a number of p, and IEEE 754 rounding returns
a representable exact result unchanged. A fused multiply-add rounds once, acc + a*b, which is such a sum; an
unfused one rounds the product a*b (S of one index) and then the sum. By induction over the operations no
rounding ever changes a value. QED. The claim needs an algorithm that only adds products (not Strassen's) in
arithmetic of the full format (not bfloat16 or TF32 pieces): `is_exact` tests that of the BLAS at hand on
first use, with data of one sign.

The bounds, from cheap to tight (Hölder's inequality with exponents 1 and infinity):

* B = K * max|a| * max|b|: for codes of -127..127 and float32, K <= 1,040; for float64, K <= 5.6e11.
* B = max_m sum_k |a[m,k]| * max|b|: the L1 norms of the rows, from the data.

Where B > 2**24, K is split into segments, as long as their own bounds allow, and the segments' exact float32
results are added in float64 (exact below 2**53). With large matrices that costs 10 to 25 % over a single
float32 GEMM, where a float64 GEMM costs twice as much (docs/numbers.md has the measurements).
"""

import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.numbers.accumulate import Accumulated, wrap32

#: Integers up to these magnitudes are exact: 2 to the power of the significand's width.
FLOAT32_LIMIT = 1 << 24
FLOAT64_LIMIT = 1 << 53
_INT32_MAX = (1 << 31) - 1
_INT64_MAX = (1 << 63) - 1
#: Shorter float32 segments would spend their time in additions outside of the GEMM: float64 is quicker.
_SHORTEST_SEGMENT = 64


class ExactSums(NamedTuple):
    """Sums of products before they are brought into 32 bits.

    `values` are integers, whatever the type of the array (float32, float64 or int64), and exact; no magnitude
    exceeds `bound`.
    """

    values: NDArray[Any]
    bound: int


def matmul_reference(a: NDArray[np.integer], b: NDArray[np.integer]) -> Accumulated:
    """The integer matrix product by definition, in NumPy int64, wrapped to 32 bits. Slow.

    Args:
        a: codes, [..., M, K].
        b: codes, [..., K, N]; leading dimensions broadcast as in `numpy.matmul`.

    Returns:
        [..., M, N], and whether an exact sum lay outside of 32 bits.

    Raises:
        UsageError: operands that are not integer matrices of matching shapes, or too large for 63-bit sums.
    """
    _check(a, b)
    check_int64(a.shape[-1], magnitude(a), magnitude(b))
    return wrap32(_int64_matmul(a, b))


def matmul(a: NDArray[np.integer], b: NDArray[np.integer]) -> Accumulated:
    """The same integers as `matmul_reference` for any shape and data, on the float units of the CPU.

    Args, returns and raises as `matmul_reference`. 8-bit codes run at the speed of float32; wider ones in
    float64 or, where K * max|a| * max|b| exceeds 2**53, in int64. See the module's text for the proof of
    exactness.
    """
    _check(a, b)
    if a.size <= b.size:
        return accumulated(exact_sums(a, b, magnitude(a), magnitude(b)))
    # The bound takes the L1 norms of the left operand: let that be the smaller one.
    sums = exact_sums(np.swapaxes(b, -1, -2), np.swapaxes(a, -1, -2), magnitude(b), magnitude(a))
    return accumulated(ExactSums(np.swapaxes(sums.values, -1, -2), sums.bound))


def magnitude(codes: NDArray[Any]) -> int:
    """The largest |code|, 0 for an empty array."""
    return max(int(codes.max()), -int(codes.min())) if codes.size else 0


def exact_sums(a: NDArray[Any], b: NDArray[Any], a_max: int, b_max: int) -> ExactSums:
    """The exact product of [..., M, K] and [..., K, N], by the quickest path that the bounds allow.

    Args:
        a, b: integers, in arrays of any type that holds them exactly (float32 saves a conversion).
        a_max, b_max: bounds of their magnitudes.

    Raises:
        UsageError: K * a_max * b_max exceeds 63 bits.
    """
    depth, product = a.shape[-1], a_max * b_max
    bound = depth * product
    if bound == 0:
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        return ExactSums(np.zeros(shape, np.float32), 0)
    if bound <= FLOAT64_LIMIT:
        if product * min(depth, _SHORTEST_SEGMENT) <= FLOAT32_LIMIT and is_exact(np.dtype(np.float32)):
            return _float32_sums(a.astype(np.float32, copy=False), b.astype(np.float32, copy=False), a_max, b_max)
        if is_exact(np.dtype(np.float64)):
            return ExactSums(np.matmul(a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)), bound)
    check_int64(depth, a_max, b_max)
    return ExactSums(_int64_matmul(a, b), bound)


def check_int64(depth: int, a_max: int, b_max: int) -> None:
    """Refuse sums of `depth` products that might not fit into 63 bits.

    Raises:
        UsageError: depth * a_max * b_max >= 2**63.
    """
    bound = depth * a_max * b_max
    if bound > _INT64_MAX:
        raise UsageError(
            f"a product of {depth} terms of up to {a_max} * {b_max} may reach {bound}: sums are exact "
            f"to {_INT64_MAX} (63 bits); use narrower codes or a shorter sum"
        )


def accumulated(sums: ExactSums) -> Accumulated:
    """Exact sums as 32-bit accumulators."""
    if sums.bound <= _INT32_MAX:
        return Accumulated(sums.values.astype(np.int32), False)
    return wrap32(sums.values.astype(np.int64))


def _float32_sums(a: NDArray[np.float32], b: NDArray[np.float32], a_max: int, b_max: int) -> ExactSums:
    """One float32 GEMM, or one per segment of K, added in float64. a_max, b_max >= 1."""
    segments, bound = _segments(a, a_max, b_max)
    if len(segments) == 1:
        return ExactSums(np.matmul(a, b), bound)
    total = np.matmul(a[..., segments[0]], b[..., segments[0], :]).astype(np.float64)
    for segment in segments[1:]:
        total += np.matmul(a[..., segment], b[..., segment, :])
    return ExactSums(total, bound)


def _segments(a: NDArray[np.float32], a_max: int, b_max: int) -> tuple[list[slice], int]:
    """Segments of K whose sums of |products| are at most 2**24 each, and a bound of the whole sum.

    K is cut into blocks that are short enough by a_max and b_max alone; neighbours are then joined greedily
    while the L1 norms of the rows of `a`, times b_max, allow.
    """
    depth = a.shape[-1]
    block = FLOAT32_LIMIT // (a_max * b_max)
    if depth <= block:
        return [slice(0, depth)], depth * a_max * b_max
    segments: list[slice] = []
    begin, total = 0, 0.0
    norms: NDArray[np.float64] = np.zeros(a.shape[:-1])
    for start in range(0, depth, block):
        # float32 sums these exactly: a block's L1 norm is at most block * a_max <= 2**24.
        block_norms = np.abs(a[..., start : start + block]).sum(axis=-1).astype(np.float64)
        joined = norms + block_norms
        if start > begin and joined.max() * b_max > FLOAT32_LIMIT:
            segments.append(slice(begin, start))
            total += norms.max() * b_max
            begin, joined = start, block_norms
        norms = joined
    segments.append(slice(begin, depth))
    return segments, int(total + norms.max() * b_max)


@lru_cache
def is_exact(dtype: np.dtype[Any], product: Callable[..., NDArray[Any]] = np.matmul) -> bool:
    """Whether GEMMs in `dtype` (float32 or float64) are as exact as the proof supposes, on this machine.

    The data is of one sign with odd products, and the sums end just below 2**24 or 2**53: where a bit is
    dropped anywhere, or an intermediate sum saturates, some result is wrong. The shapes reach the kernels for
    small, tall, wide and large matrices, transposed or not, and the matrix-vector product.
    """
    limit, operands = (
        (FLOAT32_LIMIT, ((127, 127), (FLOAT32_LIMIT // _SHORTEST_SEGMENT - 1, 1)))
        if dtype == np.float32
        else (FLOAT64_LIMIT, ((2**23 - 1, 2**19 - 1), (FLOAT64_LIMIT - 1, 1)))
    )
    shapes = ((1, 1), (1, 96), (96, 1), (3, 5), (16, 16), (130, 70), (257, 33))
    for (left, right), (rows, columns) in itertools.product(operands, shapes):
        depth = limit // (left * right)
        a, b = np.full((rows, depth), left, dtype), np.full((depth, columns), -right, dtype)
        a_turned, b_turned = np.ascontiguousarray(a.T).T, np.ascontiguousarray(b.T).T
        results = (product(a, b), product(a, b_turned), product(a_turned, b))
        if not all((result == -left * right * depth).all() for result in results):
            return False
    return True


def _int64_matmul(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    exact: NDArray[np.int64] = np.matmul(a.astype(np.int64), b.astype(np.int64))
    return exact


def _check(a: NDArray[Any], b: NDArray[Any]) -> None:
    for name, operand in (("left", a), ("right", b)):
        if not np.issubdtype(operand.dtype, np.integer):
            raise UsageError(f"the {name} operand of a product is {operand.dtype}: pass integer codes (Format.encode)")
        if operand.ndim < 2:
            raise UsageError(f"the {name} operand of a product has shape {operand.shape}: it must be a matrix")
    if a.shape[-1] != b.shape[-2]:
        raise UsageError(
            f"a product of {a.shape} and {b.shape}: the left has {a.shape[-1]} columns, the right "
            f"{b.shape[-2]} rows; they must be the same"
        )
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise UsageError(f"a product of {a.shape} and {b.shape}: the leading dimensions do not broadcast") from None
