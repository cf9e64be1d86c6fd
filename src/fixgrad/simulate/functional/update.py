"""UPDATE: momentum SGD on stored weights, one run of parameters of one group."""

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine.encoding import Instruction
from fixgrad.network.recipe import OPERAND_BITS, Coefficient, UpdateConstants
from fixgrad.network.update import ParameterFormats, TermShifts, update
from fixgrad.numbers import Rounding, StreamKey, hash32, requantise, wrap32
from fixgrad.simulate.functional.chip import Chip, magnitudes
from fixgrad.simulate.functional.fault import Fault

Ints = NDArray[np.int64]
_ALL_PES = 7


def run_update(chip: Chip, i: Instruction) -> NDArray[np.int32]:
    """Update `count` parameters; returns their gradients."""
    if not i.count:
        return np.zeros(0, np.int32)
    param = chip.entry(i.param)
    gradient, overflow = _gradient_from_memory(chip, i) if i.from_memory else _gradient(chip, i)
    stored, momentum = (_read(chip, *place, i.count) for place in ((i.stored, i.stored_bytes), (i.momentum, i.momentum_bytes)))
    updated = update(
        stored,
        momentum,
        gradient,
        ParameterFormats(param["stored_bits"], 0, param["momentum_bits"]),
        TermShifts(param["gradient_left"], param["decay_left"], param["step_left"]),
        UpdateConstants(param["momentum"], Coefficient(param["rate"], 0), Coefficient(param["decay"], 0)),
        Rounding.STOCHASTIC if param["stochastic"] else Rounding.NEAREST,
        _random(chip, i, param) if param["stochastic"] else None,
    )
    _write(chip, i.stored, i.stored_bytes, updated.stored)
    _write(chip, i.momentum, i.momentum_bytes, updated.momentum)
    if i.operands:
        operands = requantise(updated.stored, param["operand_shift"], OPERAND_BITS)
        chip.bytes_at(i.operand, i.count).view(np.int8)[:] = operands
    chip.measure(i.statistics, magnitudes(updated.stored), overflow=overflow)
    return gradient


def _gradient(chip: Chip, i: Instruction) -> tuple[NDArray[np.int32], bool]:
    """From the gradient memories: one PE, or the sum over those of the group."""
    machine, end = chip.machine, i.gradient_base + i.count
    if i.group >= machine.groups or end > machine.gradient_words:
        raise Fault(f"group {i.group}, gradients up to {end}: the machine has {machine.groups} groups of {machine.gradient_words}")
    pes = slice(None) if i.pe == _ALL_PES else slice(i.pe, i.pe + 1)
    unused = chip.unused[i.group, pes, i.gradient_base : end]
    if not unused.all():
        raise Fault("a gradient has not been computed, or has been taken already")
    unused[...] = False
    gradient, overflow = wrap32(chip.gradients[i.group, pes, i.gradient_base : end].sum(axis=0, dtype=np.int64))
    return gradient, overflow


def _gradient_from_memory(chip: Chip, i: Instruction) -> tuple[NDArray[np.int32], bool]:
    source = chip.integers_at(i.gradient_source, "<i4", i.count)
    gradient = source.astype(np.int32)
    source[:] = 0
    return gradient, False


def _random(chip: Chip, i: Instruction, param: dict[str, int]) -> NDArray[np.uint32]:
    first = chip.integers_at(i.element, "<u4", -(-i.count // i.taps)).astype(np.int64)
    elements = (first[:, None] + np.arange(i.taps)).reshape(-1)[: i.count]
    return hash32(elements, StreamKey(param["key_low"], param["key_high"]))


def _read(chip: Chip, address: int, width: int, count: int) -> NDArray[np.int32]:
    wide = np.zeros((count, 4), np.uint8)
    wide[:, 4 - width :] = chip.bytes_at(address, count * width).reshape(count, width)
    return (wide.view("<i4").reshape(-1) >> np.int32(8 * (4 - width))).astype(np.int32)


def _write(chip: Chip, address: int, width: int, codes: Ints) -> None:
    data = np.ascontiguousarray(codes.astype("<i4")).view(np.uint8).reshape(-1, 4)
    chip.bytes_at(address, len(codes) * width)[:] = data[:, :width].reshape(-1)
