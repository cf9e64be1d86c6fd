"""What does not fit, and what would make it fit: asked before anything is compiled, and when the search finds nothing."""

from collections.abc import Iterator, Mapping, Sequence

from fixgrad.compiler.axis_cuts import AxisCut, axis_cuts
from fixgrad.compiler.cost import Job
from fixgrad.compiler.infeasible import Infeasible
from fixgrad.compiler.kernels import END_WORDS
from fixgrad.compiler.layout import RegionTable, entry_names
from fixgrad.compiler.search import splits
from fixgrad.compiler.stages import Stage
from fixgrad.machine import PRESETS, Machine
from fixgrad.machine.encoding import layout as fields_of
from fixgrad.machine.instructions import HEADER

_GROWTH = 2


def unfit_phases(jobs: Mapping[str, Job]) -> Iterator[Infeasible]:
    """Why no tiling of a layer fits: the demands of its smallest tile that the machine cannot meet, phase by phase."""
    for phase, job in jobs.items():
        yield from _unfit(phase, job)


def _unfit(phase: str, job: Job) -> Iterator[Infeasible]:
    machine, name, taps = job.machine, job.stage.name, job.stage.taps
    rows, columns = _smallest(job)
    pixels, held = rows.pixels * columns.pixels, rows.held * columns.held
    lanes = machine.lane_words if phase == "wg" else machine.half_lane_words
    what = "words of lane memory for the errors of one channel" if phase == "wg" else "accumulators in half of a lane memory"
    window = ("a smaller pooling window",) if job.stage.is_pooled and phase == "ff" else ()
    if pixels > lanes:
        deeper = f"lane_words of {_enough(machine.lane_words, pixels * machine.lane_words // lanes)}"
        yield Infeasible(name, phase, what, pixels, lanes, (deeper, *window, *_presets(machine, "lane_words", pixels * 2)))
    if held > machine.input_words:
        deeper = f"input_words of {_enough(machine.input_words, held)}"
        others = ("a smaller kernel or dilation", *window, *_presets(machine, "input_words", held))
        yield Infeasible(name, phase, "words of input buffer for one channel", held, machine.input_words, (deeper, *others))
    queue = job.words + END_WORDS
    if queue > machine.kernel_words:
        deeper = f"kernel_words of {_enough(machine.kernel_words, queue)}"
        yield Infeasible(name, phase, "words of kernel queue for one kernel", queue, machine.kernel_words, (deeper,))
    if phase == "wg" and taps > machine.half_gradient_words:
        deeper = f"gradient_words of {_enough(machine.gradient_words, 2 * taps)}"
        others = ("a smaller kernel", *_presets(machine, "gradient_words", 2 * taps))
        yield Infeasible(name, phase, "gradients of one kernel", taps, machine.half_gradient_words, (deeper, *others))


def _smallest(job: Job) -> tuple[AxisCut, AxisCut]:
    """The cuts into the smallest tiles, for the split that asks for the fewest input words."""
    stage, pool = job.stage, job.stage.pool if job.phase == "ff" else (1, 1)
    found = []
    for split in splits(job.machine):
        axes = ((stage.rows, split.rows, pool[0]), (stage.columns, split.columns, pool[1]))
        cuts = [list(axis_cuts(axis, parts, multiple, job.transposed, False))[-1] for axis, parts, multiple in axes]
        found.append((cuts[0], cuts[1]))
    return min(found, key=lambda pair: (pair[0].held * pair[1].held, pair[0].pixels * pair[1].pixels))


def _enough(have: int, need: int) -> int:
    """The next power of two, from what there is."""
    while have < need:
        have *= _GROWTH
    return have


def _presets(machine: Machine, parameter: str, need: int) -> tuple[str, ...]:
    """A preset that has enough, if one does."""
    names = [name for name, other in PRESETS.items() if getattr(other, parameter) >= need and name != machine.name]
    return (f"machine {names[0]}",) if names else ()


def unfit_memory(network: str, table: RegionTable, machine: Machine) -> Iterator[Infeasible]:
    """Whether the memory image fits the board."""
    if table.bytes > machine.memory.bytes_total:
        largest = max(table.regions.values(), key=lambda region: region.bytes)
        remedies = ["a smaller batch", "pruning", "fewer stored bits"]
        bigger = [name for name, other in PRESETS.items() if other.memory.bytes_total >= table.bytes]
        remedies += [f"machine {bigger[0]}"] if bigger else []
        what = f"bytes of memory (the largest region is {largest.name} with {largest.bytes:,})"
        yield Infeasible(network, "memory", what, table.bytes, machine.memory.bytes_total, tuple(remedies))


def unfit_program(network: str, stages: Sequence[Stage], batch: int, trains: bool) -> Iterator[Infeasible]:
    """What the fields of the instruction set limit."""
    names = len(entry_names(stages, trains))
    post, loss = fields_of("POST"), fields_of("LOSS")
    layers = (1 << next(field.bits for field in HEADER if field.name == "layer")) - 1
    limits = (
        ("layers with weights", len(stages), layers, "fewer layers"),
        ("range registers", names if trains else 0, post["statistics"].high + 1, "fewer layers"),
        ("images of a batch", batch, post["random_batch"].high, "a smaller batch"),
        ("classes", stages[-1].layer.out_channels, loss["classes"].high, "fewer classes"),
        ("channels of a map", max(stage.layer.out_channels for stage in stages), post["total_channels"].high, "fewer channels"),
    )
    for what, needed, available, remedy in limits:
        if needed > available:
            yield Infeasible(network, "program", what, needed, available, (remedy,))


def unfit_waits(network: str, counts: Mapping[str, int]) -> Iterator[Infeasible]:
    """Whether the completions of every unit can be counted."""
    limit = fields_of("HALT")["wait_load"].high
    for unit, count in counts.items():
        if count > limit:
            remedies = ("pruning", "a larger machine", "a smaller batch")
            yield Infeasible(network, "program", f"{unit} instructions", count, limit, remedies)
