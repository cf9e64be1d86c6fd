"""POST: accumulators into codes, forward and backward; and STATISTICS."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine.encoding import Instruction
from fixgrad.numbers import StreamKey, align, hash32, saturate, shift_nearest, shift_stochastic, wrap32
from fixgrad.simulate.functional.chip import Chip, Rectangle, magnitudes
from fixgrad.simulate.functional.fault import Fault

Ints = NDArray[np.int64]
_ACCUMULATORS, _CODES = 1, 2
_NG = 1
ERROR_BITS = 8


class Drained(NamedTuple):
    """Accumulators [channels, rows, columns, lanes] of the channels of all groups, and the pixels that they are."""

    values: Ints
    box: Rectangle


def post(chip: Chip, i: Instruction) -> Ints:
    """Drain, requantise, pool and store; returns the codes before pooling [channels, rows, columns, lanes]."""
    drained = _drain(chip, i)
    return _backward(chip, i, drained) if i.mode == _NG else _forward(chip, i, drained)


def store_statistics(chip: Chip, i: Instruction) -> None:
    """Range registers to memory; they start again from 0."""
    chip.integers_at(i.target, "<u4", 4 * i.count)[:] = chip.registers[: i.count].reshape(-1)
    chip.registers[: i.count] = 0


def _drain(chip: Chip, i: Instruction) -> Drained:
    half = chip.lane_half(i.lane_base)
    if not chip.undrained[:, half].all():
        raise Fault(f"half {half} of the lane memories has no accumulators to drain")
    chip.undrained[:, half] = False
    boxes = chip.rectangles(i, "out")
    end = i.lane_base + (i.channels - 1) * i.lane_slot_words + max(box.pixels for box in boxes)
    if end > chip.machine.lane_words:
        raise Fault(f"lane words up to {end} exceed the lane memory of {chip.machine.lane_words}")
    if i.channel_split:
        values = _slots(chip, i, slice(None), boxes[0])
        return Drained(values[: i.total_channels].astype(np.int64), boxes[0])
    return _assemble(chip, i, boxes)


def _slots(chip: Chip, i: Instruction, pes: slice, box: Rectangle) -> NDArray[np.int32]:
    """[owners x channels, rows, columns, lanes] of some PEs of all groups."""
    places = i.lane_base + i.lane_slot_words * np.arange(i.channels)[:, None] + np.arange(box.pixels)
    return chip.lanes[:, pes][:, :, places].reshape(-1, box.rows, box.columns, chip.machine.lanes)


def _assemble(chip: Chip, i: Instruction, boxes: tuple[Rectangle, ...]) -> Drained:
    """One picture from the rectangles of the PEs."""
    real = [box for box in boxes if box.pixels]
    whole = Rectangle(
        min(box.top for box in real), max(box.bottom for box in real), min(box.left for box in real), max(box.right for box in real)
    )
    if sum(box.pixels for box in real) != whole.pixels:
        raise Fault(f"the rectangles of the PEs do not fill {tuple(whole)}")
    values = np.empty((i.total_channels, whole.rows, whole.columns, chip.machine.lanes), np.int64)
    for pe, box in enumerate(boxes):
        if box.pixels:
            rows, columns = slice(box.top - whole.top, box.bottom - whole.top), slice(box.left - whole.left, box.right - whole.left)
            values[:, rows, columns] = _slots(chip, i, slice(pe, pe + 1), box)[: i.total_channels]
    return Drained(values, whole)


def _forward(chip: Chip, i: Instruction, drained: Drained) -> Ints:
    param, values = chip.entry(i.param), drained.values
    overflow = False
    if i.with_bias:
        bias = align(chip.integers_at(i.bias, "<i4", i.total_channels), param["bias_shift"], 32)
        wrapped, overflow = wrap32(values[..., : i.images] + bias[:, None, None, None])
        values = wrapped.astype(np.int64)
    else:
        values = values[..., : i.images]
    if i.rectify == _ACCUMULATORS:
        values = np.maximum(values, 0)
    wide = shift_nearest(values, param["shift"])
    codes = np.zeros(drained.values.shape, np.int64)
    codes[..., : i.images] = saturate(wide, i.out_bits)
    chip.measure(i.statistics, magnitudes(values), int((codes[..., : i.images] != wide).sum()), overflow)
    stored = np.maximum(codes, 0) if i.rectify == _CODES else codes
    _store_forward(chip, i, stored, drained.box)
    return codes


def _store_forward(chip: Chip, i: Instruction, codes: Ints, box: Rectangle) -> None:
    windows, first_row, first_column = _windows(i, codes, box)
    maxima = windows.argmax(axis=-1)
    pooled = np.take_along_axis(windows, maxima[..., None], axis=-1)[..., 0]
    dtype = "<i2" if i.out_bits > 8 else "i1"
    channels, rows, columns, lanes = pooled.shape
    word = lanes * np.dtype(dtype).itemsize
    place = first_row * i.row_words + first_column
    planes = (channels, rows, columns), (i.channel_words, i.row_words, 1)
    chip.words_at(i.target + word * place, dtype, *planes)[...] = pooled
    if i.with_argmax:
        chip.words_at(i.argmax + lanes * place, "u1", *planes)[...] = maxima


def _windows(i: Instruction, codes: Ints, box: Rectangle) -> tuple[Ints, int, int]:
    """Whole pooling windows [channels, rows, columns, lanes, elements in raster order], and the first window's place."""
    height, width = i.pool_rows, i.pool_columns
    if box.top % height or box.left % width:
        raise Fault(f"a {height}x{width} window begins outside of the tile at row {box.top}, column {box.left}")
    rows, columns = box.rows // height, box.columns // width
    cut = codes[:, : rows * height, : columns * width]
    split = cut.reshape(len(codes), rows, height, columns, width, codes.shape[-1]).transpose(0, 1, 3, 5, 2, 4)
    return split.reshape(*split.shape[:4], height * width), box.top // height, box.left // width


