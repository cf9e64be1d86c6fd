"""A program as the timing model needs it: for each instruction its unit, its waits, its row, its cycles and its requests."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from fixgrad.compiler.program import Program
from fixgrad.machine import Machine
from fixgrad.machine.instructions import BY_NAME, BY_OPCODE, STEP_ENTRY_BYTES, Unit
from fixgrad.machine.parameters import MAX_PES_PER_GROUP, TAPS_PER_WORD
from fixgrad.simulate.timing.assumptions import Assumptions
from fixgrad.simulate.timing.traffic import Region, Request, requests

INDEX_BYTES, WORD_BYTES, LABEL_BYTES, REGISTER_BYTES = 2, 4, 2, 16
#: Phase to which the time of a label's phase is counted; what belongs to no layer joins the row beside it.
PHASE_OF = {"ff": "ff", "ng": "ng", "wg": "wg", "loss": "ng", "update": "wg"}


class Row(NamedTuple):
    """A line of the result: one layer and phase."""

    layer: str
    phase: str


class LoadPart(NamedTuple):
    """Requests of LOAD that arrive together, and the cycles that the data bus takes to distribute them."""

    requests: tuple[Request, ...]
    bus: int


class Drain(NamedTuple):
    """Words that POST takes from each PE of a group in a step."""

    group: int
    words: int


class Step(NamedTuple):
    """A step of POST or UPDATE: read, work, write."""

    reads: tuple[Request, ...]
    cycles: int
    writes: tuple[Request, ...]
    drains: tuple[Drain, ...] = ()


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> int:
        return self.bottom - self.top

    @property
    def columns(self) -> int:
        return self.right - self.left

    @property
    def area(self) -> int:
        return self.rows * self.columns

    def over(self, rows: int, columns: int) -> "Box":
        """The windows of rows x columns that lie wholly inside, counted from the map's corner."""
        return Box(-(-self.top // rows), self.bottom // rows, -(-self.left // columns), self.right // columns)

    def times(self, rows: int, columns: int) -> "Box":
        """The pixels of windows of rows x columns."""
        return Box(self.top * rows, self.bottom * rows, self.left * columns, self.right * columns)


def bounding_box(boxes: Sequence[Box]) -> Box:
    """The smallest rectangle around those that are not empty."""
    real = [box for box in boxes if box.area > 0]
    if not real:
        return Box(0, 0, 0, 0)
    return Box(
        min(box.top for box in real), max(box.bottom for box in real),
        min(box.left for box in real), max(box.right for box in real),
    )  # fmt: skip


class Work:
    """See the module.

    Attributes:
        rows: of the result, in the order FF, NG, WG.
        units: of each instruction.
        waits: of each instruction: completed LOAD, COMPUTE, POST, UPDATE.
        row: number of the row of each instruction.
        place: number of each instruction among those of its kind.
        names: kind of each instruction.
    """

    def __init__(self, program: Program, assumptions: Assumptions) -> None:
        self.machine: Machine = program.machine
        self.assumptions = assumptions
        self._program = program
        opcodes = program.opcodes.tolist()
        kinds = {opcode: BY_OPCODE[opcode] for opcode in set(opcodes)}
        self.names = [kinds[opcode].name for opcode in opcodes]
        self.units = [kinds[opcode].unit for opcode in opcodes]
        self.place = [0] * len(opcodes)
        self.waits: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)] * len(opcodes)
        self._fields: dict[str, dict[str, list[int]]] = {}
        for name in {kind.name for kind in kinds.values()}:
            self._take(name)
        self.rows, self.row = _rows(program)

    def _take(self, name: str) -> None:
        columns = {field: values.tolist() for field, values in self._program.columns(name).items()}
        self._fields[name] = columns
        waits = zip(
            columns["wait_load"], columns["wait_compute"], columns["wait_post"], columns["wait_update"], strict=True
        )
        for number, (position, wait) in enumerate(zip(self._program.positions[name].tolist(), waits, strict=True)):
            self.place[position] = number
            self.waits[position] = wait

    @property
    def count(self) -> int:
        """Instructions."""
        return len(self.names)

    def positions(self, unit: Unit) -> list[int]:
        """Positions of the instructions of a unit."""
        return [position for position, of in enumerate(self.units) if of is unit]

    def group_of(self, position: int) -> int:
        """Group that an UPDATE names."""
        return self._fields["UPDATE"]["group"][self.place[position]]

    @cached_property
    def group_cycles(self) -> list[list[int]]:
        """Cycles of each COMPUTE in each group, [computes][groups]: of its busiest PE, and one for the end mark."""
        return [[value + 1 for value in groups] for groups in self._program.compute_cycles.max(axis=2).tolist()]

    @cached_property
    def useful_cycles(self) -> list[list[int]]:
        """MAC cycles of all PEs of a group together, [computes][groups]."""
        found: list[list[int]] = self._program.compute_cycles.sum(axis=2).tolist()
        return found

    def load_parts(self, position: int) -> Iterator[LoadPart]:
        """What a LOAD instruction asks for, in order."""
        name, at = self.names[position], self.place[position]
        fields = self._fields[name]
        if name == "LOAD_KERNELS":
            yield self._kernels(fields, at)
        elif name == "LOAD_PARAMS":
            count = fields["count"][at]
            yield LoadPart((Request(fields["source"][at], count * STEP_ENTRY_BYTES),), count)
        else:
            prefix, channels = ("in", "channels") if name == "LOAD_INPUT" else ("out", "total_channels")
            box = bounding_box(_boxes(fields, at, prefix))
            region = self._region(fields, at, "source", box, fields[channels][at])
            for request in requests(region, self.assumptions.request_bytes * self.machine.memory.channels):
                words = -(-request.bytes // self.machine.lanes)
                yield LoadPart((request,), -(-words // self.machine.load_words))

    def _kernels(self, fields: dict[str, list[int]], at: int) -> LoadPart:
        count, taps = fields["count"][at], fields["taps"][at]
        if not count:
            return LoadPart((), 1)
        index = Request(fields["index"][at], INDEX_BYTES * count)
        if not fields["with_data"][at]:
            return LoadPart((index,), count)
        data = Request(fields["data"][at], taps * count)
        return LoadPart((index, data), count * -(-taps // TAPS_PER_WORD))

    def _region(
        self,
        fields: dict[str, list[int]],
        at: int,
        base: str,
        box: Box,
        channels: int,
        first: int = 0,
        code_bytes: int = 1,
        strides: tuple[str, str] = ("channel_words", "row_words"),
    ) -> Region:
        """The pixels of `box` of `channels` channels from `first` on."""
        word = self.machine.lanes * code_bytes
        plane, row = (fields[name][at] * word for name in strides)
        address = fields[base][at] + first * plane + box.top * row + box.left * word
        return Region(address, box.columns * word, box.rows, row, channels, plane)

    def steps(self, position: int) -> Iterator[Step]:
        """The steps of a POST, LOSS, STATISTICS or UPDATE."""
        name, at = self.names[position], self.place[position]
        fields = self._fields[name]
        if name == "POST":
            return self._post(fields, at)
        if name == "UPDATE":
            return self._update(fields, at)
        return self._loss(fields, at) if name == "LOSS" else self._statistics(fields, at)

    def _post(self, fields: dict[str, list[int]], at: int) -> Iterator[Step]:
        machine, limit = self.machine, self.assumptions.step_bytes
        boxes = _boxes(fields, at, "out")
        box, split = bounding_box(boxes), fields["channel_split"][at]
        per_pe, total = fields["channels"][at], fields["total_channels"][at]
        per_group = per_pe * (machine.pes_per_group if split else 1)
        pe_area = box.area if split else max(item.area for item in boxes)
        served = machine.groups // machine.post_processors
        channel_reads, channel_writes = _channel_requests(fields, at, total)
        reads, writes, drains, cycles, size = list(channel_reads), list[Request](), list[Drain](), 0, 0
        for turn in range(served):
            longest = 0
            for group in range(turn, machine.groups, served):
                first = group * per_group
                count = min(per_group, total - first)
                if count <= 0:
                    continue
                got, stored, words = self._group_traffic(fields, at, box, first, count)
                reads += got
                writes += stored
                drains.append(Drain(group, min(count, per_pe) * pe_area))
                longest = max(longest, count * box.area, words)
                size += sum(item.bytes for item in stored)
            cycles += longest
            last = turn == served - 1
            if last or size >= limit:
                writes += channel_writes if last else ()
                yield Step(tuple(reads), cycles, tuple(writes), tuple(drains))
                reads, writes, drains, cycles, size = [], [], [], 0, 0

    def _group_traffic(
        self, fields: dict[str, list[int]], at: int, box: Box, first: int, count: int
    ) -> tuple[list[Request], list[Request], int]:
        """Reads and writes of POST for `count` channels of a group from `first` on, and the words written."""
        limit = self.assumptions.request_bytes * self.machine.memory.channels
        pool = fields["pool_rows"][at], fields["pool_columns"][at]
        pooled = pool != (1, 1)
        reads, writes = list[Request](), list[Request]()
        if fields["mode"][at] == 0:
            target, code = box.over(*pool), 2 if fields["out_bits"][at] > 8 else 1
            if fields["with_argmax"][at]:
                writes += requests(self._region(fields, at, "argmax", target, count, first), limit, write=True)
            words = target.area * count * (code + pooled)
        else:
            target, code = box.times(*pool), 1
            planes = ("mask_channel_words", "mask_row_words")
            for base, wanted in (("mask", fields["rectify"][at] & 1), ("argmax", pooled)):
                if wanted:
                    reads += requests(self._region(fields, at, base, box, count, first, strides=planes), limit)
            words = target.area * count
        writes += requests(self._region(fields, at, "target", target, count, first, code), limit, write=True)
        return reads, writes, words

    def _loss(self, fields: dict[str, list[int]], at: int) -> Iterator[Step]:
        lanes, classes = self.machine.lanes, fields["classes"][at]
        code = 2 if fields["logit_bits"][at] > 8 else 1
        reads = [
            Request(fields["logits"][at], classes * lanes * code),
            Request(fields["labels"][at], lanes * LABEL_BYTES),
            Request(fields["element"][at], classes * WORD_BYTES),
        ]
        writes = [Request(fields["target"][at], classes * lanes, write=True)]
        if fields["with_bias"][at]:
            sums = Request(fields["bias_gradient"][at], classes * WORD_BYTES)
            reads.append(sums)
            writes.append(sums._replace(write=True))
        cycles = self.machine.latencies.loss_per_class * classes * fields["images"][at]
        yield Step(tuple(reads), cycles, tuple(writes))

    def _statistics(self, fields: dict[str, list[int]], at: int) -> Iterator[Step]:
        count = fields["count"][at]
        yield Step((), count, (Request(fields["target"][at], count * REGISTER_BYTES, write=True),))

    def _update(self, fields: dict[str, list[int]], at: int) -> Iterator[Step]:
        left, done, most = fields["count"][at], 0, self.assumptions.step_parameters
        wide, momentum = fields["stored_bytes"][at], fields["momentum_bytes"][at]
        stored, momenta = fields["stored"][at], fields["momentum"][at]
        taps, from_memory = max(fields["taps"][at], 1), fields["from_memory"][at]
        most = max(most // taps, 1) * taps
        while left:
            count = min(left, most)
            state = [Request(stored + wide * done, wide * count), Request(momenta + momentum * done, momentum * count)]
            reads = [*state, Request(fields["element"][at] + WORD_BYTES * (done // taps), WORD_BYTES * -(-count // taps))]
            writes = [item._replace(write=True) for item in state]
            if from_memory:
                gradients = Request(fields["gradient_source"][at] + WORD_BYTES * done, WORD_BYTES * count)
                reads.append(gradients)
                writes.append(gradients._replace(write=True))
            if fields["operands"][at]:
                writes.append(Request(fields["operand"][at] + done, count, write=True))
            yield Step(tuple(reads), count, tuple(writes))
            left, done = left - count, done + count


def _channel_requests(fields: dict[str, list[int]], at: int, total: int) -> tuple[list[Request], list[Request]]:
    """What POST reads and writes once for each channel: biases, or random elements and sums of errors."""
    if fields["mode"][at] == 0:
        return ([Request(fields["bias"][at], WORD_BYTES * total)] if fields["with_bias"][at] else []), []
    reads, writes = [Request(fields["element"][at], WORD_BYTES * total)], []
    if fields["with_bias"][at]:
        sums = Request(fields["bias_gradient"][at], WORD_BYTES * total)
        reads.append(sums)
        writes.append(sums._replace(write=True))
    return reads, writes


def _boxes(fields: dict[str, list[int]], at: int, prefix: str) -> list[Box]:
    return [
        Box(*(fields[f"{prefix}{pe}_{side}"][at] for side in ("top", "bottom", "left", "right")))
        for pe in range(MAX_PES_PER_GROUP)
    ]


def _rows(program: Program) -> tuple[tuple[Row, ...], list[int]]:
    """The rows of a program, and the row of each instruction.

    Instructions of no layer (the step table, the statistics, HALT) join the row of the COMPUTE after them, or before.
    """
    layers = [layer.name for layer in program.network.mac_layers]
    found = {label for label in set(program.labels) if PHASE_OF.get(label.phase) == label.phase}
    rows = tuple(Row(layer, phase) for phase in ("ff", "ng", "wg") for layer in layers if (layer, phase) in found)
    number = {row: index for index, row in enumerate(rows)}
    of: list[int] = []
    current = number[Row(layers[0], "ff")]
    for label in program.labels:
        if label.phase in PHASE_OF:
            phase = PHASE_OF[label.phase]
            # A network of one layer has a loss but no NG: its loss counts with its WG.
            current = number.get(Row(label.layer, phase), number.get(Row(label.layer, "wg"), current))
        of.append(current)
    return rows, of


#: Numbers of the units in `Work.waits`.
WAIT_UNITS = (Unit.LOAD, Unit.COMPUTE, Unit.POST, Unit.UPDATE)
assert set(WAIT_UNITS) == {kind.unit for kind in BY_NAME.values()} - {Unit.CONTROL}
