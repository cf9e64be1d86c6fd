"""COMPUTE: kernels from the queues, over pixels and taps, into accumulators (FF, NG) or gradients (WG)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine.encoding import Instruction
from fixgrad.simulate.functional.chip import Chip, Entries, Rectangle
from fixgrad.simulate.functional.fault import Fault
from fixgrad.simulate.functional.geometry import Convolution, pixel_lists, tap_lists

Ints = NDArray[np.int64]
_NG, _WG = 1, 2


class Jobs(NamedTuple):
    """The kernels of some groups: job j is PE `pes[j]` of group `groups[j]`, with kernels [first[j], last[j])."""

    groups: Ints
    pes: Ints
    first: Ints
    last: Ints
    out: Ints
    channel: Ints
    weights: NDArray[np.int8]


def compute(chip: Chip, i: Instruction, groups: Sequence[int]) -> None:
    """Run a COMPUTE in `groups`."""
    jobs = _take(chip, i, groups)
    computed, held = chip.rectangles(i, "out"), chip.rectangles(i, "in")
    _check_extents(chip, i, jobs, computed, held)
    _check_loaded(chip, i, jobs, computed, held)
    convolution = Convolution(
        (i.kernel_rows, i.kernel_columns),
        (i.stride_rows, i.stride_columns),
        (i.pad_rows, i.pad_columns),
        (i.dilation_rows, i.dilation_columns),
        (i.in_rows, i.in_columns),
        i.mode == _NG,
    )
    run = _gradients if i.mode == _WG else _accumulators
    if run(chip, i, jobs, convolution, computed, held):
        chip.measure(i.statistics, 0, overflow=True)


def _take(chip: Chip, i: Instruction, groups: Sequence[int]) -> Jobs:
    """Everything up to the end marks of the queues of `groups`."""
    taps = i.kernel_rows * i.kernel_columns
    pieces: list[Entries] = []
    bounds, total = [], 0
    for group in groups:
        shared: list[Entries] = []
        for number, queue in enumerate(chip.queues[group]):
            taken = queue.take()
            if number == 0 or not _same(taken, shared):
                shared, first = taken, total
                pieces += taken
                total += sum(len(item.out) for item in taken)
            bounds.append((group, number, first, total))
    if i.mode != _WG and any(item.weights is None or item.weights.shape[1] != taps for item in pieces if len(item.out)):
        raise Fault(f"a kernel in the queue has not the {taps} weights that COMPUTE takes")
    none = np.zeros((0, taps), np.int8)
    given = [none, *(item.weights for item in pieces if item.weights is not None and i.mode != _WG and len(item.out))]
    places, queues, first, last = np.array(bounds, np.int64).T
    return Jobs(
        places,
        queues,
        first,
        last,
        out=np.concatenate([item.out for item in pieces]),
        channel=np.concatenate([item.channel for item in pieces]),
        weights=np.concatenate(given),
    )


def _same(a: list[Entries], b: list[Entries]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _check_extents(chip: Chip, i: Instruction, jobs: Jobs, computed: Sequence[Rectangle], held: Sequence[Rectangle]) -> None:
    if not len(jobs.out):
        return
    limits = (
        ("lane memory", chip.machine.lane_words, i.lane_base, i.lane_slot_words, jobs.out, computed),
        ("input buffer", chip.machine.input_words, i.buffer, i.slot_words, jobs.channel, held),
    )
    for name, size, base, slot, places, rectangles in limits:
        pixels = max(item.pixels for item in rectangles)
        end = base + int(places.max()) * slot + pixels
        if end > size or pixels > slot:
            raise Fault(f"words up to {end} exceed the {name} of {size}, or {pixels} pixels a slot of {slot}")


def _check_loaded(chip: Chip, i: Instruction, jobs: Jobs, computed: Sequence[Rectangle], held: Sequence[Rectangle]) -> None:
    """Whether the inputs, and in WG the errors, of every kernel have been loaded; a LOAD fills a channel's rectangle whole."""
    pixels, inputs = (np.array([box.pixels for box in boxes]) for boxes in (computed, held))
    busy = (pixels > 0)[jobs.pes]
    counts = (jobs.last - jobs.first)[busy]
    group, pe = np.repeat(jobs.groups[busy], counts), np.repeat(jobs.pes[busy], counts)
    kernel = np.arange(len(pe)) + np.repeat(jobs.first[busy] - (np.cumsum(counts) - counts), counts)
    word = i.buffer + jobs.channel[kernel] * i.slot_words
    known = chip.loaded_inputs[pe, word] & chip.loaded_inputs[pe, word + inputs[pe] - 1]
    if not (known | (inputs[pe] == 0)).all():
        channel = jobs.channel[kernel[~known]][0]
        raise Fault(f"input channel {channel} at word {i.buffer + channel * i.slot_words} of the input buffer was never loaded")
    if i.mode == _WG:
        word = i.lane_base + jobs.out[kernel] * i.lane_slot_words
        known = chip.loaded_errors[group, pe, word] & chip.loaded_errors[group, pe, word + pixels[pe] - 1]
        if not known.all():
            raise Fault(f"the errors at word {word[~known][0]} of the lane memories of group {group[~known][0]} were never loaded")


