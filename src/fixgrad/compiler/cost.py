"""The cost model of the search: cycles of a phase of one layer, as a function of its tiling.

A phase takes the longest of what its units are busy: the PEs (with the imbalance that the rings do not hide), LOAD, POST,
UPDATE and memory; and before and behind that a fill and a tail. Everything is worked out for arrays of tilings at once.

Imbalance: groups run at their own pace within the ring of chunks. The kernels that a group has before it after part of a tile
stray from the mean like a random bridge (the whole tile is balanced), by sigma = sqrt(kernels (1 - density)) / 2 half way, and
the extremes of some groups lie `_range` sigmas apart. What exceeds the ring is waited for. The PEs of a group keep step:
in a channel split every COMPUTE takes as long as the fullest of their queues, `_highest` sigmas above the mean.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.axis_cuts import AxisCut, all_taps
from fixgrad.compiler.kernels import END_WORDS, entry_words
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.tiling import Split
from fixgrad.machine import Machine
from fixgrad.machine.gradient_port import gradient_holds
from fixgrad.machine.instructions import INSTRUCTION_BYTES

Values = NDArray[np.float64]
#: Kernels by which the groups of a tile differ even when they are balanced.
RESIDUE = 0.2
#: Largest distance of the extremes on the way, in terms of that half way.
WANDER = 1.5
#: Bytes of bus time that an instruction's transfers lose at their ends: partial bursts and rows opened for them.
ROUNDING_BYTES = 256
#: Cycles of LOAD for an instruction however short: requests in flight over memory's latency.
LOAD_CYCLES = 8
#: Cycles of UPDATE for an instruction beyond its parameters.
UPDATE_CYCLES = 50
#: Cycles that an instruction costs besides: it is fetched and decoded.
FETCH_CYCLES = 1
#: What it costs more in a long step: 1 cycle for so many cycles of MACs in the step. An instruction also takes memory and the
#: time of whoever writes, loads and simulates the program; a step of 10^6 cycles has too few of them for that to matter, while
#: one of 10^9 is better a percent longer than its program twice as long.
STEP_CYCLES = 10**8
#: Share of a unit's time that it costs although another one is busier: they share memory and meet at every wait.
FRICTION = 0.03
#: Cycles from a completed instruction to the first result of the one that waited for it: dispatch, memory, pipeline.
LATENCY = 150
#: Share of the ports' rate that memory sustains.
MEMORY_SHARE = 0.85


@dataclass(frozen=True, slots=True)
class Job:
    """One phase of one layer for the cost model.

    Attributes:
        stage, machine: of what, on what.
        phase: ``ff``, ``ng`` or ``wg``.
        outputs, inputs: channels computed and read (WG: rows and columns of the matrix).
        kernels: live ones.
        micro_batches: passes over everything but the weights.
        count_padding: whether taps in the padding take a cycle.
        stored: bytes of an element in UPDATE, read and written.
        pipelined: whether the next phase waits for this one's last result.
        instruction_cycles: what an instruction costs besides the time that its unit takes.
    """

    stage: Stage
    machine: Machine
    phase: str
    outputs: int
    inputs: int
    kernels: int
    micro_batches: int
    count_padding: bool
    stored: int
    pipelined: bool
    instruction_cycles: float = FETCH_CYCLES

    @property
    def transposed(self) -> bool:
        return self.phase == "ng"

    @property
    def density(self) -> float:
        return self.kernels / max(self.outputs * self.inputs, 1)

    @property
    def words(self) -> int:
        """Queue words of a kernel."""
        return entry_words(self.stage.taps, self.phase != "wg")

    @property
    def mac_cycles(self) -> float:
        """Cycles with every PE busy in every cycle: no schedule takes fewer."""
        taps = all_taps(self.stage.rows, self.transposed, self.count_padding)
        taps *= all_taps(self.stage.columns, self.transposed, self.count_padding)
        return self.micro_batches * self.kernels * taps / self.machine.pes

    @property
    def least_bytes(self) -> int:
        """Bytes of the phase with every tensor moved once, whole words of all lanes."""
        stage, lanes = self.stage, self.machine.lanes * self.micro_batches
        source, error = stage.source.words * lanes, stage.error.words * lanes
        weights = self.kernels * (2 + stage.taps)
        if self.phase == "ff":
            return source + stage.target.words * lanes + weights
        if self.phase == "ng":
            return error + source + weights
        return error + source + self.kernels * (2 + stage.taps * self.stored)

    @property
    def bytes_per_cycle(self) -> float:
        """What memory sustains."""
        return self.machine.memory.channels * self.machine.memory.port_bytes * MEMORY_SHARE

    @property
    def lower_bound(self) -> float:
        """Cycles that no tiling beats: the larger of the MAC bound and the communication bound."""
        return max(self.mac_cycles, self.least_bytes / self.bytes_per_cycle)


class Grid(NamedTuple):
    """Tilings that differ in channels, chunk, whether inputs stay, and height of CSB blocks; arrays that broadcast together."""

    channels: NDArray[np.int64]
    chunk: NDArray[np.int64]
    resident: NDArray[np.bool_]
    block: NDArray[np.int64]


class Cost(NamedTuple):
    """Cycles (infinite where it does not fit) and bytes of each tiling of a grid."""

    cycles: Values
    bytes: Values


def map_cost(job: Job, split: Split, rows: AxisCut, columns: AxisCut, grid: Grid) -> Cost:
    """FF and NG: cost of a split into rectangles for every tiling of `grid`."""
    machine, shape = job.machine, _Shape(job, split, rows, columns, grid)
    pixels = rows.pixels * columns.pixels
    held = rows.held * columns.held
    places = _places(machine, grid, held, shape.chunk_kernels * job.words + END_WORDS)
    loads = np.where(grid.resident, 1, shape.channel_tiles)
    words = loads * job.micro_batches * rows.reads * columns.reads * job.inputs
    runs = (grid.channels if job.phase == "ff" else grid.chunk) / grid.block
    instructions = shape.computes * (2 + shape.queues * np.maximum(runs, 1))
    entries = job.micro_batches * shape.tiles * job.kernels
    load = words / machine.load_words + entries * job.words + LOAD_CYCLES * instructions
    drained = job.micro_batches * job.outputs * _area(job)
    post = np.asarray(drained / machine.post_processors + LATENCY * shape.channel_tiles, np.float64)
    moved = words * machine.lanes + entries * (2 + job.stage.taps) + _stored_bytes(job) + instructions * (
        INSTRUCTION_BYTES + ROUNDING_BYTES
    )
    tail = np.minimum(drained, shape.queues * grid.channels * pixels * shape.pes_per_queue) / machine.post_processors
    last = np.where(shape.passes > 1, LATENCY, tail + LATENCY) if job.pipelined else 0
    compute = shape.compute + shape.imbalance(places) + drained / machine.pes
    busy = _busy(compute, load, post, moved / job.bytes_per_cycle)
    serial = np.where(places < 2, np.minimum(load, compute), 0)
    fits = (pixels * grid.channels <= machine.half_lane_words) & (places >= 1) & _stays(job, grid, held)
    fits = fits & _whole_blocks(job, grid) & (grid.block * job.words + END_WORDS <= machine.kernel_words)
    fill = LATENCY + load / np.maximum(shape.computes, 1) + job.instruction_cycles * instructions
    return _cost(fits, busy + serial + fill + last, moved)


def gradient_cost(job: Job, split: Split, rows: AxisCut, columns: AxisCut, grid: Grid) -> Cost:
    """WG and UPDATE: likewise."""
    machine, shape = job.machine, _Shape(job, split, rows, columns, grid)
    taps, pixels, held = job.stage.taps, rows.pixels * columns.pixels, rows.held * columns.held
    places = _places(machine, grid, held, shape.chunk_kernels + END_WORDS)
    capacity = machine.half_gradient_words // taps
    # A tile of kernels holds whole columns, and its chunks do.
    columns_held = np.maximum(_whole(capacity / np.maximum(grid.channels * job.density, 1e-9), job.density), 1)
    column_tiles = np.ceil(job.inputs / columns_held)
    chunks = column_tiles * np.ceil(np.minimum(columns_held, job.inputs) / shape.columns)
    single = shape.tiles == 1 and job.micro_batches == 1
    error_passes = 1 if single else column_tiles
    errors = error_passes * job.micro_batches * job.outputs * _area(job)
    inputs = np.where(grid.resident, 1, shape.channel_tiles) * job.micro_batches * rows.reads * columns.reads * job.inputs
    computes = np.maximum(shape.computes, shape.passes * chunks)
    entries = job.micro_batches * shape.tiles * job.kernels
    runs = np.maximum(grid.channels / grid.block, 1)
    loads = computes * (2 + shape.queues * runs)
    load = (errors + inputs) / machine.load_words + entries + LOAD_CYCLES * loads
    # Runs of one block row follow one another from chunk to chunk; those of several are updated one by one.
    tiles = shape.channel_tiles * column_tiles
    apart = np.where(runs > 1, np.maximum(computes / (tiles * max(shape.tiles * job.micro_batches, 1)), 1) * runs, 1)
    updates = tiles * shape.queues * apart
    keep_step = split.channels > 1 or job.count_padding
    holds = gradient_holds(_tap(job, rows, columns), np.array(1 if keep_step else machine.pes_per_group))
    parameters = job.kernels * taps
    update = parameters * (1 + holds.update) / machine.update_lanes + updates / machine.update_lanes * UPDATE_CYCLES
    instructions = loads + 2 * updates
    moved = (errors + inputs) * machine.lanes + entries * 2 + job.kernels * (taps * job.stored + 4)
    moved = moved + instructions * (INSTRUCTION_BYTES + ROUNDING_BYTES)
    compute = shape.compute + shape.imbalance(np.minimum(places, 1 + capacity / np.maximum(shape.chunk_kernels, 1)))
    compute = compute + parameters * holds.compute / (machine.groups * split.channels)
    busy = _busy(compute, load, update, moved / job.bytes_per_cycle)
    whole = pixels * grid.channels > machine.half_lane_words
    serial = np.where(places < 2, np.minimum(load, compute), 0) + np.where(whole, errors / machine.load_words, 0)
    fits = (pixels * grid.channels <= machine.lane_words) & (places >= 1) & (grid.channels * taps <= machine.half_gradient_words)
    fits = fits & _whole_blocks(job, grid) & _stays(job, grid, held) & (single | ~grid.resident)
    return _cost(fits, busy + serial + LATENCY + job.instruction_cycles * instructions, moved)


def _tap(job: Job, rows: AxisCut, columns: AxisCut) -> Values:
    """Steps of a tap of a kernel in the mean of those that reach into the map."""
    axes = (job.stage.rows.kernel, rows), (job.stage.columns.kernel, columns)
    return np.array(np.prod([cut.taps / max(cut.tiles * min(kernel, cut.held), 1) for kernel, cut in axes]))


def _busy(*units: Values) -> Values:
    """The longest of the units' times, and a little of the others'."""
    times = np.broadcast_arrays(*units)
    longest: Values = np.maximum.reduce(times)
    total: Values = longest * (1 - FRICTION) + FRICTION * np.add.reduce(times)
    return total


def _cost(fits: NDArray[np.bool_], cycles: Values, moved: Values) -> Cost:
    return Cost(*np.broadcast_arrays(np.where(fits, cycles, np.inf), moved))


def _whole_blocks(job: Job, grid: Grid) -> NDArray[np.bool_]:
    """Whether whole CSB blocks make up what is cut along rows: the outputs of FF and WG, the inputs of NG."""
    if job.phase == "ng":
        chunks: NDArray[np.bool_] = (grid.chunk % grid.block == 0) | (grid.chunk >= job.inputs)
        return chunks
    channels: NDArray[np.bool_] = grid.channels % grid.block == 0
    return channels


def _stays(job: Job, grid: Grid, held: int) -> NDArray[np.bool_]:
    """Whether inputs that are to stay find room."""
    return ~grid.resident | (job.inputs * held <= job.machine.input_words)


def least_cycles(job: Job, split: Split, rows: AxisCut, columns: AxisCut) -> float:
    """Cycles that no tiling with this split of the pixels is below: the parts of the costs above that depend on it alone."""
    machine, queues = job.machine, job.machine.groups * split.channels
    tiles, held = rows.tiles * columns.tiles * job.micro_batches, rows.held * columns.held
    computes = tiles * -(-job.inputs // max(machine.input_words // max(held, 1), 1))
    instructions = computes * (2 + queues)
    drained = 0 if job.phase == "wg" else job.micro_batches * job.outputs * _area(job)
    busy = rows.taps * columns.taps * job.micro_batches * (job.kernels / queues + RESIDUE) + computes + drained / machine.pes
    words = rows.reads * columns.reads * job.inputs * job.micro_batches
    load = words / machine.load_words + tiles * job.kernels * job.words + LOAD_CYCLES * instructions
    others = load + drained / machine.post_processors + words * machine.lanes / job.bytes_per_cycle
    return (1 - FRICTION) * max(busy, load) + FRICTION * (busy + others) + job.instruction_cycles * instructions


class _Shape:
    """Counts that both kinds of phase share."""

    def __init__(self, job: Job, split: Split, rows: AxisCut, columns: AxisCut, grid: Grid) -> None:
        machine = job.machine
        self.queues = machine.groups * split.channels
        self.pes_per_queue = machine.pes_per_group // split.channels
        self.pes_apart = split.channels
        self.tiles = rows.tiles * columns.tiles
        self.channel_tiles = -(-job.outputs // (self.queues * grid.channels))
        self.passes = self.channel_tiles * self.tiles * job.micro_batches
        # A chunk ends where its channels do, or where half of a queue is full.
        per_channel = np.minimum(grid.channels, job.outputs) * job.density
        full = max((machine.kernel_words // 2 - END_WORDS) // job.words, 1)
        self.chunk_kernels = np.ceil(np.minimum(per_channel * grid.chunk, np.maximum(full, per_channel)))
        step = grid.block if job.phase == "ng" else 1
        fitting = _whole(full / np.maximum(per_channel, 1e-9) / step, job.density) * step
        self.columns = np.minimum(fitting, grid.chunk)
        self.computes = self.passes * np.ceil(job.inputs / self.columns)
        # The busiest group takes `channels` of each tile, or what is left for the first group of the last one.
        rest = job.outputs - (self.channel_tiles - 1) * self.queues * grid.channels
        depth = (self.channel_tiles - 1) * grid.channels + np.minimum(grid.channels, rest)
        self._taps = rows.taps * columns.taps * job.micro_batches
        self._pass_taps = self._taps / max(self.tiles * job.micro_batches, 1)
        self.compute = self._taps * (depth * job.inputs * job.density + RESIDUE * self.channel_tiles) + self.computes
        self._job, self._grid = job, grid

    def imbalance(self, places: Values) -> Values:
        """Cycles in which the slowest group is waited for although the ring lets the others run ahead."""
        job, density = self._job, self._job.density
        kernels = self._grid.channels * job.inputs * density
        spread = WANDER * _range(job.machine.groups) * np.sqrt(kernels * self.pes_apart * (1 - density)) / 2
        slack = np.maximum(places - 1, 0) * self.chunk_kernels
        excess: Values = self.passes * np.maximum(spread - slack, 0) * self._pass_taps
        if self.pes_apart > 1:
            sigma = np.sqrt(self.chunk_kernels * (1 - density))
            excess = excess + self.computes * _highest(self.pes_apart) * sigma * self._pass_taps
        return excess


def instruction_cycles(step_cycles: float) -> float:
    """What an instruction costs in a step whose MACs take `step_cycles`."""
    return FETCH_CYCLES + step_cycles / STEP_CYCLES


def _whole(parts: Values, density: float) -> Values:
    """How many whole parts a chunk holds that has room for `parts`: exact where all are alike, half a part fewer where not.

    Where not even one fits, it is halved until it does.
    """
    several = density * np.floor(parts) + (1 - density) * (parts - 0.5)
    halved = 0.5 ** np.ceil(-np.log2(np.minimum(parts, 1)))
    mean: Values = np.where(parts < 1, halved, np.maximum(several, 1))
    return mean


def _highest(count: int) -> float:
    """Mean of the largest of 1 to 64 normal values, in standard deviations (Tippett 1925; within .03)."""
    return float(np.interp(np.log2(count), range(7), (0, 0.564, 1.029, 1.424, 1.766, 2.070, 2.343)))


def _range(count: int) -> float:
    """Mean distance of the extremes of normal values, in standard deviations."""
    return 2 * _highest(count)


def _places(machine: Machine, grid: Grid, held: int, entries: Any) -> Values:
    """Chunks that the input buffers and the queues hold at once; inputs that stay do not limit them."""
    ring = np.where(grid.resident, machine.kernel_words, machine.input_words // np.maximum(grid.chunk * held, 1))
    places: Values = np.minimum(ring, machine.kernel_words // np.maximum(entries, 1)).astype(np.float64)
    return places


def _area(job: Job) -> int:
    """Computed pixels of a channel."""
    stage = job.stage
    return stage.rows.in_size * stage.columns.in_size if job.phase == "ng" else stage.out_pixels


def _stored_bytes(job: Job) -> int:
    """Bytes that POST reads and writes."""
    stage, lanes = job.stage, job.machine.lanes * job.micro_batches
    if job.phase == "ff":
        return stage.target.words * lanes * (2 if stage.is_pooled else 1)
    return stage.source.words * lanes * (2 if stage.masked else 1)
