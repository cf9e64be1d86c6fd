"""The inner loops of COMPUTE and UPDATE, compiled by Numba on first use.

Unsigned indices matter: a signed one may be negative, which costs a test for every element and with it the vector units.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numba as nb
import numpy as np
from numba import uintp

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "boundscheck": False, "cache": True}


@cache
def accumulate(lanes: int) -> Callable[..., int]:
    """FF and NG for `lanes` lanes; returns 1 if an accumulator wrapped.

    The function takes, for each job (a PE with kernels [first, last)): its lane memory, its place among the PEs of a group;
    for each kernel the first accumulator, the first input word and its weights; and the pixel lists of the PEs. All memories
    are flat.
    """
    count = np.uintp(lanes)

    @nb.njit(**_OPTIONS)
    def run(memory, bases, pes, first, last, out, source, weights, inputs, input_words, pixels, starts, taps, places):  # type: ignore[no-untyped-def]
        wrapped = 0
        for job in range(len(first)):
            pe = pes[job]
            register = np.zeros(lanes, np.int32)
            sign = np.zeros(lanes, np.int32)
            for kernel in range(first[job], last[job]):
                x = uintp((pe * input_words + source[kernel]) * lanes)
                y = uintp((bases[job] + out[kernel]) * lanes)
                for pixel in range(pixels[pe]):
                    for lane in range(count):
                        register[lane] = 0
                    pair, end = starts[pe, pixel], starts[pe, pixel + 1]
                    while pair + 2 < end:
                        w0, w1, w2 = (
                            np.int32(weights[kernel, taps[pe, pair]]),
                            np.int32(weights[kernel, taps[pe, pair + 1]]),
                            np.int32(weights[kernel, taps[pe, pair + 2]]),
                        )
                        x0 = x + uintp(places[pe, pair] * lanes)
                        x1 = x + uintp(places[pe, pair + 1] * lanes)
                        x2 = x + uintp(places[pe, pair + 2] * lanes)
                        for lane in range(count):
                            register[lane] += w0 * inputs[x0 + lane] + w1 * inputs[x1 + lane] + w2 * inputs[x2 + lane]
                        pair += 3
                    while pair < end:
                        w0, x0 = np.int32(weights[kernel, taps[pe, pair]]), x + uintp(places[pe, pair] * lanes)
                        for lane in range(count):
                            register[lane] += w0 * inputs[x0 + lane]
                        pair += 1
                    for lane in range(count):
                        before, added = memory[y + lane], register[lane]
                        after = np.int32(before + added)
                        sign[lane] |= (before ^ after) & (added ^ after)
                        memory[y + lane] = after
                    y += count
            for lane in range(lanes):
                wrapped += sign[lane] < 0
        return int(wrapped > 0)

    return run  # type: ignore[no-any-return]


@cache
def correlate(lanes: int) -> Callable[..., int]:
    """WG for `lanes` lanes; returns 1 if a gradient wrapped. Arguments as for `accumulate`, with the gradient memories."""
    count = np.uintp(lanes)

    @nb.njit(**_OPTIONS)
    def run(gradients, gradient_bases, memory, bases, pes, first, last, out, source, inputs, input_words, starts, pixels, places):  # type: ignore[no-untyped-def]
        wrapped = 0
        for job in range(len(first)):
            pe = pes[job]
            register = np.zeros(lanes, np.int32)
            taps = starts.shape[1] - 1
            for kernel in range(first[job], last[job]):
                x = uintp((pe * input_words + source[kernel]) * lanes)
                y = uintp((bases[job] + out[kernel]) * lanes)
                place = gradient_bases[job] + (kernel - first[job]) * taps
                for tap in range(taps):
                    for lane in range(count):
                        register[lane] = 0
                    pair, end = starts[pe, tap], starts[pe, tap + 1]
                    while pair + 1 < end:
                        e0, e1 = y + uintp(pixels[pe, pair] * lanes), y + uintp(pixels[pe, pair + 1] * lanes)
                        x0, x1 = x + uintp(places[pe, pair] * lanes), x + uintp(places[pe, pair + 1] * lanes)
                        for lane in range(count):
                            register[lane] += memory[e0 + lane] * inputs[x0 + lane] + memory[e1 + lane] * inputs[x1 + lane]
                        pair += 2
                    if pair < end:
                        e0, x0 = y + uintp(pixels[pe, pair] * lanes), x + uintp(places[pe, pair] * lanes)
                        for lane in range(count):
                            register[lane] += memory[e0 + lane] * inputs[x0 + lane]
                    total = np.int64(0)
                    for lane in range(count):
                        total += register[lane]
                    total += gradients[place + tap]
                    gradients[place + tap] = np.int32(total)
                    wrapped += np.int64(np.int32(total)) != total
        return int(wrapped > 0)

    return run  # type: ignore[no-any-return]
