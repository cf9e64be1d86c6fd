"""ELEMENTWISE and CHANNEL_SUMS: maps to maps, and maps to the sums of their channels."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine.elementwise_instructions import ERRORS_OF_MAXIMA, MAXIMUM, RECORD, RECORD_BYTES
from fixgrad.machine.encoding import Instruction
from fixgrad.numbers import StreamKey, hash32, saturate, shift_nearest, shift_stochastic, wrap32
from fixgrad.simulate.functional.chip import Array, Chip, magnitudes
from fixgrad.simulate.functional.fault import Fault

Ints = NDArray[np.int64]
_FIELD = {item.name: item.offset // 8 for item in RECORD}
_MOST_TAPS, _MOST_NUMBERED_TAPS = 4096, 255
#: Elements that are worked out at once: whole channels, whose temporaries stay small.
_AT_ONCE = 1 << 21


class Axis(NamedTuple):
    """One axis of a window: `computed` pixels of the result, `read` pixels of the operand."""

    computed: int
    read: int
    kernel: int
    stride: int
    pad: int
    transposed: bool

    def meetings(self, tap: int) -> tuple[Ints, Ints]:
        """The result's pixels for which a tap is inside, and where it lies."""
        pixel = np.arange(self.computed)
        if self.transposed:
            place, rest = np.divmod(pixel + self.pad - tap, self.stride)
        else:
            place, rest = pixel * self.stride + tap - self.pad, np.zeros_like(pixel)
        inside = (rest == 0) & (place >= 0) & (place < self.read)
        return pixel[inside], place[inside]


def check_unit(chip: Chip) -> None:
    """Refuse an instruction of the elementwise unit on a machine without one."""
    if not chip.machine.elementwise_lanes:
        raise Fault(f"the opcode is illegal on {chip.machine.name}, which has no elementwise unit")


