"""CSB: the talk's example, the fields, the transposed view, kernels, block order, sizes."""

import copy
import pickle

import numpy as np
import pytest

from fixgrad.sparse import CSB, CSBError, Mask

TALK_DATA = "W10 W22 W03 W33 W70 W41 W61 W42 W15 W35 W17 W54 W75 W46 W56 W57"
"""Row "data" of the CSB table on the talk's slide "Use Compressed Sparse Block (CSB) format"."""
TALK_ROW_INDEX = [1, 2, 0, 3, 3, 0, 2, 0, 1, 3, 1, 1, 3, 0, 1, 1]
TALK_COL_INDEX = [0, 2, 3, 3, 0, 1, 1, 2, 1, 1, 3, 0, 1, 2, 2, 3]
TALK_BLOCK_PTR = [0, 4, 8, 11, 16]
"""The slide shows 0 4 8 11; the last pointer is the number of elements."""


def codes(elements: str) -> list[int]:
    """W<row><column> as the value 10 * row + column, which tells where it came from."""
    return [int(element.removeprefix("W")) for element in elements.split()]


def talk_matrix() -> np.ndarray:
    matrix = np.zeros((8, 8), dtype=np.int8)
    for code in codes(TALK_DATA):
        matrix[divmod(code, 10)] = code
    return matrix


def test_talk_example() -> None:
    csb = CSB.from_dense(talk_matrix(), block=(4, 4))
    assert csb.data.tolist() == codes(TALK_DATA)
    assert csb.row_index.tolist() == TALK_ROW_INDEX
    assert csb.col_index.tolist() == TALK_COL_INDEX
    assert csb.block_ptr.tolist() == TALK_BLOCK_PTR
    assert np.array_equal(csb.to_dense(), talk_matrix())


def test_talk_example_from_its_fields() -> None:
    values = np.array(codes(TALK_DATA), dtype=np.int8)
    csb = CSB(values, TALK_ROW_INDEX, TALK_COL_INDEX, TALK_BLOCK_PTR, (8, 8), (4, 4))
    assert csb == CSB.from_dense(talk_matrix(), block=(4, 4))
    assert np.array_equal(csb.to_dense(), talk_matrix())


def test_blocks_of_one_whole_column_are_the_other_table_of_the_slide() -> None:
    """Its "CSR" table lists columns with a column pointer, which is CSB with blocks of 8 x 1."""
    csb = CSB.from_dense(talk_matrix(), block=(8, 1))
    listed = "W10 W70 W41 W61 W22 W42 W03 W33 W54 W15 W35 W75 W46 W56 W17 W57"
    assert csb.data.tolist() == codes(listed)
    assert csb.row_index.tolist() == [1, 7, 4, 6, 2, 4, 0, 3, 5, 1, 3, 7, 4, 5, 1, 5]
    assert csb.block_ptr.tolist() == [0, 2, 4, 6, 8, 9, 12, 14, 16]


def test_talk_example_transposed() -> None:
    csb = CSB.from_dense(talk_matrix(), block=(4, 4))
    view = csb.T
    assert np.array_equal(view.to_dense(), talk_matrix().T)
    assert view.row_index.tolist() == TALK_COL_INDEX
    assert view.col_index.tolist() == TALK_ROW_INDEX
    order = [(row, col, found.start, found.stop) for row, col, found in view.blocks("transposed")]
    assert order == [(0, 0, 0, 4), (1, 0, 8, 11), (0, 1, 4, 8), (1, 1, 11, 16)]


def test_view_copies_nothing() -> None:
    csb = CSB.from_kernels(np.ones((6, 5, 3, 3), dtype=np.int8), block=(4, 2))
    view = csb.T
    assert view.data is csb.data
    assert view.block_ptr is csb.block_ptr
    for mine, its in ((view.row_index, csb.col_index), (view.col_index, csb.row_index)):
        assert np.shares_memory(mine, its)
    assert (view.shape, view.block) == ((5, 6, 3, 3), (2, 4))
    assert csb == view.T
    assert view != csb


