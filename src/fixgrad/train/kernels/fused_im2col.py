"""im2col as one pass over the CPU's memory, compiled by Numba; see `fixgrad.train.kernels.fused`.

What the taps of a kernel's row see lies together, mostly in some tens of bytes. Such runs are too short for a call that copies
memory, and byte by byte they take longer than the product. So they are copied by vectors of VECTOR bytes that write beyond
the run's end: what is behind it is written next.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fixgrad.train.kernels.compiling import compiled, inlined

#: Bytes that are copied at once. The result needs this much room behind its end.
VECTOR = 32
_VECTOR = ir.VectorType(ir.IntType(8), VECTOR)

Int8 = NDArray[Any]
Int64 = NDArray[Any]


def _vector_at(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    """Pointer to the vector that begins at an element of a flat int8 array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), _VECTOR.as_pointer())


def _moved(_typing: Any, target: Any, to: Any, source: Any, begin: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, to, source, begin = arguments
        vector = builder.load(_vector_at(context, builder, signature.args[2], source, begin), align=1)
        builder.store(vector, _vector_at(context, builder, signature.args[0], target, to), align=1)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), generate


def _cleared(_typing: Any, target: Any, to: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = ir.Constant(_VECTOR, [0] * VECTOR)
        builder.store(zeros, _vector_at(context, builder, signature.args[0], *arguments), align=1)
        return context.get_dummy_value()

    return types.void(target, types.intp), generate


#: target[to : to + VECTOR] = source[begin : begin + VECTOR], unchecked.
_move: Any = intrinsic(_moved)
#: target[to : to + VECTOR] = 0, unchecked.
_clear: Any = intrinsic(_cleared)


@inlined
def _copy(target: Int8, to: int, source: Int8, begin: int, size: int, safe: int) -> None:
    """`safe` is the last place behind a run from which vectors do not read beyond the source."""
    if begin + size <= safe:
        done = 0
        while done < size:
            _move(target, to + done, source, begin + done)
            done += VECTOR
    else:
        for each in range(size):
            target[to + each] = source[begin + each]


@compiled
def gather(maps: Int8, rows: Int64, columns: Int64, out: Int8) -> None:
    """What each tap sees at each position.

    Args:
        maps: int8 [images, height, width, channels], contiguous.
        rows, columns: which row [outputs, kernel rows] and column of the map a tap sees, -1 for zeros.
        out: int8 [images * positions * taps * channels + VECTOR], the taps in raster order.
    """
    images, height, width, channels = maps.shape
    output_rows, kernel_rows = rows.shape
    output_columns, kernel_columns = columns.shape
    flat, safe = maps.reshape(-1), maps.size - VECTOR + 1
    run, to = kernel_columns * channels, 0
    for image in range(images):
        for i in range(output_rows):
            for j in range(output_columns):
                first = columns[j, 0]
                together = first >= 0 and columns[j, kernel_columns - 1] == first + kernel_columns - 1
                for u in range(kernel_rows):
                    row = rows[i, u]
                    if row < 0:
                        done = 0
                        while done < run:
                            _clear(out, to + done)
                            done += VECTOR
                    elif together:
                        _copy(out, to, flat, ((image * height + row) * width + first) * channels, run, safe)
                    else:
                        for v in range(kernel_columns):
                            column = columns[j, v]
                            if column < 0:
                                done = 0
                                while done < channels:
                                    _clear(out, to + v * channels + done)
                                    done += VECTOR
                            else:
                                begin = ((image * height + row) * width + column) * channels
                                _copy(out, to + v * channels, flat, begin, channels, safe)
                    to += run
