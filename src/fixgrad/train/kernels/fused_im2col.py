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
def _copy(target: Int8, to: int, source: Int8, begin: int, size: int) -> None:
    if begin + size + VECTOR <= len(source):
        done = 0
        while done < size:
            _move(target, to + done, source, begin + done)
            done += VECTOR
    else:  # vectors would read beyond the end
        for each in range(size):
            target[to + each] = source[begin + each]


@inlined
def _zeros(target: Int8, to: int, size: int) -> None:
    done = 0
    while done < size:
        _clear(target, to + done)
        done += VECTOR


@compiled
def gather(maps: Int8, rows: Int64, columns: Int64, out: Int8) -> None:
    """What each tap sees at each position.

    Args:
        maps: int8 [images, height, width, channels], contiguous.
        rows, columns: which row [outputs, kernel rows] and column of the map a tap sees, -1 for zeros.
        out: int8 [images * positions * taps * channels + VECTOR], the taps in raster order.
    """
    images, height, width, channels = maps.shape
    flat = maps.reshape(-1)
    row_size = columns.shape[1] * channels
    last, to = columns.shape[1] - 1, 0
    for image in range(images):
        for i in range(rows.shape[0]):
            for j in range(columns.shape[0]):
                first = columns[j, 0]
                together = first >= 0 and columns[j, last] == first + last
                for u in range(rows.shape[1]):
                    begin = (image * height + rows[i, u]) * width
                    if rows[i, u] < 0:
                        _zeros(out, to, row_size)
                    elif together:
                        _copy(out, to, flat, (begin + first) * channels, row_size)
                    else:
                        for v in range(columns.shape[1]):
                            if columns[j, v] < 0:
                                _zeros(out, to + v * channels, channels)
                            else:
                                _copy(out, to + v * channels, flat, (begin + columns[j, v]) * channels, channels)
                    to += row_size
