"""Pointwise functions of a step as single passes over the CPU's memory, compiled by Numba.

They run without the interpreter's lock, one thread each: `fixgrad.train.kernels.workers` gives each thread its own tile.
Sums, maxima and counts of integers do not depend on an order, so vectorising them changes no bit.

Everything that is defined elsewhere (rounds of the hash, widths) comes in as an argument: Numba's cache of compiled code
follows this file alone, and would not notice a change of an imported constant.

`v >> s` of a 32-bit value plus the carry of what is cut off equals the 64-bit definition `(v + r) >> s` and never wraps.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

#: The shape of the hash that is written out below; its constants come in as arguments.
HASH_ROUNDS, HASH_KEY_ROUND = 4, 2

# Numba infers the types that it compiles for. To the type checker, an element of an array is any integer.
Int8 = NDArray[Any]
Int32 = NDArray[Any]
Int64 = NDArray[Any]
UInt32 = NDArray[Any]
Bool = NDArray[Any]
Word = Any
int32: Any = numba.int32
int64: Any = numba.int64
uint32: Any = numba.uint32
uint64: Any = numba.uint64

Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function) -> Function:
    """Compiled on its first call, and kept on disk where a folder for it can be written."""
    try:
        compiled = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no such folder
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(Function, compiled)


def _inlined(function: Function) -> Function:
    return cast(Function, numba.njit(inline="always", error_model="numpy")(function))


@_inlined
def _hash(a: Word, key_high: Word, r: tuple[Word, ...]) -> Word:
    """`fixgrad.numbers.hash32` behind its first XOR; `r` holds the rounds, three words each."""
    a = uint32(a + r[0] + (a << r[1]))
    a ^= a >> r[2]
    a = uint32(a + r[3] + (a << r[4]))
    a ^= a >> r[5]
    a ^= key_high
    a = uint32(a + r[6] + (a << r[7]))
    a ^= a >> r[8]
    a = uint32(a + r[9] + (a << r[10]))
    a ^= a >> r[11]
    return a


@_compiled
def requantise_forward(sums: Int32, bias: Int32, low: Word, shift: Word, limit: Word, out: Int8) -> tuple[int, int, bool]:
    """int32 [rows, channels] plus bias, at least `low` (0: rectified), to int8 codes."""
    rows, channels = sums.shape
    half = int32(1) if shift > 0 else int32(0)
    below = int32(max(shift - 1, 0))
    shift, limit, low = int32(shift), int32(limit), int32(low)
    largest, smallest, saturated, overflow = int32(0), int32(0), int64(0), int32(0)
    for row in range(rows):
        count = int32(0)
        for c in range(channels):
            total = int32(sums[row, c] + bias[c])
            overflow |= (total ^ sums[row, c]) & (total ^ bias[c])
            total = max(total, low)
            largest = max(largest, total)
            smallest = min(smallest, total)
            code = int32((total >> shift) + ((total >> below) & half))
            clipped = min(max(code, -limit), limit)
            count += int32(clipped != code)
            out[row, c] = clipped
        saturated += count
    return max(int64(largest), -int64(smallest)), saturated, overflow < 0


@_compiled
def requantise_error(
    sums: Int32,
    gate: Int8,
    gated: bool,
    shift: Word,
    stochastic: bool,
    key_low: Word,
    key_high: Word,
    rounds: UInt32,
    pixels: Word,
    first: Word,
    batch: Word,
    out: Int8,
) -> tuple[int, int]:
    """int32 [rows, channels], 0 where the gate is not positive, to int8 codes.

    Row `image * pixels + pixel` holds the elements (channel * pixels + pixel) * batch + first + image of the stream.
    """
    rows, channels = sums.shape
    limit, cut = int32(127), int32(shift)
    mask = uint32((uint64(1) << uint64(shift)) - uint64(1))
    nearest = uint32((mask + uint64(1)) >> uint64(1)) if shift > 0 else uint32(0)
    up = uint32(min(32 - shift, 31))
    key_low, key_high, stride = uint32(key_low), uint32(key_high), uint32(pixels * batch)
    r0, r1, r2, r3, r4, r5 = rounds[0], rounds[1], rounds[2], rounds[3], rounds[4], rounds[5]
    r6, r7, r8, r9, r10, r11 = rounds[6], rounds[7], rounds[8], rounds[9], rounds[10], rounds[11]
    words = (r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11)
    largest, smallest, saturated = int32(0), int32(0), int64(0)
    image, pixel = uint32(0), uint32(0)
    pixels, batch, first = uint32(pixels), uint32(batch), uint32(first)
    for row in range(rows):
        count = int32(0)
        base = uint32(pixel * batch + first + image)
        pixel += uint32(1)  # counted, because a division takes as long as 16 elements
        if pixel == pixels:
            image, pixel = uint32(image + uint32(1)), uint32(0)
        element = base
        for c in range(channels):
            total = sums[row, c]
            if gated:
                total = total if gate[row, c] > 0 else int32(0)
            largest = max(largest, total)
            smallest = min(smallest, total)
            below = nearest
            if stochastic:
                below = (_hash(element ^ key_low, key_high, words) >> up) & mask
            # Both terms are below 2**shift <= 2**31: their sum fits into 32 bits without a sign.
            carry = uint32((uint32(total) & mask) + below) >> uint32(cut)
            code = int32((total >> cut) + int32(carry))
            clipped = min(max(code, -limit), limit)
            count += int32(clipped != code)
            out[row, c] = clipped
            element = uint32(element + stride)
        saturated += count
    return max(int64(largest), -int64(smallest)), saturated


@_compiled
def pool(maps: Int8, window_rows: int, window_columns: int, out: Int8) -> None:
    """Maximum of each window: int8 [images, rows, columns, channels]."""
    images, rows, columns, channels = out.shape
    for image in range(images):
        for row in range(rows):
            for column in range(columns):
                largest = out[image, row, column]
                for c in range(channels):
                    largest[c] = -128
                for u in range(window_rows):
                    for v in range(window_columns):
                        x = maps[image, row * window_rows + u, column * window_columns + v]
                        for c in range(channels):
                            largest[c] = max(largest[c], x[c])


@_compiled
def pool_error(
    maps: Int8,
    pooled: Int8,
    errors: Int8,
    window_rows: int,
    window_columns: int,
    taken: Int8,
    out: Int8,
) -> None:
    """The error of each window at its first maximum in raster order; `out` is zero, `taken` int8 [channels]."""
    images, rows, columns, channels = errors.shape
    for image in range(images):
        for row in range(rows):
            for column in range(columns):
                largest, error = pooled[image, row, column], errors[image, row, column]
                taken[:] = 0
                for u in range(window_rows):
                    for v in range(window_columns):
                        r, q = row * window_rows + u, column * window_columns + v
                        x, target = maps[image, r, q], out[image, r, q]
                        for c in range(channels):
                            hit = (x[c] == largest[c]) & (taken[c] == 0)
                            target[c] = error[c] if hit else 0
                            taken[c] |= hit


@_compiled
def column_sums(errors: Int8, out: Int64) -> None:
    """Adds int8 [rows, channels] to int64 [channels]."""
    rows, channels = errors.shape
    part = np.zeros(channels, np.int32)
    for row in range(rows):
        for c in range(channels):
            part[c] += int32(errors[row, c])
        if row % 65536 == 65535:
            out += part
            part[:] = 0
    out += part


@_inlined
def _align(value: Word, left: Word, right: Word, half: Word, bound: Word, limit: Word) -> Word:
    """`fixgrad.numbers.align`: one of `left` and `right` is 0, and so is its clamp or its rounding."""
    value = min(max(value, -bound), bound) << left
    return min(max((value + half) >> right, -limit), limit)


@_compiled
def update(
    stored: Int32,
    momentum: Int32,
    gradient: Int32,
    mask: Bool,
    operand: Int8,
    c: Int64,
    stochastic: bool,
    key_low: Word,
    key_high: Word,
    rounds: UInt32,
    first: int,
) -> int:
    """Momentum SGD on int32 [outputs, taps, inputs], in place, and the operand codes; returns the largest magnitude.

    `c` holds the constants in the order of `fixgrad.train.kernels.pointwise_numba.UpdateWords`; `first` is the position of
    the first output in the parameter. An empty operand is not written, an empty mask keeps all.
    """
    outputs, taps, inputs = stored.shape
    mu, rate, decay = c[0], c[1], c[2]
    g_left, g_right, g_half, g_bound = c[3], c[4], c[5], c[6]
    d_left, d_right, d_half, d_bound = c[7], c[8], c[9], c[10]
    term_limit, momentum_shift, momentum_half, momentum_limit = c[11], c[12], c[13], c[14]
    s_left, s_right, s_half, stored_limit = c[15], c[16], c[17], c[18]
    o_shift, o_half, o_limit = c[19], c[20], c[21]
    key_low, key_high, stride = uint32(key_low), uint32(key_high), uint32(taps)
    r0, r1, r2, r3, r4, r5 = rounds[0], rounds[1], rounds[2], rounds[3], rounds[4], rounds[5]
    r6, r7, r8, r9, r10, r11 = rounds[6], rounds[7], rounds[8], rounds[9], rounds[10], rounds[11]
    words = (r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11)
    largest: int = int64(0)
    for o in range(outputs):
        for t in range(taps):
            base = uint32(((first + o) * inputs) * taps + t)
            for i in range(inputs):
                g = int64(gradient[o, t, i])
                if mask.size:
                    g = g if mask[o, i] else int64(0)
                w = int64(stored[o, t, i])
                total = momentum[o, t, i] * mu
                total += _align(g * rate, g_left, g_right, g_half, g_bound, term_limit)
                total += _align(w * decay, d_left, d_right, d_half, d_bound, term_limit)
                m_up, s_up = momentum_half, s_half
                if stochastic:
                    random = _hash((base + uint32(i) * stride) ^ key_low, key_high, words)
                    m_up = int64(random) >> (32 - momentum_shift)
                    s_up = int64(uint32(random << uint32(momentum_shift))) >> (32 - s_right)
                u = min(max((total + m_up) >> momentum_shift, -momentum_limit), momentum_limit)
                w -= ((u << s_left) + s_up) >> s_right
                w = min(max(w, -stored_limit), stored_limit)
                momentum[o, t, i] = u
                stored[o, t, i] = w
                largest = max(largest, abs(w))
                if operand.size:
                    operand[o, t, i] = min(max((w + o_half) >> o_shift, -o_limit), o_limit)
    return largest