def test_view_of_kernels_swaps_channels_and_leaves_taps() -> None:
    weight = np.arange(1, 3 * 5 * 2 * 3 + 1, dtype=np.int16).reshape(3, 5, 2, 3)
    csb = CSB.from_kernels(weight, block=(2, 2))
    assert csb.data.shape == (15, 2, 3)
    assert np.array_equal(csb.to_dense(), weight)
    assert np.array_equal(csb.T.to_dense(), weight.transpose(1, 0, 2, 3))


def test_rows_are_outputs_so_that_y_is_w_x() -> None:
    rng = np.random.default_rng(3)
    weight, x, dy = (rng.integers(-9, 9, shape) for shape in ((6, 7), 7, 6))
    for csb, vector, dense in (
        (CSB.from_dense(weight, block=(4, 4)), x, weight),
        (CSB.from_dense(weight, block=(4, 4)).T, dy, weight.T),
    ):
        row, col = csb.coordinates()
        y = np.zeros(csb.shape[0], dtype=np.int64)
        np.add.at(y, row, csb.data * vector[col])
        assert np.array_equal(y, dense @ vector)


def test_a_kernel_with_one_tap_alive_is_stored_whole() -> None:
    weight = np.zeros((2, 2, 3, 3), dtype=np.int8)
    weight[1, 0, 2, 1] = -5
    csb = CSB.from_kernels(weight, block=(2, 2))
    assert csb.nnz == 1
    assert np.array_equal(csb.data[0], weight[1, 0])


def test_an_explicit_mask_keeps_zeros_and_drops_the_rest() -> None:
    matrix = np.array([[0, 7], [5, 0]], dtype=np.int8)
    alive = np.array([[True, False], [True, True]])
    for mask in (alive, Mask(alive), np.asfortranarray(alive), alive.tolist()):
        csb = CSB.from_dense(matrix, block=(2, 2), mask=mask)
        assert csb.data.tolist() == [0, 5, 0]
        assert csb.to_dense().tolist() == [[0, 0], [5, 0]]
        assert csb.mask() == Mask(alive)
        assert csb.density == 0.75
    dead = CSB.from_kernels(np.zeros((2, 2, 3, 3)), alive, block=(2, 2))
    assert dead.data.shape == (3, 3, 3)


@pytest.mark.parametrize(
    ("shape", "block", "grid"),
    [
        ((0, 0), (4, 4), (0, 0)),
        ((0, 5), (4, 4), (0, 2)),
        ((5, 0), (4, 4), (2, 0)),
        ((1, 1), (1, 1), (1, 1)),
        ((1, 1), (2**32, 2**32), (1, 1)),
        ((3, 70), (4, 32), (1, 3)),
        ((9, 9), (4, 4), (3, 3)),
    ],
)
def test_ragged_empty_and_small_matrices(shape: tuple[int, int], block: tuple[int, int], grid: tuple[int, int]) -> None:
    matrix = np.arange(1, 1 + shape[0] * shape[1], dtype=np.int32).reshape(shape)
    for dense in (matrix, np.zeros_like(matrix)):
        csb = CSB.from_dense(dense, block=block)
        assert (csb.grid.block_rows, csb.grid.block_cols) == grid
        assert len(csb.block_ptr) == grid[0] * grid[1] + 1
        assert np.array_equal(csb.to_dense(), dense)
        assert np.array_equal(csb.T.to_dense(), dense.T)
        assert csb.to_dense().shape == shape
        assert CSB.from_arrays(csb.to_arrays()) == csb


