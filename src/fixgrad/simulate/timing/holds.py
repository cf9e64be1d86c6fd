"""How POST and UPDATE hold up the PEs whose memories they read, and the PEs UPDATE.

A PE's lane memories and its gradient memory have one read port each (`gateware/pe/issue.py`). A step that reads an accumulator
waits in a cycle in which POST reads one; of gradients see `fixgrad.machine.gradient_port`.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.packing import Columns
from fixgrad.compiler.patch import WG_MODE
from fixgrad.compiler.program import Program
from fixgrad.machine.gradient_port import gradient_holds

Ints = NDArray[np.int64]
#: Parts of a cycle in which holds are given.
SHARES = 1024


class Hold(IntEnum):
    """Columns of `holds`.

    LANES: cycles by which a word that POST reads delays the COMPUTE. GRADIENTS: likewise a parameter that UPDATE takes.
    REST: cycles by which the COMPUTE delays UPDATE for each parameter.
    """

    LANES = 0
    GRADIENTS = 1
    REST = 2


def holds(program: Program) -> Ints:
    """Of each COMPUTE, in parts of `SHARES` of a cycle, [computes, 3]; see `Hold`."""
    columns, machine = program.columns("COMPUTE"), program.machine
    computes, pes = np.arange(len(program.taps)), program.taps.argmax(axis=1)
    steps = np.maximum(program.taps[computes, pes], 1)
    is_wg = columns["mode"] == WG_MODE
    # FF and NG read an accumulator at the first tap of a kernel on a pixel; WG an error at every step.
    pixels = np.prod([_of_pe(columns, pes, high) - _of_pe(columns, pes, low) for low, high in _SIDES], axis=0)
    lanes = np.where(is_wg, 1.0, np.minimum(pixels / steps, 1.0))
    touched = _touched(columns, pes, program.count_padding)
    tap = steps / np.maximum(touched, 1)
    # PEs that have the same pixels have different kernels, and UPDATE reads one of them at a time. Others have the same kernels, and
    # keep step where padding takes its cycles.
    sides = [(pe, side) for pe in range(machine.pes_per_group) for pair in _SIDES for side in pair]
    alone = np.logical_and.reduce([columns[f"out{pe}_{side}"] == columns[f"out0_{side}"] for pe, side in sides])
    of_gradients = gradient_holds(tap, np.where(alone | program.count_padding, 1, machine.pes_per_group))
    found = (lanes, np.where(is_wg & (touched > 0), of_gradients.compute, 0.0), np.where(is_wg, of_gradients.update, 0.0))
    shares: Ints = np.rint(np.stack(found, axis=1) * SHARES).astype(np.int64)
    return shares


_SIDES = (("top", "bottom"), ("left", "right"))


def _of_pe(columns: Columns, pes: Ints, side: str) -> Ints:
    """A side of the rectangle of one PE of each COMPUTE."""
    found: Ints = np.choose(pes, [columns[f"out{pe}_{side}"] for pe in range(4)])
    return found


def _touched(columns: Columns, pes: Ints, count_padding: bool) -> Ints:
    """Taps of a kernel, at each of which a PE has a step."""
    found = np.ones(len(pes), np.int64)
    for axis, (low, high) in zip(("rows", "columns"), _SIDES, strict=True):
        first, behind = _of_pe(columns, pes, low), _of_pe(columns, pes, high)
        kernel, stride, size = (columns[name].astype(np.int64) for name in (f"kernel_{axis}", f"stride_{axis}", f"in_{axis}"))
        of_axis = np.zeros(len(pes), np.int64)
        for tap in range(int(kernel.max(initial=0))):
            at = first * stride - columns[f"pad_{axis}"] + tap * columns[f"dilation_{axis}"].astype(np.int64)
            inside = at + -(-np.maximum(-at, 0) // stride) * stride
            reached = (inside < size) & (inside <= at + (behind - 1 - first) * stride)
            of_axis += (tap < kernel) & (behind > first) & (reached | count_padding)
        found *= of_axis
    return found
