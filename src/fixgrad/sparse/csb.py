"""CSB, Compressed Sparse Block: sparse weights that are read in normal and in transposed order alike.

From the talk's slide "Use Compressed Sparse Block (CSB) format": the matrix is cut into blocks; every alive
element has a coordinate inside its block; a pointer per block tells where its elements start. Blocks are
stored column by column, and so are the elements inside a block. "Transpose by switch both the 2D coordinate
in hardware and the block order in software": FF (y = W x) and NG (dx = W^T dy) therefore read the same bytes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from fixgrad.sparse.blocks import BlockGrid, IntArray, index_bits, index_dtype
from fixgrad.sparse.encode import nonzero, storage_order
from fixgrad.sparse.masks import Array, BoolArray, Mask
from fixgrad.sparse.validation import (
    POINTER_DTYPE,
    CSBError,
    as_array,
    block_lengths,
    block_of_each,
    checked_block,
    checked_fields,
    checked_mask,
    checked_shape,
    numeric,
    shown,
)

BlockOrder = Literal["storage", "transposed"]
FIELDS = ("data", "row_index", "col_index", "block_ptr", "shape", "block", "transposed")
POINTER_BYTES = POINTER_DTYPE.itemsize


@dataclass(frozen=True)
class StorageBytes:
    """What a CSB takes in memory, in bytes, each part packed and rounded up to whole bytes."""

    data: int
    index: int
    pointers: int

    @property
    def total(self) -> int:
        return self.data + self.index + self.pointers


@dataclass(frozen=True, eq=False, repr=False)
class CSB:
    """A sparse matrix, or a CONV weight sparse by 2-D kernels, in Compressed Sparse Blocks; immutable.

    Rows are output channels and columns input channels, so that FF is y = W x. With `nnz` alive elements:

    - `data`: [nnz] for a matrix; [nnz, kh, kw], a whole kernel each, for a CONV weight. An element that is
      alive is stored even if it is 0.
    - `row_index`, `col_index`: [nnz], coordinates inside the block: uint8 for edges up to 256, then uint16
      and uint32.
    - `block_ptr`: uint32 [blocks + 1]; block k holds the elements block_ptr[k] to block_ptr[k + 1] - 1.
    - `shape`: (rows, cols), or (out, in, kh, kw).
    - `block`: (r, c), in elements of a matrix or in channels; where it does not divide, edge blocks are
      ragged.
    - `transposed`: False: blocks column by column, elements in a block column by column. True, as `.T` sets
      it: both row by row, the order that the transposed matrix finds in the same bytes.

    Make one with `from_dense`, `from_kernels` or `from_arrays`. The constructor takes the fields as they are,
    copies and checks them: `CSBError` for anything that is not a CSB, with field, place, value and limit.
    """

    data: Array
    row_index: IntArray
    col_index: IntArray
    block_ptr: IntArray
    shape: tuple[int, ...]
    block: tuple[int, int]
    transposed: bool = False

    def __post_init__(self) -> None:
        fields = checked_fields(*(getattr(self, name) for name in FIELDS))
        for name, value in zip(FIELDS, fields, strict=True):
            object.__setattr__(self, name, value)

    @classmethod
    def from_dense(cls, matrix: Any, block: tuple[int, int], mask: Mask | BoolArray | None = None) -> Self:
        """Encode a matrix [rows, cols] of integers or floats.

        Without `mask` what is not 0 is stored; with it (bool [rows, cols]) exactly what it keeps, zeros
        included, and the rest is taken as 0. Raises `CSBError` for what is not such a matrix, mask or block.
        """
        dense = numeric("matrix", matrix)
        if dense.ndim != 2:
            raise CSBError(f"CSB matrix of shape {list(dense.shape)}: it has two axes; see from_kernels for four")
        return cls._encode(dense, block, mask)

    @classmethod
    def from_kernels(cls, weight: Any, mask: Mask | BoolArray | None = None, *, block: tuple[int, int]) -> Self:
        """Encode a CONV weight [out, in, kh, kw] by 2-D kernels.

        Without `mask` a kernel is stored if any of its taps is not 0; with it (bool [out, in]) exactly those
        it keeps. `block` is in channels, (outputs, inputs). Raises `CSBError` as `from_dense` does.
        """
        dense = numeric("weight", weight)
        if dense.ndim != 4:
            raise CSBError(f"CSB weight of shape {list(dense.shape)}: kernels are [out, in, kh, kw]")
        return cls._encode(dense, block, mask)

    @classmethod
    def _encode(cls, dense: Array, block: Any, mask: Mask | BoolArray | None) -> Self:
        shape = checked_shape(dense.shape)
        grid = BlockGrid(shape[0], shape[1], checked_block(block))
        alive = nonzero(dense) if mask is None else checked_mask(mask, shape)
        places = storage_order(alive, grid)
        block_ptr = np.zeros(grid.count + 1, dtype=POINTER_DTYPE)
        np.cumsum(places.lengths, out=block_ptr[1:])
        return cls._trusted(
            data=dense.reshape(grid.rows * grid.cols, *shape[2:]).take(places.linear(grid), axis=0),
            row_index=places.row.astype(index_dtype(grid.block[0])),
            col_index=places.col.astype(index_dtype(grid.block[1])),
            block_ptr=block_ptr,
            shape=shape,
            block=grid.block,
            transposed=False,
        )

    @classmethod
    def _trusted(cls, **fields: Any) -> Self:
        """Fields that are right by construction: neither checked nor copied."""
        csb = object.__new__(cls)
        for name, value in fields.items():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            object.__setattr__(csb, name, value)
        return csb

    @property
    def grid(self) -> BlockGrid:
        """How the matrix is cut: block_rows, block_cols, count."""
        return BlockGrid(self.shape[0], self.shape[1], self.block, self.transposed)

    @property
    def nnz(self) -> int:
        """Number of stored elements (matrix) or kernels (CONV)."""
        return len(self.data)

    @property
    def density(self) -> float:
        """Stored share of all elements or kernels, 0 to 1; 1 for an empty matrix."""
        size = self.shape[0] * self.shape[1]
        return self.nnz / size if size else 1.0

    @property
    def T(self) -> Self:  # noqa: N802  # the name that NumPy gives it
        """The transposed matrix ([in, out, kh, kw] for kernels) as a view: nothing is copied.

        Row and column coordinates change places; all bytes stay where they are. The taps of a kernel are not
        turned: NG's rotation by 180 degrees belongs to the convolution, not to the format.
        """
        return self._trusted(
            data=self.data,
            row_index=self.col_index,
            col_index=self.row_index,
            block_ptr=self.block_ptr,
            shape=(self.shape[1], self.shape[0], *self.shape[2:]),
            block=(self.block[1], self.block[0]),
            transposed=not self.transposed,
        )

    def coordinates(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(row, column) in the whole matrix of each stored element, int64 [nnz] each, in storage order."""
        block_row, block_col = self.grid.coordinates(block_of_each(self.block_ptr))
        row = block_row * self.block[0] + self.row_index
        col = block_col * self.block[1] + self.col_index
        return row.astype(np.int64, copy=False), col.astype(np.int64, copy=False)

    def mask(self) -> Mask:
        """What is stored, as a mask [rows, cols]."""
        alive = self._zeros(self.shape[:2], np.dtype(np.bool_))
        alive[self.coordinates()] = True
        return Mask(alive)

    def to_dense(self) -> Array:
        """The matrix [rows, cols] or weight [out, in, kh, kw], of the dtype of `data`.

        What is not stored is 0. Raises `CSBError` where this machine has not the memory for it.
        """
        dense = self._zeros(self.shape, self.data.dtype)
        dense[self.coordinates()] = self.data
        return dense

    def _zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        try:
            return np.zeros(shape, dtype=dtype)
        except (MemoryError, ValueError) as error:  # ValueError: more bytes than NumPy can address
            raise CSBError(f"CSB of shape {list(self.shape)} is too large to decode in memory") from error

    def gather(self, dense: Any) -> Array:
        """The values of `dense`, of this shape, at the stored places, in storage order: new `data`."""
        values = numeric("dense", dense)
        if values.shape != self.shape:
            raise CSBError(f"CSB dense of shape {list(values.shape)}: the CSB is of shape {list(self.shape)}")
        return np.ascontiguousarray(values[self.coordinates()])

    def with_data(self, data: Any) -> Self:
        """The same places with other values, [nnz] or [nnz, kh, kw]; the index arrays are shared."""
        values = numeric("data", data)
        if values.shape != self.data.shape:
            raise CSBError(f"CSB data of shape {list(values.shape)}: its shape is {list(self.data.shape)}")
        return self._trusted(**{**self._fields(), "data": values.copy(order="C")})

    def blocks(self, order: BlockOrder = "storage") -> Iterator[tuple[int, int, slice]]:
        """(block_row, block_col, slice into the arrays) of every block, empty ones too.

        'storage' walks the arrays from front to back: column by column of blocks (row by row in a transposed
        view). 'transposed' is the other order. FF reads W with `csb.blocks()`, NG reads W^T with
        `csb.T.blocks("transposed")`: both go column by column of the matrix that they multiply by.
        """
        if order not in ("storage", "transposed"):
            raise CSBError(f"CSB block order {shown(order)}: it is 'storage' or 'transposed'")
        grid = self.grid
        bounds = self.block_ptr.tolist()
        walk = grid.walk(by_rows=self.transposed == (order == "storage"))
        found = ((row, col, grid.position(row, col)) for row, col in walk)
        return ((row, col, slice(bounds[at], bounds[at + 1])) for row, col, at in found)

    def block_counts(self) -> NDArray[np.int64]:
        """Stored elements of each block, int64 [block_rows, block_cols]."""
        lengths = block_lengths(self.block_ptr)
        grid = self.grid
        if self.transposed:
            return lengths.reshape(grid.block_rows, grid.block_cols)
        return lengths.reshape(grid.block_cols, grid.block_rows).T

    def nbytes(self, data_bits: int | None = None) -> StorageBytes:
        """Bytes as hardware stores it: values of `data_bits` (default: those of the dtype), coordinates of
        ceil(log2 r) + ceil(log2 c) bits, pointers of 32 bits."""
        bits = self.data.dtype.itemsize * 8 if data_bits is None else data_bits
        if bits < 1:
            raise CSBError(f"CSB data_bits = {bits}; a value has at least 1 bit")
        coordinate = index_bits(self.block[0]) + index_bits(self.block[1])
        return StorageBytes(
            data=-(-self.data.size * bits // 8),
            index=-(-self.nnz * coordinate // 8),
            pointers=len(self.block_ptr) * POINTER_BYTES,
        )

    def to_arrays(self) -> dict[str, Array]:
        """All fields as arrays, for a checkpoint: `shape` and `block` int64, `transposed` uint8 [1].

        The others are the CSB's own arrays, read-only and not copied.
        """
        fields = self._fields()
        fields["shape"] = np.array(self.shape, dtype=np.int64)
        fields["block"] = np.array(self.block, dtype=np.int64)
        fields["transposed"] = np.array([self.transposed], dtype=np.uint8)
        return fields

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Self:
        """The CSB that `to_arrays` wrote; every field is checked.

        Raises `CSBError` for missing or unknown names, and as the constructor does.
        """
        if not isinstance(arrays, Mapping):
            raise CSBError(f"CSB arrays: a {type(arrays).__name__}, not a mapping of {', '.join(FIELDS)}")
        missing = [name for name in FIELDS if name not in arrays]
        unknown = [name for name in arrays if name not in FIELDS]
        if missing or unknown:
            raise CSBError(f"CSB arrays: missing {missing}, unknown {unknown}; it has {', '.join(FIELDS)}")
        flag = as_array("transposed", arrays["transposed"])
        if flag.dtype != np.uint8 or flag.shape != (1,) or flag[0] > 1:
            raise CSBError(f"CSB transposed = {shown(flag)}: it is a uint8 array of one element, 0 or 1")
        return cls(**{**arrays, "transposed": bool(flag[0])})

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}

    def __eq__(self, other: object) -> bool:
        """Equal in every field: layout, coordinates, values (NaN equals NaN) and the dtype of the values."""
        if not isinstance(other, CSB):
            return NotImplemented
        layout = ("shape", "block", "transposed")
        return (
            all(getattr(self, name) == getattr(other, name) for name in layout)
            and np.array_equal(self.block_ptr, other.block_ptr)
            and np.array_equal(self.row_index, other.row_index)
            and np.array_equal(self.col_index, other.col_index)
            and self.data.dtype == other.data.dtype
            and np.array_equal(self.data, other.data, equal_nan=self.data.dtype.kind == "f")
        )

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Copied and unpickled through the constructor, so that a damaged pickle is refused too."""
        return type(self), tuple(self._fields().values())

    __hash__ = None  # type: ignore[assignment]  # compared by content, like an array

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        what = "kernels" if len(self.shape) == 4 else "elements"
        view = ", transposed view" if self.transposed else ""
        return f"CSB({size}, block {self.block}, {self.nnz} {what} of {self.data.dtype}{view})"