@pytest.mark.parametrize(
    ("edge", "dtype"),
    [(1, np.uint8), (256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32)],
)
def test_index_dtype_is_the_narrowest_for_the_block(edge: int, dtype: type) -> None:
    matrix = np.zeros((1, edge + 1), dtype=np.int8)
    matrix[0, edge - 1 :] = 1, 2
    csb = CSB.from_dense(matrix, block=(1, edge))
    assert csb.row_index.dtype == np.uint8
    assert csb.col_index.dtype == dtype
    assert csb.col_index.tolist() == [edge - 1, 0]
    assert csb.block_ptr.dtype == np.uint32
    assert np.array_equal(csb.to_dense(), matrix)


def test_blocks_walk_in_storage_and_in_transposed_order() -> None:
    csb = CSB.from_dense(np.eye(5, 6, dtype=np.int8), block=(2, 3))
    stored = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert [(row, col) for row, col, _ in csb.blocks()] == stored
    assert [(row, col) for row, col, _ in csb.T.blocks()] == [(col, row) for row, col in stored]
    assert [found for *_, found in csb.T.blocks()] == [found for *_, found in csb.blocks()]
    by_rows = [(row, col) for row in range(3) for col in range(2)]
    assert [(row, col) for row, col, _ in csb.blocks("transposed")] == by_rows
    assert [(row, col, found) for col, row, found in csb.T.blocks("transposed")] == list(csb.blocks("transposed"))
    with pytest.raises(CSBError, match="'columns': it is 'storage' or 'transposed'"):
        csb.blocks("columns")  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["storage", "transposed"])
def test_every_block_is_the_part_of_the_matrix_it_says(order: str) -> None:
    matrix = np.random.default_rng(4).integers(-1, 2, (11, 7), dtype=np.int8)
    for csb, dense in ((CSB.from_dense(matrix, block=(4, 3)), matrix),):
        for one, whole in ((csb, dense), (csb.T, dense.T)):
            r, c = one.block
            for row, col, found in one.blocks(order):  # type: ignore[arg-type]
                part = np.zeros(one.block, dtype=np.int8)
                part[one.row_index[found], one.col_index[found]] = one.data[found]
                expected = whole[row * r : (row + 1) * r, col * c : (col + 1) * c]
                assert np.array_equal(part[: expected.shape[0], : expected.shape[1]], expected)
                assert one.block_counts()[row, col] == np.count_nonzero(expected)


def test_bytes_as_hardware_packs_them() -> None:
    csb = CSB.from_kernels(np.ones((33, 20, 3, 3), dtype=np.int8), block=(32, 5))
    size = csb.nbytes()
    assert size.data == 33 * 20 * 9
    assert size.index == 33 * 20 * (5 + 3) // 8
    assert size.pointers == 4 * (2 * 4 + 1)
    assert size.total == size.data + size.index + size.pointers
    assert csb.nbytes(data_bits=24).data == 3 * size.data
    assert csb.T.nbytes() == size
    odd = CSB.from_dense(np.ones((1, 3), dtype=np.int8), block=(1, 2)).nbytes(data_bits=5)
    assert (odd.data, odd.index) == (2, 1)  # 15 and 3 bits
    assert CSB.from_dense(np.ones((3, 3)), block=(1, 1)).nbytes().index == 0
    with pytest.raises(CSBError, match="data_bits = 0"):
        csb.nbytes(0)


def test_new_values_in_the_same_places() -> None:
    rng = np.random.default_rng(5)
    old, new = (rng.integers(-127, 128, (9, 7, 3, 3), dtype=np.int8) for _ in range(2))
    mask = Mask(rng.random((9, 7)) < 0.4)
    csb = CSB.from_kernels(old, mask, block=(4, 4))
    renewed = csb.with_data(csb.gather(new))
    assert renewed == CSB.from_kernels(new, mask, block=(4, 4))
    assert renewed.row_index is csb.row_index
    assert np.array_equal(csb.T.gather(new.transpose(1, 0, 2, 3)), renewed.data)
    with pytest.raises(CSBError, match=r"\[9, 7\]: the CSB is of shape \[9, 7, 3, 3\]"):
        csb.gather(new[:, :, 0, 0])
    with pytest.raises(CSBError, match=r"data of shape \[1\]"):
        csb.with_data(np.zeros(1))


