"""What the lowering of every phase shares: the machine, the stages, the stream, and the state of the chip's resources."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.graph import Graph
from fixgrad.compiler.kernels import END_WORDS, Chunk, Runs, TileKernels, entry_words
from fixgrad.compiler.layout import INDEX_BYTES, REGISTER_BYTES, RegionTable, code_bytes, micro_batches
from fixgrad.compiler.matrix import KernelMatrix
from fixgrad.compiler.register_banks import BANK
from fixgrad.compiler.resources import Halves, InputRing, KernelQueues, MapReady, Waits
from fixgrad.compiler.stages import FeatureMap, Stage
from fixgrad.compiler.stream import InstructionStream, Label, Template
from fixgrad.compiler.tiling import NOTHING, Rectangle, Split
from fixgrad.machine import Machine
from fixgrad.machine.instructions import STEP_ENTRY_BYTES, Unit
from fixgrad.machine.parameters import MAX_PES_PER_GROUP

Ints = NDArray[np.int64]
#: Label of what belongs to no layer.
STEP = Label("", "step")
#: LOAD_KERNELS.pe for all PEs of a group.
ALL_PES = 7


@dataclass(slots=True)
class Context:
    """The state of a lowering."""

    machine: Machine
    batch: int
    graph: Graph
    matrices: Sequence[KernelMatrix]
    layout: RegionTable
    count_padding: bool
    trains: bool
    stream: InstructionStream = field(default_factory=InstructionStream)
    lanes: Halves = field(default_factory=Halves)
    gradients: Halves = field(default_factory=Halves)
    ready: dict[str, MapReady] = field(default_factory=dict)
    _held: list[str] = field(default_factory=list)
    _turns: int = 0
    _params_loaded: int = 0
    _bank: int = 0
    ring: InputRing = field(init=False)
    queues: KernelQueues = field(init=False)

    def __post_init__(self) -> None:
        self.ring = InputRing(self.machine.input_words)
        self.queues = KernelQueues(self.machine.kernel_words)

    @property
    def stages(self) -> Sequence[Stage]:
        return self.graph.stages

    def order(self, item: FeatureMap) -> Ints:
        """The logical channel that each place of an activation or error map holds."""
        return self.layout.orders[self.graph.order_of.get(item.name, item.name)]

    @property
    def micro_batches(self) -> int:
        return micro_batches(self.batch, self.machine.lanes)

    def images(self, micro_batch: int) -> int:
        """Lanes of a micro-batch that hold an image."""
        return min(self.machine.lanes, self.batch - micro_batch * self.machine.lanes)

    def map_address(self, region: str, item: FeatureMap, micro_batch: int, channel: int, bits: int = 8) -> int:
        """First byte of a channel of a feature map."""
        word = self.machine.lanes * code_bytes(bits)
        return self.layout.address(region) + word * (micro_batch * item.words + channel * item.pixels)

    def ready_map(self, region: str, item: FeatureMap) -> MapReady:
        """When the parts of a region's map are written."""
        if region not in self.ready:
            self.ready[region] = MapReady((self.micro_batches, item.channels, item.rows))
        return self.ready[region]

    def register(self, name: str) -> int:
        """The range register of that name, 0 in a forward pass; those of the bank before are stored before a new bank is used."""
        number = self.layout.registers.get(name, 0)
        if number // BANK > self._bank:
            self.store_registers()
            self._bank = number // BANK
        return number % BANK

    def store_registers(self) -> None:
        """Write the registers of the bank in use to memory, when everything so far has been measured, and clear them."""
        count = 1 + max(number % BANK for number in self.layout.registers.values() if number // BANK == self._bank)
        target = self.layout.address("statistics") + REGISTER_BYTES * BANK * self._bank
        waits = Waits(compute=self.stream.issued(Unit.COMPUTE), update=self.updates())
        self.stream.emit("STATISTICS", STEP, 0, waits, {"target": target, "count": count})

    def load_params(self, label: Label) -> None:
        """Fill the parameter memory with the whole step table, if it fits; else entries are loaded one by one."""
        entries = self.layout.entries
        if len(entries) <= self.machine.param_words:
            self._load_params(label, 0, 0, len(entries), Waits())
            self._held = list(entries)

    def use_param(self, name: str, label: Label) -> tuple[int, Waits]:
        """An entry of the step table: its place in the parameter memory, and what must have completed before it is there.

        If it is not held, it takes the place of the one loaded longest ago; all who used that come first.
        """
        if name not in self._held:
            place = self._turns % self.machine.param_words
            self._turns += 1
            self._held += [""] * (place + 1 - len(self._held))
            self._held[place] = name
            used = Waits(post=self.stream.issued(Unit.POST), update=self.updates())
            self._load_params(label, self.layout.entries[name], place, 1, used)
        return self._held.index(name), Waits(load=self._params_loaded)

    def _load_params(self, label: Label, entry: int, place: int, count: int, waits: Waits) -> None:
        source = self.layout.address("step_table") + STEP_ENTRY_BYTES * entry
        fields = {"source": source, "first": place, "count": count}
        self._params_loaded = self.stream.emit("LOAD_PARAMS", label, 0, waits, fields)

    def chunk_queue_words(self, words: int) -> int:
        """Words that a chunk may put into a queue besides its end mark: half of it, so that the next one loads meanwhile."""
        return max(self.machine.kernel_words // 2, words + END_WORDS) - END_WORDS

    def queue_count(self, split: Split) -> int:
        """Kernel queues with contents of their own."""
        return self.machine.groups * split.channels

    def updates(self) -> int:
        """UPDATE instructions of each group so far: all groups have the same number."""
        return self.stream.issued(Unit.UPDATE) // self.machine.groups

    def per_pe(self, counts: Ints) -> Ints:
        """Counts of each queue as counts of each PE, [groups, pes]."""
        machine = self.machine
        by_group = counts.reshape(machine.groups, -1)
        return np.repeat(by_group, machine.pes_per_group // by_group.shape[1], axis=1)


@lru_cache(maxsize=1024)
def rectangle_fields(prefix: str, rectangles: tuple[Rectangle, ...]) -> dict[str, int]:
    """The fields of the four rectangles that LOAD_INPUT, LOAD_ERROR, COMPUTE and POST carry."""
    fields = {}
    for pe in range(MAX_PES_PER_GROUP):
        rows, columns = rectangles[pe] if pe < len(rectangles) else NOTHING
        edges = (("top", rows.first), ("bottom", rows.last), ("left", columns.first), ("right", columns.last))
        fields.update({f"{prefix}{pe}_{side}": value for side, value in edges})
    return fields


@lru_cache(maxsize=1024)
def bounds(rectangles: tuple[Rectangle, ...]) -> Rectangle:
    """The smallest rectangle around all that are not empty."""
    real = [item for item in rectangles if item.pixels]
    if not real:
        return NOTHING
    return Rectangle(
        *(
            type(real[0].rows)(min(item[axis].first for item in real), max(item[axis].last for item in real))
            for axis in (0, 1)
        )
    )


@dataclass(frozen=True, slots=True)
class Work:
    """A chunk, ready to be used: its LOAD_KERNELS, and kernels and queue words of every PE, [groups, pes]."""

    chunk: Chunk
    kernels: Template
    counts: Ints
    words: Ints


def prepare(
    context: Context, stage: Stage, label: Label, tile: TileKernels, split: Split, *, transposed: bool
) -> list[Work]:
    """LOAD_KERNELS for every chunk of a tile; the last one of each queue sets the end mark."""
    with_data = label.phase != "wg"
    runs = _with_idle_queues(tile.runs, len(tile.chunks), context.queue_count(split))
    owner = runs.chunk * context.queue_count(split) + runs.queue
    taps = stage.taps
    index, data = context.layout.address(f"index/{stage.name}"), context.layout.address(f"operand/{stage.name}")
    columns = {
        "taps": np.full(len(owner), taps),
        "with_data": np.full(len(owner), int(with_data)),
        "transposed": np.full(len(owner), int(transposed)),
        "group": runs.queue // split.channels,
        "pe": runs.queue % split.channels if split.channels > 1 else np.full(len(owner), ALL_PES),
        "index": index + INDEX_BYTES * runs.start,
        "data": data + taps * runs.start if with_data else 0 * runs.start,
        "count": runs.entries,
        "out_base": runs.out_base,
        "in_base": runs.in_base,
        "last": np.append(owner[1:] != owner[:-1], True).astype(np.int64),
    }
    parts = np.bincount(runs.chunk, minlength=len(tile.chunks)).tolist()
    templates = context.stream.templates("LOAD_KERNELS", label, stage.index, columns, parts)
    words = entry_words(taps, with_data)
    counts = [context.per_pe(chunk.counts) for chunk in tile.chunks]
    return [
        Work(chunk, template, count, count * words + END_WORDS)
        for chunk, template, count in zip(tile.chunks, templates, counts, strict=True)
    ]


def _with_idle_queues(runs: Runs, chunks: int, queues: int) -> Runs:
    """Runs with one of no entries for every queue of a chunk that has none: it still needs its end mark."""
    busy = np.zeros(chunks * queues, np.bool_)
    busy[runs.chunk * queues + runs.queue] = True
    idle = np.flatnonzero(~busy)
    if not len(idle):
        return runs.sorted()
    none = np.zeros_like(idle)
    return Runs(*map(np.append, runs, (idle // queues, idle % queues, none, none, none, none))).sorted()


def load_kernels(context: Context, work: Work) -> None:
    """Fill the queues with the kernels of a chunk for the next COMPUTE."""
    context.stream.use(work.kernels, context.queues.take(work.words, context.stream.issued(Unit.COMPUTE) + 1))


def after_loads(context: Context) -> Waits:
    """All LOAD instructions so far."""
    return Waits(load=context.stream.issued(Unit.LOAD))
