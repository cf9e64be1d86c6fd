"""What does not fit, and what would make it fit: asked before anything is compiled, and when the search finds nothing.

Every remedy is worked out, not guessed: a machine, a depth, a batch or a density is named only if it meets the demand.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from fixgrad.compiler.axis_cuts import AxisCut, axis_cuts
from fixgrad.compiler.cost import Job
from fixgrad.compiler.graph import Graph
from fixgrad.compiler.infeasible import Infeasible
from fixgrad.compiler.kernels import END_WORDS, entry_words
from fixgrad.compiler.layout import MAP_ALIGNMENT, RegionTable, micro_batches, stored_bytes
from fixgrad.compiler.register_banks import BANK, register_groups
from fixgrad.compiler.search import splits
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.tiling import LayerTiling
from fixgrad.errors import UsageError
from fixgrad.machine import PRESETS, Machine
from fixgrad.machine.encoding import layout as fields_of
from fixgrad.machine.instructions import HEADER, INSTRUCTION_BYTES
from fixgrad.network import BatchNorm, Recipe
from fixgrad.network.normalisation import LARGEST_COUNT

#: First parts of the names of regions that grow with the batch, and of those that grow with the live kernels.
_OF_BATCH = ("activation", "error", "argmax", "labels")
_OF_KERNELS = ("index", "operand", "stored", "momentum", "element")
_LEAST_STORED_BITS = 16


class _Demand(NamedTuple):
    """What the smallest tile of a phase takes of one of the machine's memories.

    Attributes:
        parameter: of the machine, which limits it.
        parts: parts of that memory that take turns, so that a tile has one of them.
        others: remedies beside a deeper memory.
    """

    what: str
    needed: int
    parameter: str
    parts: int
    others: tuple[str, ...] = ()

    def available(self, machine: Machine) -> int:
        size: int = getattr(machine, self.parameter)
        return size // self.parts

    def is_met(self, machine: Machine) -> bool:
        return self.needed <= self.available(machine)


def unfit_phases(jobs: Mapping[str, Job]) -> Iterator[Infeasible]:
    """Why no tiling of a layer fits: the demands of its smallest tile that the machine cannot meet, phase by phase."""
    for phase, job in jobs.items():
        for demand in _least_demands(job):
            if not demand.is_met(job.machine):
                remedies = (*_deeper(job.machine, demand), *demand.others, *_fitting_presets(job))
                yield Infeasible(job.stage.name, phase, demand.what, demand.needed, demand.available(job.machine), remedies)


def _least_demands(job: Job) -> list[_Demand]:
    """Demands of the smallest tile, for the split of the pixels that leaves the fewest unmet."""
    machine, stage = job.machine, job.stage
    pool = stage.pool if job.phase == "ff" else (1, 1)
    found = []
    for split in splits(machine):
        axes = ((stage.rows, split.rows, pool[0]), (stage.columns, split.columns, pool[1]))
        rows, columns = (list(axis_cuts(axis, parts, multiple, job.transposed, False))[-1] for axis, parts, multiple in axes)
        found.append(_demands(job, rows, columns))
    return min(found, key=lambda each: (sum(not one.is_met(machine) for one in each), [one.needed for one in each]))


def _demands(job: Job, rows: AxisCut, columns: AxisCut) -> list[_Demand]:
    is_gradient = job.phase == "wg"
    pixels, held = rows.pixels * columns.pixels, rows.held * columns.held
    window = ("a smaller pooling window",) if job.stage.is_pooled and job.phase == "ff" else ()
    lanes = "words of lane memory for the errors of one channel" if is_gradient else "accumulators in half of a lane memory"
    demands = [
        _Demand(lanes, pixels, "lane_words", 1 if is_gradient else 2, window),
        _Demand("words of input buffer for one channel", held, "input_words", 1, ("a smaller kernel or dilation", *window)),
        _Demand("words of kernel queue for one kernel", job.words + END_WORDS, "kernel_words", 1, ("a smaller kernel",)),
    ]
    if is_gradient:
        demands.append(_Demand("gradients of one kernel", job.stage.taps, "gradient_words", 2, ("a smaller kernel",)))
    return demands


def _deeper(machine: Machine, demand: _Demand) -> tuple[str, ...]:
    """The next power of two that is enough, if a machine may have it."""
    depth: int = getattr(machine, demand.parameter)
    while depth < demand.needed * demand.parts:
        depth *= 2
    try:
        machine.with_changes(**{demand.parameter: depth})
    except UsageError:
        return ()
    return (f"{demand.parameter} of {depth}",)


def _fitting_presets(job: Job) -> tuple[str, ...]:
    """The first preset on which the phase fits."""
    for name, other in _alike(job.machine):
        if all(demand.is_met(other) for demand in _least_demands(replace(job, machine=other))):
            return (f"machine {name}",)
    return ()


def _alike(machine: Machine) -> Iterator[tuple[str, Machine]]:
    """The presets that compute what a machine does: with an elementwise unit if it has one."""
    for name, other in PRESETS.items():
        if other.elementwise_lanes or not machine.elementwise_lanes:
            yield name, other


def least_program_bytes(
    found: Sequence[Stage], kernels: Sequence[int], tilings: Sequence[LayerTiling], machine: Machine, batch: int
) -> int:
    """Bytes of instructions that no program with these tilings does without.

    Every tile of pixels takes all live kernels, and a LOAD_KERNELS brings as many as a queue holds at most.
    """
    count = 0
    for stage, live, tiling in zip(found, kernels, tilings, strict=True):
        for phase, each in (("ff", tiling.ff), ("ng", tiling.ng), ("wg", tiling.wg)):
            if each is not None:
                rows, columns = ((a.in_size if phase == "ng" else a.out_size) for a in (stage.rows, stage.columns))
                tiles = -(-rows // each.rows) * -(-columns // each.columns) * micro_batches(batch, machine.lanes)
                count += tiles * (live // (machine.kernel_words // entry_words(stage.taps, phase != "wg")))
    return INSTRUCTION_BYTES * count


def unfit_memory(
    network: str, table: RegionTable, machine: Machine, batch: int, recipe: Recipe, program: int = 0
) -> Iterator[Infeasible]:
    """Whether the memory image fits the board.

    Args:
        program: bytes that the program is predicted to take beyond what the table holds for it: remedies leave room for them.
    """
    limit = machine.memory.bytes_total
    if table.bytes <= limit:
        return
    largest = max(table.regions.values(), key=lambda region: region.bytes)
    what = f"bytes of memory (the largest region is {largest.name} with {largest.bytes:,})"
    remedies = tuple(_memory_remedies(table, machine, batch, recipe, program))
    yield Infeasible(network, "memory", what, table.bytes, limit, remedies)


def _memory_remedies(table: RegionTable, machine: Machine, batch: int, recipe: Recipe, program: int) -> Iterator[str]:
    """Changes of which each alone brings the image below the limit, all padding between regions counted in full.

    The program is taken to be as long as predicted, and to grow with the micro-batches; on another machine it may be as long
    as all tensors together.
    """
    limit, parts = machine.memory.bytes_total, micro_batches(batch, machine.lanes)
    maps, kernels, stored = (_bytes_of(table, kinds) for kinds in (_OF_BATCH, _OF_KERNELS, ("stored",)))
    written = _bytes_of(table, ("program",)) + program
    whole = table.bytes + MAP_ALIGNMENT * len(table.regions) + program
    rest = whole - maps - written
    most = (limit - rest) // max((maps + written) // parts, 1)
    if 1 <= most < parts:
        yield f"a batch of at most {most * machine.lanes}"
    saved = stored - stored * stored_bytes(_LEAST_STORED_BITS) // stored_bytes(recipe.stored_bits)
    if saved and whole - saved <= limit:
        yield f"{_LEAST_STORED_BITS} stored bits"
    room, room_of_one = limit - (whole - kernels), limit - (rest - kernels) - (maps + written) // parts
    if 0 < room < kernels:
        yield f"keeping at most {_percent_down(room, kernels)} % of the kernels that live now"
    elif 0 < room_of_one < kernels:
        share = _percent_down(room_of_one, kernels)
        yield f"a batch of at most {machine.lanes} and keeping at most {share} % of the kernels that live now"
    yield f"memory.bytes_total of {1 << (whole - 1).bit_length()}"
    for name, other in _alike(machine):
        elsewhere = maps // (parts * machine.lanes) * micro_batches(batch, other.lanes) * other.lanes
        if 2 * (rest + elsewhere) <= other.memory.bytes_total:
            yield f"machine {name}"
            break


def _bytes_of(table: RegionTable, kinds: Sequence[str]) -> int:
    end = total = 0
    for first, last in sorted((item.address, item.end) for item in table.regions.values() if item.name.partition("/")[0] in kinds):
        total, end = total + max(last - max(first, end), 0), max(end, last)
    return total


def _percent_down(part: int, whole: int) -> str:
    """A share with three digits behind the point at most, never rounded up."""
    return f"{part * 100_000 // whole / 1000:g}"


def unfit_program(graph: Graph, batch: int, trains: bool) -> Iterator[Infeasible]:
    """What the fields of the instruction set limit."""
    network, stages = graph.network.name, graph.stages
    post, loss = fields_of("POST"), fields_of("LOSS")
    layers = (1 << next(field.bits for field in HEADER if field.name == "layer")) - 1
    limits = (
        ("layers" if graph.nodes else "layers with weights", len(graph.steps), layers, "fewer layers"),
        ("range registers of a layer", max(map(len, register_groups(graph))) if trains else 0, BANK, "fewer parameters"),
        ("images of a batch", batch, post["random_batch"].high, "a smaller batch"),
        ("classes", stages[-1].layer.out_channels, loss["classes"].high, "fewer classes"),
        ("channels of a map", max(stage.layer.out_channels for stage in stages), post["total_channels"].high, "fewer channels"),
    )
    for what, needed, available, remedy in limits:
        if needed > available:
            yield Infeasible(network, "program", what, needed, available, (f"{remedy}: at most {available:,}",))
    for node in graph.nodes:
        elements = batch * node.target.pixels
        if isinstance(node.layer, BatchNorm) and elements > LARGEST_COUNT:
            remedy = f"a batch of at most {LARGEST_COUNT // node.target.pixels:,}"
            yield Infeasible(node.name, "ff", "elements of a channel to normalise", elements, LARGEST_COUNT, (remedy,))


def unfit_optimiser(network: str, recipe: Recipe) -> Iterator[Infeasible]:
    """Whether the update unit computes the recipe's optimiser: momentum SGD, of which it holds one moment of a weight."""
    if recipe.optimiser.is_adaptive:
        yield Infeasible(network, "update", f"moments of a weight for {recipe.optimiser}", 2, 1, ("momentum SGD (--optimizer sgd)",))


def unfit_waits(network: str, counts: Mapping[str, int]) -> Iterator[Infeasible]:
    """Whether the completions of every unit can be counted."""
    limit = fields_of("HALT")["wait_load"].high
    for unit, count in counts.items():
        if count > limit:
            remedies = ("pruning", "a larger machine", "a smaller batch")
            yield Infeasible(network, "program", f"{unit} instructions", count, limit, remedies)
