"""CSB for any matrix, block and mask, against a slow encoder written from the talk and against SciPy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from fixgrad.sparse import CSB

EDGES = st.integers(1, 9)
BLOCKS = st.tuples(EDGES, EDGES)
VALUES = st.sampled_from([-128, -1, 0, 0, 0, 1, 127])
MATRICES = hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=17), elements=VALUES)
WEIGHTS = hnp.arrays(np.int8, st.tuples(*[st.integers(0, 9)] * 2, *[st.integers(1, 3)] * 2), elements=VALUES)


def slow_csb(dense: np.ndarray, alive: np.ndarray, block: tuple[int, int]) -> tuple[list, list, list, list]:
    """(data, row_index, col_index, block_ptr): "blocks column by column, elements in a block likewise"."""
    (rows, cols), (r, c) = alive.shape, block
    data, row_index, col_index, block_ptr = [], [], [], [0]
    for left in range(0, cols, c):
        for top in range(0, rows, r):
            for col in range(left, min(left + c, cols)):
                for row in range(top, min(top + r, rows)):
                    if alive[row, col]:
                        data.append(dense[row, col].tolist())
                        row_index.append(row - top)
                        col_index.append(col - left)
            block_ptr.append(len(data))
    return data, row_index, col_index, block_ptr


def assert_is(csb: CSB, expected: tuple[list, list, list, list]) -> None:
    fields = (csb.data, csb.row_index, csb.col_index, csb.block_ptr)
    assert tuple(field.tolist() for field in fields) == expected


def masks_for(dense: np.ndarray) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.bool_, dense.shape[:2])


@given(matrix=MATRICES, block=BLOCKS)
def test_matrix_equals_the_slow_encoder_and_comes_back(matrix: np.ndarray, block: tuple[int, int]) -> None:
    csb = CSB.from_dense(matrix, block=block)
    assert_is(csb, slow_csb(matrix, matrix != 0, block))
    assert csb.to_dense().dtype == np.int8
    assert np.array_equal(csb.to_dense(), matrix)
    assert np.array_equal(csb.T.to_dense(), matrix.T)
    assert csb == csb.T.T


@given(matrix=MATRICES, block=BLOCKS, data=st.data())
def test_masked_matrix(matrix: np.ndarray, block: tuple[int, int], data: st.DataObject) -> None:
    alive = data.draw(masks_for(matrix))
    csb = CSB.from_dense(matrix, block=block, mask=alive)
    assert_is(csb, slow_csb(matrix, alive, block))
    assert np.array_equal(csb.to_dense(), matrix * alive)
    assert np.array_equal(csb.mask().alive, alive)
    assert np.array_equal(csb.T.mask().alive, alive.T)
    assert np.array_equal(csb.gather(matrix), csb.data)


@given(weight=WEIGHTS, block=BLOCKS, data=st.data())
def test_masked_kernels(weight: np.ndarray, block: tuple[int, int], data: st.DataObject) -> None:
    alive = data.draw(st.none() | masks_for(weight))
    csb = CSB.from_kernels(weight, alive, block=block)
    kept = weight.any(axis=(2, 3)) if alive is None else alive
    assert_is(csb, slow_csb(weight, kept, block))
    assert np.array_equal(csb.to_dense(), weight * kept[:, :, None, None])
    assert np.array_equal(csb.T.to_dense(), (weight * kept[:, :, None, None]).transpose(1, 0, 2, 3))
    assert csb == csb.T.T


@given(matrix=MATRICES, block=BLOCKS)
def test_transposed_view_walks_as_an_encoder_of_the_transpose_would(matrix: np.ndarray, block: tuple[int, int]) -> None:
    """Only the order inside a block differs: that is what the switched coordinates are for."""
    view = CSB.from_dense(matrix, block=block).T
    direct = CSB.from_dense(matrix.T, block=block[::-1])
    for (row, col, found), (its_row, its_col, its) in zip(view.blocks("transposed"), direct.blocks(), strict=True):
        assert (row, col) == (its_row, its_col)
        mine = zip(view.col_index[found], view.row_index[found], view.data[found], strict=True)
        others = zip(direct.col_index[its], direct.row_index[its], direct.data[its], strict=True)
        assert sorted(mine) == list(others)
    assert np.array_equal(view.block_counts(), direct.block_counts())


@given(weight=WEIGHTS, block=BLOCKS, transposed=st.booleans())
def test_arrays_come_back_through_every_check(weight: np.ndarray, block: tuple[int, int], transposed: bool) -> None:
    csb = CSB.from_kernels(weight, block=block)
    csb = csb.T if transposed else csb
    arrays = csb.to_arrays()
    assert all(type(array) is np.ndarray for array in arrays.values())
    again = CSB.from_arrays(arrays)
    assert again == csb
    assert np.array_equal(again.to_dense(), csb.to_dense())


@given(
    matrix=hnp.arrays(
        st.sampled_from([np.int8, np.uint16, np.int64, np.float16, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    ),
    block=BLOCKS,
)
def test_any_dtype_comes_back_bit_for_bit(matrix: np.ndarray, block: tuple[int, int]) -> None:
    everything = CSB.from_dense(matrix, block=block, mask=np.ones(matrix.shape, dtype=bool))
    assert everything.to_dense().dtype == matrix.dtype
    assert everything.to_dense().tobytes() == matrix.tobytes()


@given(matrix=MATRICES)
def test_one_block_over_all_is_scipys_csc(matrix: np.ndarray) -> None:
    csc = sparse.csc_array(matrix)
    csb = CSB.from_dense(matrix, block=(32, 32))
    assert csb.row_index.tolist() == csc.indices.tolist()
    assert csb.data.tolist() == csc.data.tolist()
    columns = CSB.from_dense(matrix, block=(32, 1))
    if matrix.size:
        assert columns.block_ptr.tolist() == csc.indptr.tolist()


@given(matrix=MATRICES, block=BLOCKS)
def test_coordinates_make_scipys_coo(matrix: np.ndarray, block: tuple[int, int]) -> None:
    csb = CSB.from_dense(matrix, block=block)
    for one, dense in ((csb, matrix), (csb.T, matrix.T)):
        assert np.array_equal(sparse.coo_array((one.data, one.coordinates()), shape=one.shape).toarray(), dense)


@given(grid=st.tuples(st.integers(1, 4), st.integers(1, 4)), block=BLOCKS, data=st.data())
def test_block_counts_find_scipys_bsr_blocks(grid: tuple[int, int], block: tuple[int, int], data: st.DataObject) -> None:
    shape = (grid[0] * block[0], grid[1] * block[1])
    matrix = data.draw(hnp.arrays(np.int8, shape, elements=VALUES))
    bsr = sparse.bsr_array(matrix, blocksize=block)
    expected = sparse.csr_array((np.ones(len(bsr.indices)), bsr.indices, bsr.indptr), shape=grid).toarray()
    assert np.array_equal(CSB.from_dense(matrix, block=block).block_counts() > 0, expected > 0)
