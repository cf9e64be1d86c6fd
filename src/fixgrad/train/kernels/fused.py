"""Pointwise functions of a step as single passes over the CPU's memory, compiled by Numba.

They run without the interpreter's lock, one thread each: `fixgrad.train.kernels.workers` gives each thread its own tile.
Sums, maxima and counts of integers do not depend on an order, so vectorising them changes no bit.

Everything that is defined elsewhere (rounds of the hash, widths) comes in as an argument: Numba's cache of compiled code
follows this file alone, and would not notice a change of an imported constant.

`v >> s` of a 32-bit value plus the carry of what is cut off equals the 64-bit definition `(v + r) >> s` and never wraps.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fixgrad.train.kernels.compiling import compiled, inlined, shift_left, shift_right, shift_signed

#: The shape of the hash that is written out below; its constants come in as arguments.
HASH_ROUNDS, HASH_KEY_ROUND = 4, 2
#: Elements that are taken as one run, where rows of channels are shorter.
RUN = 1024

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

@inlined
def hashed(a: Word, key_high: Word, r: tuple[Word, ...]) -> Word:
    """`fixgrad.numbers.hash32` behind its first XOR; `r` holds the rounds, three words each."""
    a = uint32(a + r[0] + shift_left(a, r[1]))
    a = uint32(a ^ shift_right(a, r[2]))
    a = uint32(a + r[3] + shift_left(a, r[4]))
    a = uint32(a ^ shift_right(a, r[5]))
    a = uint32(a ^ key_high)
    a = uint32(a + r[6] + shift_left(a, r[7]))
    a = uint32(a ^ shift_right(a, r[8]))
    a = uint32(a + r[9] + shift_left(a, r[10]))
    a = uint32(a ^ shift_right(a, r[11]))
    return a


@inlined
def _nearest(total: Word, shift: Word, below: Word, half: Word, limit: Word) -> tuple[Word, Word]:
    """The code of an accumulator, and whether it saturated; `below` is the shift to the highest bit that is cut off."""
    code = int32(shift_signed(total, shift) + (shift_signed(total, below) & half))
    clipped = int32(min(max(code, int32(-limit)), limit))
    return clipped, int32(clipped != code)


@compiled
def requantise_forward(sums: Int32, bias: Int32, low: Word, shift: Word, limit: Word, out: Int8) -> tuple[int, int, bool]:
    """int32 [rows * channels] plus bias [channels], at least `low` (0: rectified), to codes.

    An empty bias is none. Rows of few channels would leave vectors half empty, so that many are taken as one.
    """
    half = int32(1) if shift > 0 else int32(0)
    below = int32(max(shift - 1, 0))
    shift, limit, low = int32(shift), int32(limit), int32(low)
    together = max(1, RUN // max(len(bias), 1)) * len(bias) if len(bias) else RUN
    addends = np.empty(together, np.int32)
    for j in range(len(addends) if len(bias) else 0):
        addends[j] = bias[j % len(bias)]
    largest, smallest, saturated, overflow = int32(0), int32(0), int64(0), int32(0)
    for start in range(0, len(sums), together):
        x, y = sums[start : start + together], out[start : start + together]
        count = int32(0)
        if len(bias):
            for j in range(len(x)):
                total = int32(x[j] + addends[j])
                overflow |= (total ^ x[j]) & (total ^ addends[j])
                total = max(total, low)
                largest, smallest = max(largest, total), min(smallest, total)
                y[j], clipped = _nearest(total, shift, below, half, limit)
                count += clipped
        else:
            for j in range(len(x)):
                total = max(x[j], low)
                largest, smallest = max(largest, total), min(smallest, total)
                y[j], clipped = _nearest(total, shift, below, half, limit)
                count += clipped
        saturated += count
    return max(int64(largest), -int64(smallest)), saturated, overflow < 0


@inlined
def _offsets(pixels: int, channels: int, batch: int) -> UInt32:
    """Places in the random stream of the elements of some rows of an image, from that of the first element on."""
    rows = min(pixels, max(1, RUN // channels))
    offsets = np.empty(rows * channels, np.uint32)
    for row in range(rows):
        for c in range(channels):
            offsets[row * channels + c] = uint32(row * batch) + uint32(c) * uint32(pixels * batch)
    return offsets


@compiled
def requantise_error(
    sums: Int32,
    gate: Int8,
    gated: bool,
    shift: Word,
    stochastic: bool,
    key_low: Word,
    key_high: Word,
    rounds: UInt32,
    pixels: int,
    channels: int,
    first: int,
    batch: int,
    out: Int8,
) -> tuple[int, int]:
    """int32 [images * pixels * channels], 0 where the gate is not positive, to int8 codes.

    Row `image * pixels + pixel` holds the elements (channel * pixels + pixel) * batch + first + image of the stream. As many
    rows as make a long vector are taken at once.
    """
    limit, cut, none = int32(127), int32(shift), int32(0)
    mask = uint32((uint64(1) << uint64(shift)) - uint64(1))
    half, highest = int32(1) if shift > 0 else none, int32(max(shift - 1, 0))
    up = uint32(min(32 - shift, 31))
    key_low, key_high = uint32(key_low), uint32(key_high)
    r0, r1, r2, r3, r4, r5 = rounds[0], rounds[1], rounds[2], rounds[3], rounds[4], rounds[5]
    r6, r7, r8, r9, r10, r11 = rounds[6], rounds[7], rounds[8], rounds[9], rounds[10], rounds[11]
    words = (r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11)
    offsets = _offsets(pixels, channels, batch)
    together, start = len(offsets) // channels, 0
    largest, smallest, saturated = int32(0), int32(0), int64(0)
    while start < len(sums):
        image, pixel = start // (pixels * channels), start // channels % pixels
        base = uint32(pixel * batch + first + image)
        stop = start + min(together, pixels - pixel) * channels
        x, g, y, count = sums[start:stop], gate[start:stop], out[start:stop], int32(0)
        if stochastic:
            for j in range(len(x)):
                total = x[j]
                if gated:
                    total = total if g[j] > 0 else none
                largest, smallest = max(largest, total), min(smallest, total)
                random = hashed(uint32(base + offsets[j]) ^ key_low, key_high, words)
                # Both terms are below 2**shift <= 2**31: their sum fits into 32 bits without a sign.
                carry = shift_right(uint32((uint32(total) & mask) + (shift_right(random, up) & mask)), cut)
                code = int32(shift_signed(total, cut) + int32(carry))
                clipped = int32(min(max(code, int32(-limit)), limit))
                count += int32(clipped != code)
                y[j] = clipped
        else:
            for j in range(len(x)):
                total = x[j]
                if gated:
                    total = total if g[j] > 0 else none
                largest, smallest = max(largest, total), min(smallest, total)
                y[j], beyond = _nearest(total, cut, highest, half, limit)
                count += beyond
        saturated += count
        start = stop
    return max(int64(largest), -int64(smallest)), saturated


@compiled
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


@compiled
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


@compiled
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


@inlined
def _align(value: Word, left: Word, right: Word, half: Word, bound: Word, limit: Word) -> Word:
    """`fixgrad.numbers.align`: one of `left` and `right` is 0, and so is its clamp or its rounding."""
    value = min(max(value, -bound), bound) << left
    return min(max((value + half) >> right, -limit), limit)


@compiled
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
                    random = hashed((base + uint32(i) * stride) ^ key_low, key_high, words)
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
