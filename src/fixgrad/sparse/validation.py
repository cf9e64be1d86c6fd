"""The checks between any input whatever and a CSB: what passes decodes to exactly what its fields say."""

import operator
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError
from fixgrad.sparse.blocks import BlockGrid, IntArray, index_dtype
from fixgrad.sparse.masks import Array, BoolArray, Mask

MAX_POSITIONS = 2**32 - 1
"""Limit of rows * cols: block pointers are 32 bit wide, so no more elements can be counted."""
MAX_BLOCK_EDGE = 2**32
"""Limit of a block's edge: coordinates are at most 32 bit wide."""
POINTER_DTYPE = np.dtype(np.uint32)


class CSBError(DataError):
    """A CSB is damaged, or cannot be encoded; the message names field, place, value and limit."""


class Fields(NamedTuple):
    """The fields of a CSB, checked, in their canonical dtypes, copied and read-only."""

    data: Array
    row_index: IntArray
    col_index: IntArray
    block_ptr: IntArray
    shape: tuple[int, ...]
    block: tuple[int, int]
    transposed: bool


def checked_fields(
    data: Any, row_index: Any, col_index: Any, block_ptr: Any, shape: Any, block: Any, transposed: Any
) -> Fields:
    """Take the fields of a CSB as they come, return them checked; `CSBError` for what is not a CSB."""
    shape = checked_shape(shape)
    block = checked_block(block)
    flag = _checked_flag(transposed)
    grid = BlockGrid(shape[0], shape[1], block, flag)
    values = _checked_data(data, shape)
    pointers = _checked_pointers(block_ptr, grid.count, len(values))
    rows = _checked_index("row_index", row_index, len(values), block[0])
    cols = _checked_index("col_index", col_index, len(values), block[1])
    _check_inside_matrix(rows, cols, pointers, grid)
    _check_order(rows, cols, pointers, grid)
    frozen = [_frozen(array) for array in (values, rows, cols, pointers)]
    return Fields(frozen[0], frozen[1], frozen[2], frozen[3], shape, block, flag)


def shown(value: object) -> str:
    """A value in an error message: short and on one line."""
    try:
        return " ".join(reprlib.repr(value).split())
    except Exception:  # a foreign `__repr__`, or an integer of more digits than Python prints
        return f"(a {type(value).__name__})"


def shown_dtype(array: Array) -> str:
    """The name of a dtype in an error message; that of a structured one may be long."""
    return reprlib.repr(str(array.dtype))


def checked_shape(shape: Any) -> tuple[int, ...]:
    """(rows, cols) or (out, in, kh, kw) as ints: rows * cols <= 2^32 - 1, kernel edges at least 1."""
    sizes = _integers("shape", shape)
    if len(sizes) not in (2, 4):
        raise CSBError(f"CSB shape {shown(shape)}: it is (rows, cols) or (out, in, kh, kw)")
    for axis, size in enumerate(sizes):
        least = 0 if axis < 2 else 1
        if not least <= size <= MAX_POSITIONS:
            raise CSBError(f"CSB shape[{axis}] = {shown(size)} is outside {least}..{MAX_POSITIONS}")
    if sizes[0] * sizes[1] > MAX_POSITIONS:
        raise CSBError(f"CSB of {sizes[0]} x {sizes[1]} has more than {MAX_POSITIONS} positions; split it")
    return sizes


def checked_block(block: Any) -> tuple[int, int]:
    """(r, c) as ints, each 1 .. 2^32."""
    edges = _integers("block", block)
    if len(edges) != 2:
        raise CSBError(f"CSB block {shown(block)}: it has two edges, (rows, columns)")
    for axis, edge in enumerate(edges):
        if not 1 <= edge <= MAX_BLOCK_EDGE:
            raise CSBError(f"CSB block[{axis}] = {shown(edge)} is outside 1..{MAX_BLOCK_EDGE}")
    return edges[0], edges[1]


def _integers(name: str, value: Any) -> tuple[int, ...]:
    try:
        if not isinstance(value, Sequence | np.ndarray) or any(isinstance(entry, bool) for entry in value):
            raise TypeError
        return tuple(operator.index(entry) for entry in value)
    except Exception as error:  # a foreign object may raise anything from its own methods
        raise CSBError(f"CSB {name} = {shown(value)} is not a sequence of integers") from error


def _checked_flag(transposed: Any) -> bool:
    if not isinstance(transposed, bool | np.bool_):
        raise CSBError(f"CSB transposed = {shown(transposed)} is not True or False")
    return bool(transposed)


def as_array(name: str, value: Any) -> Array:
    """`value` as an array, or a `CSBError` that names it."""
    try:
        return np.asarray(value)
    except Exception as error:  # a foreign object may raise anything from its own methods
        raise CSBError(f"CSB {name} = {shown(value)} is not an array") from error


