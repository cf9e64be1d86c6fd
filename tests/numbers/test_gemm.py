"""The fast GEMM against Python's integers and the int64 reference: any shape, any data, every path."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.numbers import gemm, matmul, matmul_reference

#: The longest sum of products of +-127 that fits into 32 bits.
LONGEST = (2**31 - 1) // 127**2


def wrapped(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def random_codes(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> NDArray[np.int8]:
    if kind == "extreme":
        return rng.choice(np.array([-127, 127], np.int8), shape)
    if kind == "sparse":
        return (rng.integers(-127, 128, shape) * (rng.random(shape) < 0.1)).astype(np.int8)
    return rng.integers(-128, 128, shape, np.int8)


@given(
    st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=6),
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=6),
)
def test_the_reference_is_the_definition(left: list[int], right: list[int]) -> None:
    depth = min(len(left), len(right))
    exact = sum(a * b for a, b in zip(left[:depth], right[:depth], strict=True))
    accumulated = matmul_reference(np.array([left[:depth]]), np.array([right[:depth]]).T)
    assert accumulated.values.tolist() == [[wrapped(exact)]]
    assert accumulated.overflow is (not -(2**31) <= exact < 2**31)


@given(
    st.tuples(st.integers(0, 20), st.integers(0, 40), st.integers(0, 20)),
    st.sampled_from(["random", "extreme", "sparse"]),
    st.sampled_from([np.int8, np.int16, np.int32, np.int64]),
    st.integers(0, 2**32),
)
def test_any_shape(sizes: tuple[int, int, int], kind: str, dtype: type[np.signedinteger], seed: int) -> None:
    rows, depth, columns = sizes
    rng = np.random.default_rng(seed)
    a = random_codes(rng, (rows, depth), kind).astype(dtype)
    b = random_codes(rng, (depth, columns), kind).astype(dtype)
    fast, reference = matmul(a, b), matmul_reference(a, b)
    assert fast.values.dtype == np.int32
    assert fast.values.shape == (rows, columns)
    assert (fast.values == reference.values).all()
    assert fast.overflow is reference.overflow is False


@pytest.mark.parametrize("kind", ["random", "extreme", "sparse"])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 70000, 1), (33, 9000, 65), (200, 2500, 7), (5, 4608, 300)])
def test_deep_sums(rows: int, depth: int, columns: int, kind: str) -> None:
    rng = np.random.default_rng(depth)
    a, b = random_codes(rng, (rows, depth), kind), random_codes(rng, (depth, columns), kind)
    assert (matmul(a, b).values == matmul_reference(a, b).values).all()


@pytest.mark.parametrize(("left", "right"), [(127, 127), (-127, -127), (127, -127), (-127, 127)])
@pytest.mark.parametrize("depth", [1, 1040, 1041, 2080, 2081, 4608, 40_000, LONGEST, LONGEST + 1, 300_000])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 20), (20, 3)])
def test_data_of_one_sign(left: int, right: int, depth: int, rows: int, columns: int) -> None:
    """Where float32 accumulators fail: no rounding error is averaged out."""
    a, b = np.full((rows, depth), left, np.int8), np.full((depth, columns), right, np.int8)
    exact = left * right * depth
    accumulated = matmul(a, b)
    assert (accumulated.values == wrapped(exact)).all()
    assert accumulated.values.shape == (rows, columns)
    assert accumulated.overflow is (depth > LONGEST)


@pytest.mark.parametrize("depth", [1023, 1024, 1025, 2048, 131_071, 131_072])
def test_the_most_negative_codes_of_wrapping_formats(depth: int) -> None:
    lowest = np.full((2, depth), -128, np.int8)
    accumulated = matmul(lowest, lowest.T)
    assert (accumulated.values == wrapped(2**14 * depth)).all()
    assert accumulated.overflow is (2**14 * depth >= 2**31)


def test_overflow_is_of_the_exact_sum_not_of_a_partial_one() -> None:
    a = np.full((1, 300_000), 127, np.int8)
    b = np.repeat(np.array([[127], [-127]], np.int8), 150_000, axis=0)
    assert matmul(a, b) == (np.array([[0]]), False)
    b[-1] = 127
    assert matmul(a, b) == (np.array([[2 * 127**2]]), False)


def test_one_overflow_among_many_sums_raises_the_flag() -> None:
    a = np.zeros((30, LONGEST + 1), np.int8)
    a[17] = 127
    b = np.full((LONGEST + 1, 2), -127, np.int8)
    accumulated = matmul(a, b)
    assert accumulated.overflow is True
    assert (accumulated.values[17] == wrapped(-(127**2) * (LONGEST + 1))).all()
    assert not np.delete(accumulated.values, 17, axis=0).any()


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0), (0, 0), (2, 4)])
def test_no_products_give_zero(rows: int, columns: int) -> None:
    accumulated = matmul(np.zeros((rows, 0), np.int8), np.zeros((0, columns), np.int8))
    assert accumulated.values.tolist() == np.zeros((rows, columns)).tolist()
    assert accumulated.values.dtype == np.int32
    assert accumulated.overflow is False


def test_stacks_broadcast() -> None:
    rng = np.random.default_rng(0)
    a, b = random_codes(rng, (4, 1, 6, 5), "random"), random_codes(rng, (3, 5, 2), "random")
    fast = matmul(a, b)
    assert fast.values.shape == (4, 3, 6, 2)
    assert (fast.values == matmul_reference(a, b).values).all()
    assert (fast.values[2, 1] == matmul(a[2, 0], b[1]).values).all()


def test_views_of_any_layout() -> None:
    rng = np.random.default_rng(1)
    codes = random_codes(rng, (60, 80), "random")
    for a, b in ((codes, codes.T), (codes.T, codes), (codes[::-2, ::3], codes.T[::3, 5:30]), (codes[:, :1], codes[:1])):
        assert (matmul(a, b).values == matmul_reference(a, b).values).all()


def test_operands_are_not_changed() -> None:
    a, b = np.full((4, 5), -3, np.int64), np.full((5, 6), 7, np.int64)
    a.flags.writeable = b.flags.writeable = False
    matmul(a, b)
    assert (a == -3).all()
    assert (b == 7).all()


@pytest.mark.parametrize(
    ("a_limit", "b_limit", "depth", "path"),
    [
        (127, 127, 5000, np.float32),
        (2**15, 127, 300, np.float64),
        (2**23, 2**23, 100, np.float64),
        (2**31, 2**30, 3, np.int64),
    ],
)
def test_wider_codes(a_limit: int, b_limit: int, depth: int, path: type, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[type] = []
    matmul_of_numpy = np.matmul

    def spy(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        used.append(a.dtype.type)
        product: NDArray[Any] = matmul_of_numpy(a, b)
        return product

    gemm.is_exact(np.dtype(np.float32))
    gemm.is_exact(np.dtype(np.float64))
    rng = np.random.default_rng(depth)
    a, b = rng.integers(-a_limit, a_limit, (6, depth)), rng.integers(-b_limit, b_limit, (depth, 7))
    a[0], b[:, 0] = a_limit, b_limit
    reference = matmul_reference(a, b)
    monkeypatch.setattr(np, "matmul", spy)
    fast = matmul(a, b)
    assert set(used) == {path}
    assert (fast.values == reference.values).all()
    assert fast.overflow is reference.overflow


@pytest.mark.parametrize("broken", [{np.float32}, {np.float32, np.float64}])
def test_where_the_float_units_are_not_exact_others_are_used(broken: set[type], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "is_exact", lambda dtype: dtype.type not in broken)
    rng = np.random.default_rng(0)
    a, b = random_codes(rng, (7, 3000), "extreme"), random_codes(rng, (3000, 8), "extreme")
    assert (matmul(a, b).values == matmul_reference(a, b).values).all()


@given(st.integers(0, 2**32), st.integers(1, 9000), st.sampled_from(["random", "extreme", "sparse"]))
def test_segments_cover_the_sum_and_each_is_exact_in_float32(seed: int, depth: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    a = random_codes(rng, (3, depth), kind)
    b = random_codes(rng, (depth, 2), kind)
    a_max, b_max = max(1, gemm.magnitude(a)), max(1, gemm.magnitude(b))
    segments, bound = gemm._segments(a.astype(np.float32), a_max, b_max)
    assert [segment.start for segment in segments] == [0, *(segment.stop for segment in segments[:-1])]
    assert segments[-1].stop == depth
    products = np.abs(a.astype(np.int64))[:, :, None] * np.abs(b.astype(np.int64))
    for segment in segments:
        assert products[:, segment].sum(axis=1).max() <= 2**24
    assert products.sum(axis=1).max() <= bound


def test_small_codes_need_no_segments() -> None:
    """The bound is of the data: what trained networks hold is far from +-127 throughout."""
    small = np.full((2, 40_000), 3, np.float32)
    assert gemm._segments(small, 3, 127) == ([slice(0, 40_000)], 40_000 * 3 * 127)
    small[0, 0] = 127
    assert gemm._segments(small, 127, 127)[0] == [slice(0, 40_000)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_blas_of_this_machine_is_exact(dtype: type[np.floating]) -> None:
    assert gemm.is_exact(np.dtype(dtype))


def in_bfloat16_products(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Operands cut to 8 significant bits, as in GEMMs of a 'reduced precision' mode."""
    cut = [(operand.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32) for operand in (a, b)]
    product: NDArray[Any] = cut[0] @ cut[1]
    return product