def _backward(chip: Chip, i: Instruction, drained: Drained) -> Ints:
    param, values, box = chip.entry(i.param), drained.values, drained.box
    channels, rows, columns, lanes = values.shape
    planes = (channels, rows, columns), (i.mask_channel_words, i.mask_row_words, 1)
    place = lanes * (box.top * i.mask_row_words + box.left)
    if i.rectify:
        values = np.where(chip.words_at(i.mask + place, "i1", *planes) > 0, values, 0)
    values[..., i.images :] = 0
    if param["stochastic"]:
        wide = shift_stochastic(values, param["shift"], _random(chip, i, param, values.shape, box))
    else:
        wide = shift_nearest(values, param["shift"])
    codes = saturate(wide, i.out_bits)
    overflow = i.with_bias and add_bias_gradient(chip, i.bias_gradient, codes)
    chip.measure(i.statistics, magnitudes(values), int((codes != wide).sum()), bool(overflow))
    argmax = chip.words_at(i.argmax + place, "u1", *planes) if i.pool_rows * i.pool_columns > 1 else None
    _store_backward(chip, i, codes, box, argmax)
    return codes


def _random(chip: Chip, i: Instruction, param: dict[str, int], shape: tuple[int, ...], box: Rectangle) -> NDArray[np.uint32]:
    channels, rows, columns, lanes = shape
    first = chip.integers_at(i.element, "<u4", channels).astype(np.int64)
    pixel = (box.top + np.arange(rows))[:, None] * i.random_row + box.left + np.arange(columns)
    image = i.random_image + np.arange(lanes)
    elements = first[:, None, None, None] + (pixel * i.random_batch)[None, :, :, None] + image
    return hash32(elements, StreamKey(param["key_low"], param["key_high"]))


def add_bias_gradient(chip: Chip, address: int, codes: Ints) -> bool:
    """Add the errors [channels, ...] of each channel to its sum in memory; whether a sum wrapped."""
    sums = chip.integers_at(address, "<i4", len(codes))
    values, overflow = wrap32(sums + codes.reshape(len(codes), -1).sum(axis=1))
    sums[:] = values
    return overflow


def _store_backward(chip: Chip, i: Instruction, codes: Ints, box: Rectangle, argmax: NDArray[np.uint8] | None) -> None:
    """Each error to its window's maximum, zeros to the other pixels of the window."""
    height, width, lanes = i.pool_rows, i.pool_columns, chip.machine.lanes
    shape, steps = codes.shape[:3], (i.channel_words, i.row_words * height, width)
    for number in range(height * width):
        row, column = box.top * height + number // width, box.left * width + number % width
        plane = chip.words_at(i.target + lanes * (row * i.row_words + column), "i1", shape, steps)
        plane[...] = codes if argmax is None else np.where(argmax == number, codes, 0)
