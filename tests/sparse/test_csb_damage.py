"""Damaged CSBs: refused with field, place and limit, or decoded to exactly what the fields say."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fixgrad.errors import DataError
from fixgrad.sparse import CSB, CSBError

NAMES = ("data", "row_index", "col_index", "block_ptr", "shape", "block", "transposed")


def good(transposed: bool = False) -> dict[str, Any]:
    """5 x 7 in blocks of 4 x 3 (grid 2 x 3, ragged both ways), every other element alive."""
    matrix = np.arange(35, dtype=np.int16).reshape(5, 7) * (np.arange(35).reshape(5, 7) % 2)
    csb = CSB.from_dense(matrix, block=(4, 3))
    csb = csb.T if transposed else csb
    return {name: getattr(csb, name) for name in NAMES}


def changed(name: str, at: int, value: int, transposed: bool = False) -> dict[str, Any]:
    fields = good(transposed)
    fields[name] = fields[name].astype(np.int64)
    fields[name][at] = value
    return fields


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(CSBError) as refused:
        CSB(**fields)
    text = str(refused.value)
    assert "\n" not in text
    assert len(text) < 250
    return text


def test_a_refusal_is_a_data_error() -> None:
    assert issubclass(CSBError, DataError)
    assert CSB(**good()).nnz == 17
    assert CSB(**good(transposed=True)).nnz == 17


def test_pointers() -> None:
    assert good()["block_ptr"].tolist() == [0, 6, 7, 13, 15, 17, 17]
    assert refusal(changed("block_ptr", 0, 1)) == "CSB block_ptr[0] = 1; the first block starts at 0"
    assert refusal(changed("block_ptr", 2, 5)) == ("CSB block_ptr[2] = 5 is below block_ptr[1] = 6; pointers never decrease")
    assert refusal(changed("block_ptr", 6, 18)) == "CSB block_ptr[6] = 18; the last is the length of data, 17"
    assert "block_ptr[3] = -1 is below block_ptr[2] = 7" in refusal(changed("block_ptr", 3, -1))
    assert "block_ptr[5] = 17 is below" in refusal(changed("block_ptr", 4, 2**63 - 1))


def test_indices_outside_the_block() -> None:
    assert refusal(changed("row_index", 3, 4)) == "CSB row_index[3] = 4 is outside its block: 0..3"
    assert refusal(changed("col_index", 0, 3)) == "CSB col_index[0] = 3 is outside its block: 0..2"
    assert refusal(changed("row_index", 16, -1)) == "CSB row_index[16] = -1 is outside its block: 0..3"
    assert "= 256 is outside" in refusal(changed("col_index", 2, 256))


def test_indices_outside_a_ragged_block() -> None:
    assert refusal(changed("row_index", 6, 1)) == "CSB row_index[6] = 1 is outside ragged block (1, 0): 0..0"
    assert refusal(changed("col_index", 16, 1)) == "CSB col_index[16] = 1 is outside ragged block (0, 2): 0..0"
    view = changed("row_index", 16, 1, transposed=True)
    assert refusal(view) == "CSB row_index[16] = 1 is outside ragged block (2, 0): 0..0"


def test_duplicates_and_order() -> None:
    fields = good()
    assert fields["row_index"][:3].tolist() == [1, 3, 0]
    assert refusal(changed("row_index", 1, 1)) == ("CSB element 1 at (1, 0) of block (0, 0) is a duplicate of element 0")
    assert refusal(changed("row_index", 1, 0)) == (
        "CSB element 1 at (0, 0) of block (0, 0) comes after (1, 0); elements go column by column"
    )
    view = changed("col_index", 1, 0, transposed=True)
    assert refusal(view).endswith("comes after (0, 1); elements go row by row")


def test_a_view_whose_flag_was_lost_is_refused() -> None:
    view = CSB.from_dense(np.ones((4, 4)), block=(2, 2)).T
    fields = {name: getattr(view, name) for name in NAMES}
    assert refusal({**fields, "transposed": False}).endswith("elements go column by column")


@pytest.mark.parametrize("name", ["data", "row_index", "col_index", "block_ptr"])
def test_lengths_and_axes(name: str) -> None:
    fields = good()
    for wrong in (fields[name][:-1], np.append(fields[name], 0)):
        assert "block_ptr" in refusal({**fields, name: wrong}) or name in refusal({**fields, name: wrong})
    for wrong in (fields[name][:, None], np.array(3), np.zeros((0, 0), dtype=np.uint8)):
        assert f"CSB {name} of shape" in refusal({**fields, name: wrong})


@pytest.mark.parametrize("name", ["data", "row_index", "col_index", "block_ptr"])
@pytest.mark.parametrize("dtype", [object, "U3", "S3", bool, complex, "M8[s]", "V4", "i4,i4", np.longdouble])
def test_dtypes(name: str, dtype: Any) -> None:
    wrong = np.zeros(len(good()[name]), dtype=dtype)
    assert f"CSB {name} of dtype" in refusal({**good(), name: wrong})


@pytest.mark.parametrize("name", ["row_index", "col_index", "block_ptr"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5, 0.0])
def test_float_indices_are_refused(name: str, value: float) -> None:
    assert "it holds integers" in refusal({**good(), name: np.full(len(good()[name]), value)})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, "abc", b"\0", 3.5, {}, object(), [[1], [1, 2]], [10**5000], lambda: 0])
def test_foreign_objects(name: str, value: Any) -> None:
    assert name in refusal({**good(), name: value}) or "block_ptr" in refusal({**good(), name: value})


class Hostile:
    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize("name", NAMES)
def test_an_object_whose_methods_raise(name: str) -> None:
    assert f"CSB {name}" in refusal({**good(), name: Hostile()})


@pytest.mark.parametrize("shape", [(5,), (5, 7, 3), (5, 7, 3, 3, 3)])
def test_shapes_of_other_axes(shape: tuple[int, ...]) -> None:
    assert refusal({**good(), "shape": shape}) == (f"CSB shape {shape}: it is (rows, cols) or (out, in, kh, kw)")


@pytest.mark.parametrize("shape", [(5.0, 7), (True, 7), {5, 7}, "57", {5: 1, 7: 1}, np.array([5.0, 7.0])])
def test_shapes_that_are_no_integers(shape: Any) -> None:
    assert "is not a sequence of integers" in refusal({**good(), "shape": shape})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 7, 0, 3), "shape[2] = 0 is outside 1..4294967295"),
        ((-1, 7), "shape[0] = -1 is outside 0..4294967295"),
        ((2**32, 0), "shape[0] = 4294967296 is outside 0..4294967295"),
        ((2**80, 1), "shape[0] = 1208925819614629174706176 is outside 0..4294967295"),
        ((2**16, 2**16), "65536 x 65536 has more than 4294967295 positions"),
    ],
)
def test_sizes_outside_their_limits(shape: tuple[int, ...], message: str) -> None:
    assert message in refusal({**good(), "shape": shape})


@pytest.mark.parametrize("block", [(4,), (4, 3, 1), (0, 3), (4, -3), (4, 3.0), (2**32 + 1, 3), (10**5000, 3)])
def test_blocks(block: Any) -> None:
    assert "CSB block" in refusal({**good(), "block": block})


@pytest.mark.parametrize("flag", [0, 1, None, "yes", np.array([True, False])])
def test_flags(flag: Any) -> None:
    assert "transposed" in refusal({**good(), "transposed": flag})


def test_kernel_shape_must_agree_with_the_data() -> None:
    csb = CSB.from_kernels(np.ones((2, 2, 3, 3)), block=(2, 2))
    fields = {name: getattr(csb, name) for name in NAMES}
    assert "holds kernels of [3, 5]" in refusal({**fields, "shape": (2, 2, 3, 5)})
    assert "holds single elements" in refusal({**fields, "shape": (2, 2)})


def test_wide_and_big_endian_indices_are_narrowed() -> None:
    fields = {**good(), "row_index": good()["row_index"].astype(">u8")}
    csb = CSB(**fields)
    assert csb.row_index.dtype == np.uint8
    assert csb == CSB(**good())


def test_arrays_need_exactly_their_names() -> None:
    arrays = CSB(**good()).to_arrays()
    with pytest.raises(CSBError, match=r"missing \['block_ptr'\], unknown \['pointers'\]"):
        CSB.from_arrays({**{k: v for k, v in arrays.items() if k != "block_ptr"}, "pointers": arrays["block_ptr"]})
    with pytest.raises(CSBError, match="a list, not a mapping"):
        CSB.from_arrays([arrays])  # type: ignore[arg-type]
    for flag in (np.array([2], dtype=np.uint8), np.array([1.0]), np.zeros(0, dtype=np.uint8), None):
        with pytest.raises(CSBError, match="transposed"):
            CSB.from_arrays({**arrays, "transposed": flag})


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros(3), r"matrix of shape \[3\]"),
        (np.zeros((2, 2, 3, 3)), "see from_kernels"),
        (np.zeros((2, 2), dtype=complex), "matrix of dtype 'complex128'"),
        (np.array([["a"]]), "matrix of dtype '<U1'"),
        ([[1], [1, 2]], "matrix = .* is not an array"),
    ],
)
def test_what_is_no_matrix_is_refused(matrix: Any, message: str) -> None:
    with pytest.raises(CSBError, match=message):
        CSB.from_dense(matrix, block=(2, 2))


def test_what_is_no_weight_mask_or_block_is_refused() -> None:
    with pytest.raises(CSBError, match=r"weight of shape \[2, 2\]"):
        CSB.from_kernels(np.zeros((2, 2)), block=(2, 2))
    with pytest.raises(CSBError, match=r"shape\[2\] = 0 is outside 1"):
        CSB.from_kernels(np.zeros((2, 2, 0, 3)), block=(2, 2))
    for mask in (np.ones((2, 3), dtype=bool), np.ones((2, 2)), np.ones((2, 2, 1, 1), dtype=bool)):
        with pytest.raises(CSBError, match=r"mask of dtype .*: it is bool \[2, 2\]"):
            CSB.from_dense(np.zeros((2, 2)), block=(2, 2), mask=mask)
    for block in ((0, 1), 4, None):
        with pytest.raises(CSBError, match="CSB block"):
            CSB.from_dense(np.zeros((2, 2)), block=block)  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", [(2**24, 2**24), (2**29, 2**30)])
def test_more_than_memory_is_refused_when_decoded(kernel: tuple[int, int]) -> None:
    """81 kernels of 2^48 bytes are beyond any address space, 81 of 2^59 beyond what NumPy can count."""
    none = np.zeros(0, dtype=np.uint8)
    csb = CSB(np.zeros((0, *kernel), dtype=np.int8), none, none, np.array([0, 0]), (9, 9, *kernel), (9, 9))
    with pytest.raises(CSBError, match="too large to decode in memory"):
        csb.to_dense()


def decoded(fields: dict[str, Any]) -> np.ndarray:
    """What the fields say, element by element, in plain Python."""
    (rows, cols), (r, c) = (int(n) for n in fields["shape"]), (int(n) for n in fields["block"])
    block_rows, block_cols = -(-rows // r), -(-cols // c)
    dense = np.zeros((rows, cols), dtype=fields["data"].dtype)
    for block in range(block_rows * block_cols):
        block_row, block_col = block % block_rows, block // block_rows
        if fields["transposed"]:
            block_row, block_col = block // block_cols, block % block_cols
        for at in range(int(fields["block_ptr"][block]), int(fields["block_ptr"][block + 1])):
            row = block_row * r + int(fields["row_index"][at])
            col = block_col * c + int(fields["col_index"][at])
            dense[row, col] = fields["data"][at]
    return dense


def is_sound(fields: dict[str, Any]) -> bool:
    """The rules of the format in plain Python, for fields of the right dtypes and one axis each."""
    (rows, cols), (r, c) = (int(n) for n in fields["shape"]), (int(n) for n in fields["block"])
    block_rows, block_cols = -(-rows // r), -(-cols // c)
    pointers = [int(pointer) for pointer in fields["block_ptr"]]
    lengths = {len(fields[name]) for name in ("data", "row_index", "col_index")}
    if len(lengths) != 1 or len(pointers) != block_rows * block_cols + 1 or pointers != sorted(pointers):
        return False
    if pointers[0] != 0 or pointers[-1] != len(fields["data"]):
        return False
    for block, (start, stop) in enumerate(pairwise(pointers)):
        block_row, block_col = block % block_rows, block // block_rows
        if fields["transposed"]:
            block_row, block_col = block // block_cols, block % block_cols
        height, width = min(r, rows - block_row * r), min(c, cols - block_col * c)
        places = [(int(fields["col_index"][at]), int(fields["row_index"][at])) for at in range(start, stop)]
        if any(not (0 <= col < width and 0 <= row < height) for col, row in places):
            return False
        keys = [place[::-1] for place in places] if fields["transposed"] else places
        if any(one >= two for one, two in pairwise(keys)):
            return False
    return True


SMALL = st.integers(-2, 6)
INDEX_DTYPES = st.sampled_from([np.int8, np.uint8, np.int64, np.uint64, ">i4"])


@st.composite
def nearly_sound(draw: st.DrawFn) -> dict[str, Any]:
    """A sound CSB, some entries of which are overwritten, inserted or removed."""
    matrix = draw(hnp.arrays(np.int8, st.tuples(st.integers(0, 6), st.integers(0, 6)), elements=st.integers(-2, 2)))
    csb = CSB.from_dense(matrix, block=draw(st.tuples(st.integers(1, 4), st.integers(1, 4))))
    csb = csb.T if draw(st.booleans()) else csb
    fields = {name: getattr(csb, name) for name in NAMES}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(["row_index", "col_index", "block_ptr", "data"]))
        values = fields[name].astype(np.int64).tolist()
        at = draw(st.integers(0, max(len(values) - 1, 0)))
        how = draw(st.sampled_from(["overwrite", "insert", "remove", "swap"]))
        if how == "insert":
            values.insert(at, draw(SMALL))
        elif values:
            other = draw(st.integers(0, len(values) - 1))
            if how == "overwrite":
                values[at] = draw(SMALL)
            elif how == "remove":
                del values[at]
            else:
                values[at], values[other] = values[other], values[at]
        fields[name] = np.array(values, dtype=np.int64)
    return fields


@given(fields=nearly_sound())
@settings(max_examples=400)
def test_nearly_sound_fields_are_judged_as_the_rules_say(fields: dict[str, Any]) -> None:
    if is_sound(fields):
        assert np.array_equal(CSB(**fields).to_dense(), decoded(fields))
        assert np.array_equal(CSB(**fields).T.to_dense(), decoded(fields).T)
    else:
        refusal(fields)


ANY_ARRAY = hnp.arrays(
    st.one_of(hnp.scalar_dtypes(), hnp.array_dtypes(), st.just(np.dtype(object))),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    fill=st.nothing(),
)
INT_ARRAY = hnp.arrays(INDEX_DTYPES, st.integers(0, 6), elements=st.integers(0, 6))
HUGE = st.sampled_from([-(2**63), -1, 2**31, 2**32, 2**63 - 1, 2**64, 10**30])
ANY_SIZES = st.one_of(st.lists(st.integers(-1, 5) | HUGE | st.floats() | st.none(), max_size=5), st.none(), ANY_ARRAY)
SIZES = st.tuples(st.integers(0, 4), st.integers(0, 4))


@given(
    data=INT_ARRAY | ANY_ARRAY,
    row_index=INT_ARRAY | ANY_ARRAY,
    col_index=INT_ARRAY | ANY_ARRAY,
    block_ptr=INT_ARRAY | ANY_ARRAY,
    shape=SIZES | ANY_SIZES,
    block=SIZES | ANY_SIZES,
    transposed=st.booleans() | st.none() | st.integers(),
)
@settings(max_examples=400)
def test_anything_whatever_is_refused_or_decoded(**fields: Any) -> None:
    try:
        csb = CSB(**fields)
    except CSBError:
        refusal(fields)
        return
    if csb.data.ndim == 1:
        assert is_sound(fields)
        assert np.array_equal(csb.to_dense(), decoded(fields), equal_nan=csb.data.dtype.kind == "f")


@given(arrays=st.dictionaries(st.sampled_from([*NAMES, "extra"]) | st.integers(), INT_ARRAY | ANY_ARRAY | st.none()))
def test_any_mapping_is_refused_or_decoded(arrays: dict[Any, Any]) -> None:
    try:
        csb = CSB.from_arrays(arrays)
    except CSBError:
        return
    assert CSB.from_arrays(csb.to_arrays()) == csb


@given(matrix=ANY_ARRAY, block=SIZES | ANY_SIZES, mask=st.none() | ANY_ARRAY)
def test_encoding_anything_is_refused_or_right(matrix: Any, block: Any, mask: Any) -> None:
    try:
        csb = CSB.from_dense(matrix, block=block, mask=mask)
    except CSBError:
        return
    expected = matrix if mask is None else np.where(mask, matrix, 0)
    assert np.array_equal(csb.to_dense(), expected, equal_nan=csb.data.dtype.kind == "f")