def numeric(name: str, value: Any) -> Array:
    """`value` as an array of integers or of floats of at most 64 bit, in native byte order."""
    array = as_array(name, value)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise CSBError(f"CSB {name} of dtype {shown_dtype(array)}: integers or floats of up to 64 bit are stored")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _checked_data(data: Any, shape: tuple[int, ...]) -> Array:
    values = numeric("data", data)
    if values.ndim != len(shape) - 1 or values.shape[1:] != shape[2:]:
        element = f"kernels of {list(shape[2:])}" if shape[2:] else "single elements"
        raise CSBError(f"CSB data of shape {list(values.shape)}: for shape {list(shape)} it holds {element}")
    return values


def _checked_vector(name: str, value: Any, length: int, why: str) -> Array:
    array = as_array(name, value)
    if array.dtype.kind not in "iu":
        raise CSBError(f"CSB {name} of dtype {shown_dtype(array)}: it holds integers")
    if array.ndim != 1 or len(array) != length:
        raise CSBError(f"CSB {name} of shape {list(array.shape)}: it has one axis of length {length}, {why}")
    return array


def _checked_pointers(block_ptr: Any, blocks: int, elements: int) -> IntArray:
    pointers = _checked_vector("block_ptr", block_ptr, blocks + 1, f"one more than its {blocks} blocks")
    if pointers[0] != 0:
        raise CSBError(f"CSB block_ptr[0] = {pointers[0]}; the first block starts at 0")
    falls = np.flatnonzero(pointers[1:] < pointers[:-1])
    if falls.size:
        at = int(falls[0]) + 1
        before = f"block_ptr[{at - 1}] = {pointers[at - 1]}"
        raise CSBError(f"CSB block_ptr[{at}] = {pointers[at]} is below {before}; pointers never decrease")
    if pointers[-1] != elements:
        raise CSBError(f"CSB block_ptr[{blocks}] = {pointers[-1]}; the last is the length of data, {elements}")
    return pointers.astype(POINTER_DTYPE)


def _checked_index(name: str, value: Any, length: int, edge: int) -> IntArray:
    index = _checked_vector(name, value, length, "that of data")
    wrong = np.flatnonzero((index < 0) | (index >= edge))
    if wrong.size:
        at = int(wrong[0])
        raise CSBError(f"CSB {name}[{at}] = {index[at]} is outside its block: 0..{edge - 1}")
    return index.astype(index_dtype(edge))


def block_lengths(pointers: IntArray) -> NDArray[np.int64]:
    """How many elements each block holds, in storage order."""
    bounds: NDArray[np.int64] = pointers.astype(np.int64)
    return bounds[1:] - bounds[:-1]


def block_of_each(pointers: IntArray) -> IntArray:
    """The storage position of the block that each element lies in, int64 [nnz]."""
    return np.repeat(np.arange(len(pointers) - 1, dtype=np.int64), block_lengths(pointers))


def _check_inside_matrix(rows: IntArray, cols: IntArray, pointers: IntArray, grid: BlockGrid) -> None:
    block_row, block_col = grid.coordinates(block_of_each(pointers))
    for name, index, of_block, edge, size in (
        ("row_index", rows, block_row, grid.block[0], grid.rows),
        ("col_index", cols, block_col, grid.block[1], grid.cols),
    ):
        wrong = np.flatnonzero(of_block * edge + index >= size)
        if wrong.size:
            at = int(wrong[0])
            where = f"block ({block_row[at]}, {block_col[at]})"
            left = size - int(of_block[at]) * edge
            raise CSBError(f"CSB {name}[{at}] = {index[at]} is outside ragged {where}: 0..{left - 1}")


def _check_order(rows: IntArray, cols: IntArray, pointers: IntArray, grid: BlockGrid) -> None:
    """Inside each block, elements come column by column (row by row in a transposed view), none twice."""
    block = block_of_each(pointers)
    r, c = grid.extent
    major, minor, edge = (rows, cols, c) if grid.transposed else (cols, rows, r)
    key = (block * (r * c)) + major.astype(np.int64) * edge + minor
    wrong = np.flatnonzero(key[1:] <= key[:-1])
    if not wrong.size:
        return
    at = int(wrong[0]) + 1
    block_row, block_col = (int(axis) for axis in grid.coordinates(block[at]))
    element = f"CSB element {at} at ({rows[at]}, {cols[at]}) of block ({block_row}, {block_col})"
    if key[at] == key[at - 1]:
        raise CSBError(f"{element} is a duplicate of element {at - 1}")
    order = "row by row" if grid.transposed else "column by column"
    raise CSBError(f"{element} comes after ({rows[at - 1]}, {cols[at - 1]}); elements go {order}")


def _frozen(array: Array) -> Array:
    own = np.array(array, order="C")
    own.flags.writeable = False
    return own


def checked_mask(mask: Mask | Any, shape: tuple[int, ...]) -> BoolArray:
    """An explicit mask for a matrix [rows, cols] or a weight [out, in, kh, kw], as bool [rows, cols]."""
    alive = mask.alive if isinstance(mask, Mask) else as_array("mask", mask)
    if alive.dtype != np.bool_ or alive.shape != shape[:2]:
        raise CSBError(f"CSB mask of dtype {shown_dtype(alive)}, shape {list(alive.shape)}: it is bool {list(shape[:2])}")
    return alive
