"""LOAD: from memory into parameter memory, input buffers, lane memories and kernel queues."""

import numpy as np

from fixgrad.machine.encoding import Instruction
from fixgrad.machine.instructions import STEP_ENTRY_BYTES
from fixgrad.machine.parameters import TAPS_PER_WORD
from fixgrad.simulate.functional.chip import Chip, Entries
from fixgrad.simulate.functional.fault import Fault

_ALL_PES = 7


def load_params(chip: Chip, i: Instruction) -> None:
    """Entries of the step table."""
    if i.first + i.count > len(chip.params):
        raise Fault(f"step-table entries {i.first} to {i.first + i.count} exceed the {len(chip.params)} of the parameter memory")
    chip.params[i.first : i.first + i.count] = chip.bytes_at(i.source, i.count * STEP_ENTRY_BYTES).reshape(-1, STEP_ENTRY_BYTES)
    chip.loaded_params[i.first : i.first + i.count] = True


def load_input(chip: Chip, i: Instruction) -> None:
    """Channels of a feature map: to each PE its rectangle."""
    word = chip.machine.lanes
    for pe, box in enumerate(chip.rectangles(i, "in")):
        if not box.pixels or not i.channels:
            continue
        end = i.buffer + (i.channels - 1) * i.slot_words + box.pixels
        if end > chip.machine.input_words or box.pixels > i.slot_words:
            raise Fault(f"input words up to {end} exceed the buffer of {chip.machine.input_words}, or a channel its slot")
        source = chip.words_at(
            i.source + word * (box.top * i.row_words + box.left),
            "i1",
            (i.channels, box.rows, box.columns),
            (i.channel_words, i.row_words, 1),
        )
        places = i.buffer + i.slot_words * np.arange(i.channels)[:, None] + np.arange(box.pixels)
        chip.inputs[pe][places] = source.reshape(i.channels, box.pixels, word)
        chip.loaded_inputs[pe][places] = True


def load_error(chip: Chip, i: Instruction) -> None:
    """Errors into the lane memories, each group (and PE of a channel split) its own channels."""
    machine = chip.machine
    for group in range(machine.groups):
        for pe, box in enumerate(chip.rectangles(i, "out")):
            owner = group * machine.pes_per_group + pe if i.channel_split else group
            first = owner * i.channels
            count = min(i.channels, i.total_channels - first)
            if count <= 0 or not box.pixels:
                continue
            end = i.lane_base + (count - 1) * i.slot_words + box.pixels
            if end > machine.lane_words or box.pixels > i.slot_words:
                raise Fault(f"lane words up to {end} exceed the lane memory of {machine.lane_words}, or a channel its slot")
            _check_drained(chip, group, i.lane_base, end)
            source = chip.words_at(
                i.source + machine.lanes * (first * i.channel_words + box.top * i.row_words + box.left),
                "i1",
                (count, box.rows, box.columns),
                (i.channel_words, i.row_words, 1),
            )
            places = i.lane_base + i.slot_words * np.arange(count)[:, None] + np.arange(box.pixels)
            chip.lanes[group, pe][places] = source.reshape(count, box.pixels, machine.lanes)
            chip.loaded_errors[group, pe][places] = True


def _check_drained(chip: Chip, group: int, first: int, last: int) -> None:
    for half in range(chip.lane_half(first), chip.lane_half(last - 1) + 1):
        if chip.undrained[group, half]:
            raise Fault(f"half {half} of the lane memories of group {group} still holds accumulators")


def load_kernels(chip: Chip, i: Instruction) -> None:
    """Entries of a CSB block into the queues of a group."""
    machine = chip.machine
    if i.group >= machine.groups or (i.pe != _ALL_PES and i.pe >= machine.pes_per_group):
        raise Fault(f"group {i.group}, PE {i.pe} does not exist: the machine has {machine.groups} groups of {machine.pes_per_group}")
    index = chip.bytes_at(i.index, 2 * i.count).reshape(-1, 2).astype(np.int64)
    row, column = index[:, 0], index[:, 1]
    out, channel = (column, row) if i.transposed else (row, column)
    weights = None
    if i.with_data:
        weights = chip.bytes_at(i.data, i.count * i.taps).view(np.int8).reshape(i.count, i.taps).copy()
    words = i.count * (-(-i.taps // TAPS_PER_WORD) if i.with_data else 1) + i.last
    item = Entries(out + i.out_base, channel + i.in_base, weights, words, bool(i.last))
    if i.count and (item.out.min() < 0 or item.channel.min() < 0):
        raise Fault("a kernel has a negative coordinate")
    for pe in range(machine.pes_per_group) if i.pe == _ALL_PES else (i.pe,):
        chip.queues[i.group][pe].push(item, machine.kernel_words)
