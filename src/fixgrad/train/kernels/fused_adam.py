"""Adam on stored integers as a single pass over the CPU's memory, compiled by Numba: see `fixgrad.train.kernels.fused`.

Every branch of the definition (`fixgrad.network.adam`) is a choice between two values here, so that the loop can be vectorised.
"""

from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic

from fixgrad.train.kernels.compiling import compiled, inlined
from fixgrad.train.kernels.fused import Bool, Int8, Int32, Int64, UInt32, Word, hashed, int64, uint32

float64: Any = numba.float64
#: Below every exponent of something that is not 0.
_NOTHING = -(1 << 20)


def _typed_leading_zeros(context: Any, value: Any) -> Any:
    """Zero bits above the highest one of an int64, 64 for 0: an instruction of LLVM's that Python has no word for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        defined_for_zero = context.get_constant(numba.boolean, False)
        return builder.ctlz(arguments[0], defined_for_zero)

    return numba.int64(numba.int64), generate


_leading_zeros: Any = intrinsic(_typed_leading_zeros)


@inlined
def _bit_length(value: Word) -> Word:
    return 64 - _leading_zeros(abs(value))


@inlined
def _shifted(value: Word, left: Word) -> Word:
    """value * 2**left, rounded to nearest in a right shift; a left shift must fit."""
    up, down = min(max(left, 0), 62), min(max(-left, 0), 62)
    half = (int64(1) << down) >> 1
    return ((value << up) + half) >> down


@inlined
def _aligned(value: Word, left: Word, limit: Word) -> Word:
    """`fixgrad.numbers.elementwise.align_each`: what does not fit becomes the largest code."""
    bound = limit >> min(max(left, 0), 62)
    sign = int64(value > 0) - int64(value < 0)
    fitting = min(max(value, -bound), bound)
    moved = min(max(_shifted(fitting if left > 0 else value, left), -limit), limit)
    return sign * limit if left > 0 and abs(value) > bound else moved


@inlined
def _top(mantissa: Word, exponent: Word) -> Word:
    return exponent + _bit_length(mantissa) if mantissa != 0 else int64(_NOTHING)


@inlined
def _moment(
    word: Word, value: Word, exponent: Word, decay: Word, frac: Word, frame: Word, bits: Word, field_bits: Word, bias: Word
) -> Word:
    """The word of decay * moment + (1 - decay) * value."""
    field_mask = (int64(1) << field_bits) - 1
    kept, kept_exponent = (word >> field_bits) * decay, (word & field_mask) - bias - frac
    pulled, pulled_exponent = value * ((int64(1) << frac) - decay), exponent - frac
    low = max(_top(kept, kept_exponent), _top(pulled, pulled_exponent)) - frame
    total = _shifted(kept, kept_exponent - low) + _shifted(pulled, pulled_exponent - low)
    shift = _bit_length(total) - bits
    mantissa = _shifted(total, -shift)
    carried = abs(mantissa) >> bits
    mantissa, field = mantissa >> carried, low + shift + carried + bias
    sign = int64(mantissa > 0) - int64(mantissa < 0)
    mantissa = sign * ((int64(1) << bits) - 1) if field > field_mask else mantissa
    whole = (mantissa << field_bits) + min(field, field_mask)
    return whole if field >= 0 and mantissa != 0 else int64(0)


@inlined
def _change(first: Word, second: Word, c: tuple[Word, ...]) -> Word:
    """rate * first / (sqrt(second) + epsilon); `c`: see `adam`."""
    bits, field_bits, bias, root_bits, reciprocal_frac, rate, epsilon, epsilon_exponent, step, limit = c
    field_mask = (int64(1) << field_bits) - 1
    mantissa, exponent = second >> field_bits, (second & field_mask) - bias
    left = 2 * root_bits - 1 - bits + (exponent & 1)
    root = int64(np.sqrt(float64(mantissa << left)))
    root_exponent = (exponent - left) >> 1
    low = max(_top(root, root_exponent), _top(epsilon, epsilon_exponent)) - root_bits
    d = _shifted(root, root_exponent - low) + _shifted(epsilon, epsilon_exponent - low)
    # An exact quotient that is no integer is at least 2**-18 away from one, and float64 is spaced 2**-34 there at most.
    dividend = (int64(1) << reciprocal_frac) + (d >> 1)
    reciprocal = int64(float64(dividend) / float64(max(d, 1))) if d != 0 else int64(0)
    product = (first >> field_bits) * reciprocal * rate
    return _aligned(product, (first & field_mask) - bias - low + step, limit)


@compiled
def adam(
    stored: Int32,
    first: Int32,
    second: Int32,
    gradient: Int32,
    mask: Bool,
    operand: Int8,
    c: Int64,
    stochastic: bool,
    key_low: Word,
    key_high: Word,
    rounds: UInt32,
    position: int,
) -> int:
    """Adam on int32 [outputs, taps, inputs], in place, and the operand codes; returns the largest magnitude.

    `c` holds the constants in the order of `fixgrad.train.kernels.adam_numba.AdamWords`; all else is as in `fused.update`.
    """
    outputs, taps, inputs = stored.shape
    scale, g_exponent, g_bits = c[0], c[1], c[2]
    w_coupled, w_left, w_limit = c[3], c[4], c[5]
    decay_1, frac_1, decay_2, frac_2, frame = c[6], c[7], c[8], c[9], c[10]
    bits, field_bits, bias = c[11], c[12], c[13]
    of_change = (bits, field_bits, bias, c[14], c[15], c[16], c[17], c[18], c[19], c[20])
    limit = c[20]
    d_factor, d_left, step_frac, stored_limit = c[21], c[22], c[23], c[24]
    o_shift, o_half, o_limit = c[25], c[26], c[27]
    key_low, key_high, stride = uint32(key_low), uint32(key_high), uint32(taps)
    r0, r1, r2, r3, r4, r5 = rounds[0], rounds[1], rounds[2], rounds[3], rounds[4], rounds[5]
    r6, r7, r8, r9, r10, r11 = rounds[6], rounds[7], rounds[8], rounds[9], rounds[10], rounds[11]
    words = (r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11)
    largest: int = int64(0)
    for o in range(outputs):
        for t in range(taps):
            base = uint32(((position + o) * inputs) * taps + t)
            for i in range(inputs):
                scaled = int64(gradient[o, t, i]) * scale
                if mask.size:
                    scaled = scaled if mask[o, i] else int64(0)
                w = int64(stored[o, t, i])
                scaled += _clamped(w * w_coupled, w_left, w_limit)
                shift = _bit_length(scaled) - g_bits
                g = _shifted(scaled, -shift)
                carried = abs(g) >> g_bits
                g, exponent = g >> carried, g_exponent + shift + carried
                m = _moment(int64(first[o, t, i]), g, exponent, decay_1, frac_1, frame, bits, field_bits, bias)
                v = _moment(int64(second[o, t, i]), g * g, 2 * exponent, decay_2, frac_2, frame, bits, field_bits, bias)
                up = (int64(1) << step_frac) >> 1
                if stochastic:
                    random = hashed((base + uint32(i) * stride) ^ key_low, key_high, words)
                    up = int64(random) >> (32 - step_frac)
                total = _change(m, v, of_change) + _clamped(w * d_factor, d_left, limit)
                w = min(max(w - ((total + up) >> step_frac), -stored_limit), stored_limit)
                first[o, t, i] = m
                second[o, t, i] = v
                stored[o, t, i] = w
                largest = max(largest, abs(w))
                if operand.size:
                    operand[o, t, i] = min(max((w + o_half) >> o_shift, -o_limit), o_limit)
    return largest


@inlined
def _clamped(value: Word, left: Word, limit: Word) -> Word:
    """`fixgrad.numbers.align`: clamped before a left shift."""
    bound = limit >> max(left, 0)
    fitting = min(max(value, -bound), bound) if left >= 0 else value
    return min(max(_shifted(fitting, left), -limit), limit)