def in_16_bit_pairs(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Pairs of products added with 16-bit saturation, as in int8 paths without VNNI."""
    even = a.shape[1] // 2 * 2
    pairs = a[:, :even:2, None] * b[:even:2] + a[:, 1:even:2, None] * b[1:even:2]
    total: NDArray[Any] = np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1)
    return total + a[:, even:] @ b[even:]


def in_half_the_significand(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    product: NDArray[Any] = a.astype(np.float32) @ b.astype(np.float32)
    return product


@pytest.mark.parametrize(
    ("dtype", "broken"),
    [
        (np.float32, in_bfloat16_products),
        (np.float32, in_16_bit_pairs),
        (np.float64, in_half_the_significand),
        (np.float64, in_bfloat16_products),
    ],
)
def test_the_self_test_finds_inexact_float_units(dtype: type[np.floating], broken: Any) -> None:
    assert not gemm.is_exact(np.dtype(dtype), broken)


@pytest.mark.parametrize("product", [matmul, matmul_reference])
def test_bad_operands_are_named(product: Any) -> None:
    codes = np.ones((2, 3), np.int8)
    for a, b, message in (
        (codes, codes, r"a product of \(2, 3\) and \(2, 3\): the left has 3 columns, the right 2 rows"),
        (codes / 2, codes.T, "the left operand of a product is float64: pass integer codes"),
        (codes, codes.T > 0, "the right operand of a product is bool: pass integer codes"),
        (codes[0], codes.T, r"the left operand of a product has shape \(3,\): it must be a matrix"),
        (np.ones((2, 4, 3), int), np.ones((3, 3, 5), int), r"\(2, 4, 3\) and \(3, 3, 5\): the leading dimensions"),
        (np.full((1, 2), 2**31), np.full((2, 1), 2**31), "a product of 2 terms of up to 2147483648 \\* 2147483648"),
    ):
        with pytest.raises(UsageError, match=message):
            product(a, b)
