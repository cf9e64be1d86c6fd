"""What a step did, counted for the energy model: MACs, bits in buffers, DRAM traffic, words post-processed, updates."""

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.packing import Columns
from fixgrad.compiler.program import Program
from fixgrad.machine.energy import StepCounts
from fixgrad.machine.instructions import Unit
from fixgrad.machine.parameters import MAX_PES_PER_GROUP
from fixgrad.simulate.timing.run import Simulation

ACCUMULATOR_BITS, OPERAND_BITS, COORDINATE_BITS = 32, 8, 16
_WG = 2


def step_counts(program: Program, simulation: Simulation) -> StepCounts:
    """Everything that a step did. All lanes count, those without an image too: they toggle."""
    machine, totals = program.machine, [channel.totals for channel in simulation.memory.channels]
    macs = int(program.compute_cycles.sum()) * machine.lanes
    drained = sum(
        drain.words * machine.pes_per_group
        for number in simulation.work.numbers(Unit.POST)
        for step in simulation.work.steps(number)
        for drain in step.drains
    )
    return StepCounts(
        macs=macs,
        buffer_bits=_buffer_bits(program, drained),
        dram_bytes=simulation.memory.bytes,
        dram_row_misses=sum(total.row_misses for total in totals),
        post_ops=drained * machine.lanes,
        elementwise_ops=_elements(program) * machine.lanes,
        update_ops=int(program.columns("UPDATE")["count"].sum()) if len(program.positions["UPDATE"]) else 0,
    )


def _elements(program: Program) -> int:
    """Words of all lanes that went through the elementwise unit."""
    found = 0
    for name, sizes in (("ELEMENTWISE", ("channels", "rows", "columns")), ("CHANNEL_SUMS", ("micro_batches", "channels", "pixels"))):
        if len(program.positions[name]):
            columns = program.columns(name)
            found += int(np.prod([columns[size] for size in sizes], axis=0).sum())
    return found


def _buffer_bits(program: Program, drained: int) -> dict[int, int]:
    """Bits read and written in each kind of buffer, by the bytes of one such buffer.

    An input word is read for every MAC cycle. An accumulator is read and written once for a kernel and pixel; WG reads an
    error for every MAC cycle instead, and a gradient once for a kernel and tap. A kernel is read from its queue once.
    """
    machine, columns = program.machine, program.columns("COMPUTE")
    lanes, counts, cycles = machine.lanes, program.kernel_counts, program.compute_cycles
    is_wg = columns["mode"] == _WG
    pixels = np.stack([_area(columns, pe) for pe in range(machine.pes_per_group)], axis=1)
    visits = (counts * pixels[:, None, :]).sum(axis=(1, 2))
    taps = columns["kernel_rows"] * columns["kernel_columns"]
    kernels = counts.sum(axis=(1, 2))
    per_compute = cycles.sum(axis=(1, 2))
    inputs = int(per_compute.sum()) * OPERAND_BITS * lanes + _loaded_bits(program)
    lane_bits = int(np.where(is_wg, per_compute, 2 * visits).sum()) * ACCUMULATOR_BITS * lanes
    lane_bits += drained * ACCUMULATOR_BITS * lanes
    gradients = int(np.where(is_wg, 2 * kernels * taps, 0).sum()) * ACCUMULATOR_BITS
    queues = int((kernels * np.where(is_wg, COORDINATE_BITS, COORDINATE_BITS + OPERAND_BITS * taps)).sum())
    found: dict[int, int] = {}
    for size, bits in (
        (machine.input_words * lanes, inputs),
        (machine.lane_words * ACCUMULATOR_BITS // 8, lane_bits),
        (machine.gradient_words * ACCUMULATOR_BITS // 8, gradients),
        (machine.kernel_words * (COORDINATE_BITS + 9 * OPERAND_BITS) // 8, 2 * queues),
    ):
        found[size] = found.get(size, 0) + bits
    return found


def _loaded_bits(program: Program) -> int:
    """Bits written into input buffers: every PE of every group gets the words of its rectangle."""
    if not len(program.positions["LOAD_INPUT"]):
        return 0
    columns, machine = program.columns("LOAD_INPUT"), program.machine
    words = sum(_area(columns, pe, "in") for pe in range(machine.pes_per_group)) * columns["channels"]
    return int(np.sum(words)) * machine.groups * machine.lanes * OPERAND_BITS


def _area(columns: Columns, pe: int, prefix: str = "out") -> NDArray[np.int64]:
    assert pe < MAX_PES_PER_GROUP
    rows = columns[f"{prefix}{pe}_bottom"] - columns[f"{prefix}{pe}_top"]
    area: NDArray[np.int64] = rows * (columns[f"{prefix}{pe}_right"] - columns[f"{prefix}{pe}_left"])
    return area
