"""What the lowering of every phase shares: the machine, the stages, the stream, and the state of the chip's resources."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.kernels import END_WORDS, Chunk, KernelLoad, entry_words
from fixgrad.compiler.layout import INDEX_BYTES, RegionTable, code_bytes, micro_batches
from fixgrad.compiler.matrix import KernelMatrix
from fixgrad.compiler.resources import Halves, InputRing, KernelQueues, MapReady, Waits
from fixgrad.compiler.stages import FeatureMap, Stage
from fixgrad.compiler.stream import InstructionStream, Label
from fixgrad.compiler.tiling import NOTHING, Rectangle, Split
from fixgrad.machine import Machine
from fixgrad.machine.instructions import STEP_ENTRY_BYTES, Unit
from fixgrad.machine.parameters import MAX_PES_PER_GROUP

Ints = NDArray[np.int64]
#: LOAD_KERNELS.pe for all PEs of a group.
ALL_PES = 7


@dataclass(slots=True)
class Context:
    """The state of a lowering."""

    machine: Machine
    batch: int
    stages: Sequence[Stage]
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
    ring: InputRing = field(init=False)
    queues: KernelQueues = field(init=False)

    def __post_init__(self) -> None:
        self.ring = InputRing(self.machine.input_words)
        self.queues = KernelQueues(self.machine.kernel_words)

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

    def queue_words(self, counts: Ints, words: int) -> Ints:
        """Words that a chunk puts into each PE's queue, [groups, pes]."""
        return self.per_pe(counts) * words + END_WORDS

    def updates(self) -> int:
        """UPDATE instructions of each group so far: all groups have the same number."""
        return self.stream.issued(Unit.UPDATE) // self.machine.groups

    def per_pe(self, counts: Ints) -> Ints:
        """Counts of each queue as counts of each PE, [groups, pes]."""
        machine = self.machine
        by_group = counts.reshape(machine.groups, -1)
        return np.repeat(by_group, machine.pes_per_group // by_group.shape[1], axis=1)


def rectangle_fields(prefix: str, rectangles: Sequence[Rectangle]) -> dict[str, int]:
    """The fields of the four rectangles that LOAD_INPUT, LOAD_ERROR, COMPUTE and POST carry."""
    fields = {}
    for pe in range(MAX_PES_PER_GROUP):
        rows, columns = rectangles[pe] if pe < len(rectangles) else NOTHING
        edges = (("top", rows.first), ("bottom", rows.last), ("left", columns.first), ("right", columns.last))
        fields.update({f"{prefix}{pe}_{side}": value for side, value in edges})
    return fields


def bounds(rectangles: Sequence[Rectangle]) -> Rectangle:
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


def load_kernels(context: Context, stage: Stage, label: Label, chunk: Chunk, split: Split, *, transposed: bool) -> None:
    """LOAD_KERNELS for every queue of a chunk; the last of each queue sets the end mark."""
    with_data = label.phase != "wg"
    words = entry_words(stage.taps, with_data)
    compute = context.stream.issued(Unit.COMPUTE) + 1
    waits = context.queues.take(context.queue_words(chunk.counts, words), compute)
    last = {load.queue: position for position, load in enumerate(chunk.loads)}
    common = {"taps": stage.taps, "with_data": int(with_data), "transposed": int(transposed)}
    for position, load in enumerate(chunk.loads):
        fields = {**common, **_queue_fields(context, stage, load, split, with_data)}
        fields["last"] = int(last[load.queue] == position)
        context.stream.emit("LOAD_KERNELS", label, stage.index, waits, fields)
    for queue in range(context.queue_count(split)):
        if queue not in last:
            empty = {**common, **_queue_fields(context, stage, KernelLoad(queue, 0, 0, 0, 0), split, with_data), "last": 1}
            context.stream.emit("LOAD_KERNELS", label, stage.index, waits, empty)


def _queue_fields(context: Context, stage: Stage, load: KernelLoad, split: Split, with_data: bool) -> dict[str, int]:
    layout = context.layout
    return {
        "group": load.queue // split.channels,
        "pe": load.queue % split.channels if split.channels > 1 else ALL_PES,
        "index": layout.address(f"index/{stage.name}") + INDEX_BYTES * load.start,
        "data": layout.address(f"operand/{stage.name}") + stage.taps * load.start if with_data else 0,
        "count": load.count,
        "out_base": load.out_base,
        "in_base": load.in_base,
    }


def after_loads(context: Context) -> Waits:
    """All LOAD instructions so far."""
    return Waits(load=context.stream.issued(Unit.LOAD))