def record_fields(chip: Chip, address: int, channels: int) -> NDArray[np.int64]:
    """The records of consecutive channels, a view [channels, fields]."""
    return chip.integers_at(address, "<i8", channels * RECORD_BYTES // 8).reshape(channels, -1)


def record_place(name: str) -> int:
    """Number of a field of a record."""
    return _FIELD[name]


def elementwise(chip: Chip, i: Instruction) -> Ints:
    """See the instruction; returns the codes [channels, rows, columns, lanes]."""
    check_unit(chip)
    _check(chip, i)
    param, lanes = chip.entry(i.param), chip.machine.lanes
    codes = np.zeros((i.channels, i.rows, i.columns, lanes), np.int16)
    step = max(1, _AT_ONCE // max(i.rows * i.columns * lanes, 1))
    for first in range(0, i.channels, step):
        channels = slice(first, min(first + step, i.channels))
        codes[channels] = _requantised(chip, i, param, channels, _accumulators(chip, i, param, channels))
    planes = (i.channels, i.rows, i.columns), (i.channel_words, i.row_words, 1)
    chip.words_at(i.target, "<i2" if i.out_bits > 8 else "i1", *planes)[...] = codes
    return codes.astype(np.int64)


def _check(chip: Chip, i: Instruction) -> None:
    taps, most = i.kernel_rows * i.kernel_columns, _MOST_TAPS
    if i.combine == ERRORS_OF_MAXIMA or i.with_argmax:
        most = _MOST_NUMBERED_TAPS
    if i.operands and not 1 <= taps <= most:
        raise Fault(f"a window has {taps} taps: 1 to {most}")
    if i.operands and min(i.stride_rows, i.stride_columns) < 1:
        raise Fault("a stride is 0")
    if i.operands > 2 or i.combine > ERRORS_OF_MAXIMA or not 2 <= i.out_bits <= 16 or i.images > chip.machine.lanes:
        raise Fault("operands, combine, out_bits or images is out of range")


def _accumulators(chip: Chip, i: Instruction, param: dict[str, int], channels: slice) -> Ints:
    """32-bit accumulators of some channels [channels, rows, columns, lanes], before they are gated."""
    shape = (channels.stop - channels.start, i.rows, i.columns, chip.machine.lanes)
    a, b, c = _coefficients(chip, i, param, channels)
    products = np.broadcast_to(c, shape).copy()
    if i.operands:
        products += a * _combined(chip, i, channels)
    if i.operands == 2:
        second = _plane(chip, i.second, i.second_wide, channels, i.second_channel_words, (i.rows, i.columns), i.second_row_words)
        products += b * second
    return saturate(shift_nearest(products, param["down"]), 32)


def _coefficients(chip: Chip, i: Instruction, param: dict[str, int], channels: slice) -> tuple[Ints, Ints, Ints]:
    if i.per_channel:
        records = record_fields(chip, i.record + RECORD_BYTES * channels.start, channels.stop - channels.start)
        a, b, c = (records[:, _FIELD[name], None, None, None] for name in ("a", "b", "c"))
        return a, b, c
    one = np.ones((1, 1, 1, 1), np.int64)
    return one * (i.factor << param["left_first"]), one << param["left_second"], 0 * one


def _plane(
    chip: Chip, address: int, wide: int, channels: slice, channel_words: int, size: tuple[int, int], row_words: int, dtype: str = ""
) -> Array:
    """Some channels of a map, a view [channels, rows, columns, lanes]."""
    kind = dtype or ("<i2" if wide else "i1")
    word = chip.machine.lanes * np.dtype(kind).itemsize
    shape = (channels.stop - channels.start, *size)
    return chip.words_at(address + word * channels.start * channel_words, kind, shape, (channel_words, row_words, 1))


def _combined(chip: Chip, i: Instruction, channels: slice) -> Ints:
    """What becomes of the windows of the first operand; writes `argmax`."""
    size = i.first_rows, i.first_columns
    first = _plane(chip, i.first, i.first_wide, channels, i.first_channel_words, size, i.first_row_words).astype(np.int64)
    shape = (len(first), i.rows, i.columns, chip.machine.lanes)
    if i.combine == MAXIMUM:
        maxima, numbers = _maxima(i, first, shape)
        if i.with_argmax:
            target = _plane(chip, i.argmax, 0, channels, i.channel_words, (i.rows, i.columns), i.row_words, "u1")
            target[...] = numbers
        return maxima
    sums = np.zeros(shape, np.int64)
    argmax = None
    if i.combine == ERRORS_OF_MAXIMA:
        argmax = _plane(chip, i.argmax, 0, channels, i.first_channel_words, size, i.first_row_words, "u1")
    for number, computed, read in _taps(i):
        errors = first[:, *read]
        sums[:, *computed] += errors if argmax is None else np.where(argmax[:, *read] == number, errors, 0)
    return sums


def _maxima(i: Instruction, first: Ints, shape: tuple[int, ...]) -> tuple[Ints, NDArray[np.uint8]]:
    """The maximum of each window, and the number of the first tap that has it; 0 and 0 where no tap is inside."""
    lowest = -(1 << 31)
    maxima, numbers = np.full(shape, lowest, np.int64), np.zeros(shape, np.uint8)
    for number, computed, read in _taps(i):
        found = first[:, *read]
        larger = found > maxima[:, *computed]
        numbers[:, *computed] = np.where(larger, np.uint8(number), numbers[:, *computed])
        maxima[:, *computed] = np.where(larger, found, maxima[:, *computed])
    return np.where(maxima == lowest, 0, maxima), numbers


def _taps(i: Instruction) -> Iterator[tuple[int, tuple[Ints, Ints], tuple[Ints, Ints]]]:
    """Each tap that is inside of the operand for any pixel: its number, and the pixels of result and operand that meet."""
    transposed = bool(i.transposed)
    rows = Axis(i.rows, i.first_rows, i.kernel_rows, i.stride_rows, i.pad_rows, transposed)
    columns = Axis(i.columns, i.first_columns, i.kernel_columns, i.stride_columns, i.pad_columns, transposed)
    of_columns = [columns.meetings(tap) for tap in range(columns.kernel)]
    for u in range(rows.kernel):
        row, row_read = rows.meetings(u)
        for v, (column, column_read) in enumerate(of_columns):
            if len(row) and len(column):
                yield u * columns.kernel + v, (row[:, None], column[None, :]), (row_read[:, None], column_read[None, :])


def _requantised(chip: Chip, i: Instruction, param: dict[str, int], channels: slice, values: Ints) -> Ints:
    """Rectify, gate, measure, round and saturate."""
    if i.rectify:
        values = np.maximum(values, 0)
    if i.masked:
        mask = _plane(chip, i.mask, 0, channels, i.mask_channel_words, (i.rows, i.columns), i.mask_row_words)
        values = np.where(mask > 0, values, 0)
    values[..., i.images :] = 0
    if param["stochastic"]:
        wide = shift_stochastic(values, param["shift"], _random(chip, i, param, channels))
    else:
        wide = shift_nearest(values, param["shift"])
    codes = saturate(wide, i.out_bits)
    codes[..., i.images :] = 0
    if i.measured:
        chip.measure(i.statistics, magnitudes(values), int((codes != wide)[..., : i.images].sum()))
    return codes


def _random(chip: Chip, i: Instruction, param: dict[str, int], channels: slice) -> NDArray[np.uint32]:
    count = channels.stop - channels.start
    first = chip.integers_at(i.element + 4 * channels.start, "<u4", count).astype(np.int64)
    pixel = i.random_pixel + np.arange(i.rows)[:, None] * i.random_row + np.arange(i.columns)
    image = i.random_image + np.arange(chip.machine.lanes)
    elements = first[:, None, None, None] + (pixel * i.random_batch)[None, :, :, None] + image
    return hash32(elements, StreamKey(param["key_low"], param["key_high"]))


def channel_sums(chip: Chip, i: Instruction) -> None:
    """Totals of each channel, and of the products of two maps, over all micro-batches."""
    check_unit(chip)
    if min(i.micro_batches, i.pixels) < 1:
        raise Fault(f"{i.micro_batches} micro-batches of {i.pixels} pixels: at least one each")
    if i.batch_words < (i.channels - 1) * i.channel_words + i.pixels and i.micro_batches > 1:
        raise Fault(f"batch_words is {i.batch_words}: the channels of a micro-batch reach further")
    same, sums = (i.first, i.first_wide) == (i.second, i.second_wide), np.zeros((i.channels, 2), np.int64)
    for number in range(i.micro_batches):
        for channel in range(i.channels):
            word = number * i.batch_words + channel * i.channel_words
            first = _run(chip, i.first, i.first_wide, word, i.pixels)
            sums[channel, 0] += first.sum()
            if i.products:
                second = first if same else _run(chip, i.second, i.second_wide, word, i.pixels)
                sums[channel, 1] += np.dot(first, second)
    if i.products:
        record_fields(chip, i.target, i.channels)[:, :2] = sums
    else:
        chip.integers_at(i.target, "<i4", i.channels)[:] = wrap32(sums[:, 0]).values


def _run(chip: Chip, address: int, wide: int, word: int, words: int) -> Ints:
    kind, lanes = ("<i2" if wide else "i1"), chip.machine.lanes
    size = lanes * np.dtype(kind).itemsize
    return chip.integers_at(address + size * word, kind, words * lanes).astype(np.int64)