def test_it_is_immutable_and_apart_from_its_source() -> None:
    matrix = talk_matrix()
    csb = CSB.from_dense(matrix, block=(4, 4))
    matrix[:] = 0
    assert csb.data[0] == 10
    fields = csb.to_arrays()
    mine = {name: array.copy() for name, array in fields.items()}
    again = CSB.from_arrays(mine)
    mine["row_index"][:] = 200
    mine["data"][:] = 0
    assert again == csb
    for name in ("data", "row_index", "col_index", "block_ptr"):
        for one in (csb, again, csb.T, csb.with_data(csb.data)):
            with pytest.raises(ValueError, match="read-only"):
                getattr(one, name)[0] = 0
    with pytest.raises(AttributeError):
        csb.shape = (1, 1)  # type: ignore[misc]


def test_copies_and_pickles_are_equal_and_checked() -> None:
    for csb in (
        CSB.from_dense(talk_matrix(), block=(4, 4)),
        CSB.from_kernels(np.ones((2, 3, 3, 3)), block=(2, 2)).T,
    ):
        for twin in (copy.copy(csb), copy.deepcopy(csb), pickle.loads(pickle.dumps(csb))):
            assert twin == csb
            assert not twin.data.flags.writeable
    damaged = pickle.dumps(csb).replace(csb.row_index.tobytes(), b"\x07" * csb.nnz)
    assert damaged != pickle.dumps(csb)
    with pytest.raises(CSBError, match="= 7 is outside"):
        pickle.loads(damaged)


def test_equality_sees_every_field() -> None:
    csb = CSB.from_dense(talk_matrix(), block=(4, 4))
    others = [
        CSB.from_dense(talk_matrix(), block=(8, 8)),
        CSB.from_dense(talk_matrix().astype(np.int16), block=(4, 4)),
        CSB.from_dense(talk_matrix().T, block=(4, 4)),
        csb.with_data(csb.data + np.int8(1)),
        csb.T,
    ]
    assert all(csb != other for other in others)
    assert csb != "CSB"
    nan = CSB.from_dense(np.array([[np.nan]]), block=(1, 1))
    assert nan == CSB.from_arrays(nan.to_arrays())


def test_big_endian_and_strided_input_is_stored_in_native_order() -> None:
    matrix = talk_matrix().astype(">i2")
    csb = CSB.from_dense(matrix[::-1, ::2], block=(4, 4))
    assert csb.data.dtype == np.int16
    assert csb.data.dtype.isnative
    assert np.array_equal(csb.to_dense(), talk_matrix()[::-1, ::2])


def test_repr_tells_shape_block_and_count() -> None:
    csb = CSB.from_kernels(np.ones((4, 2, 3, 3), dtype=np.int8), block=(2, 2))
    assert repr(csb.T) == "CSB(2 x 4 x 3 x 3, block (2, 2), 8 kernels of int8, transposed view)"


def test_vgg11_encodes() -> None:
    """The talk's VGG-11, dense: 9.75 M weights. benchmarks/csb_encode.py measures how fast."""
    convs = [(64, 3), (128, 64), (256, 128), (256, 256), (512, 256), (512, 512), (512, 512), (512, 512)]
    weights = [np.ones((*shape, 3, 3), dtype=np.int8) for shape in convs]
    matrices = [np.ones(shape, dtype=np.int8) for shape in ((512, 512), (512, 512), (10, 512))]
    assert sum(weight.size for weight in [*weights, *matrices]) == 9_747_136
    found = [CSB.from_kernels(weight, block=(32, 32)) for weight in weights]
    found += [CSB.from_dense(matrix, block=(32, 32)) for matrix in matrices]
    assert sum(csb.data.size for csb in found) == 9_747_136