def _accumulators(
    chip: Chip, i: Instruction, jobs: Jobs, convolution: Convolution, computed: tuple[Rectangle, ...], held: tuple[Rectangle, ...]
) -> bool:
    from fixgrad.simulate.functional.inner_loops import accumulate  # Numba takes its time to load

    machine, half = chip.machine, chip.lane_half(i.lane_base)
    groups = np.unique(jobs.groups)
    if i.clear:
        if chip.undrained[groups, half].any():
            raise Fault(f"half {half} of the lane memories still holds accumulators that were not drained")
        size = machine.half_lane_words
        chip.lanes[groups, :, half * size : (half + 1) * size] = 0
        chip.loaded_errors[groups, :, half * size : (half + 1) * size] = False
    elif not chip.undrained[groups, half].all():
        raise Fault(f"half {half} of the lane memories was not cleared: no COMPUTE has begun to accumulate there")
    chip.undrained[groups, half] = True
    lists = pixel_lists(convolution, computed, held)
    wrapped = accumulate(machine.lanes)(
        chip.lanes.reshape(-1),
        (jobs.groups * machine.pes_per_group + jobs.pes) * machine.lane_words + i.lane_base,
        jobs.pes,
        jobs.first,
        jobs.last,
        jobs.out * i.lane_slot_words,
        i.buffer + jobs.channel * i.slot_words,
        jobs.weights,
        chip.inputs.reshape(-1),
        machine.input_words,
        *lists,
    )
    return bool(wrapped)


def _gradients(
    chip: Chip, i: Instruction, jobs: Jobs, convolution: Convolution, computed: tuple[Rectangle, ...], held: tuple[Rectangle, ...]
) -> bool:
    from fixgrad.simulate.functional.inner_loops import correlate  # Numba takes its time to load

    machine, taps = chip.machine, convolution.kernel[0] * convolution.kernel[1]
    groups = np.unique(jobs.groups)
    if i.clear:
        _clear_gradients(chip, i.gradient_base, groups)
    if not i.number_on:
        chip.numbered[groups] = 0
    bases = i.gradient_base + chip.numbered[jobs.groups, jobs.pes] * taps
    ends = bases + (jobs.last - jobs.first) * taps
    if ends.max() > machine.gradient_words:
        raise Fault(f"gradients up to {ends.max()} exceed the gradient memory of {machine.gradient_words}")
    chip.numbered[jobs.groups, jobs.pes] += jobs.last - jobs.first
    for group, pe, base, end in zip(jobs.groups, jobs.pes, bases, ends, strict=True):
        chip.unused[group, pe, base:end] = True
    owners = jobs.groups * machine.pes_per_group + jobs.pes
    wrapped = correlate(machine.lanes)(
        chip.gradients.reshape(-1),
        owners * machine.gradient_words + bases,
        chip.lanes.reshape(-1),
        owners * machine.lane_words + i.lane_base,
        jobs.pes,
        jobs.first,
        jobs.last,
        jobs.out * i.lane_slot_words,
        i.buffer + jobs.channel * i.slot_words,
        chip.inputs.reshape(-1),
        machine.input_words,
        *tap_lists(convolution, computed, held),
    )
    return bool(wrapped)


def _clear_gradients(chip: Chip, base: int, groups: Ints) -> None:
    size = chip.machine.half_gradient_words
    half = int(base >= size)
    span = slice(half * size, (half + 1) * size)
    if chip.unused[groups, :, span].any():
        raise Fault(f"half {half} of the gradient memories still holds gradients that no UPDATE has taken")
    chip.gradients[groups, :, span] = 0
