"""A program as the timing model needs it: blocks of instructions, and the cycles and requests of each."""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.program import Program
from fixgrad.machine import Machine
from fixgrad.machine.instructions import BY_NAME, INSTRUCTION_BYTES, STEP_ENTRY_BYTES, Unit
from fixgrad.machine.parameters import TAPS_PER_WORD
from fixgrad.simulate.timing.assumptions import Assumptions
from fixgrad.simulate.timing.blocks import Block, BlockArrays, cut_blocks
from fixgrad.simulate.timing.catalogue import Catalogue
from fixgrad.simulate.timing.elementwise_work import ALONE
from fixgrad.simulate.timing.holds import holds
from fixgrad.simulate.timing.post_work import PostWork
from fixgrad.simulate.timing.regions import Fields, all_regions, bounding_box, boxes, region
from fixgrad.simulate.timing.steps import Step
from fixgrad.simulate.timing.traffic import Bundle, Interleaving, RegionRequest, Request, requests
from fixgrad.simulate.timing.update_work import UpdateWork

Ints = NDArray[np.int64]
INDEX_BYTES = 2
#: Bytes that the kernel path of LOAD moves in a cycle at least (`KERNEL_BEAT_BYTES` of the gateware).
_KERNEL_BEAT_BYTES = 16
#: Loads of maps: the prefix of their rectangles, and the field with their channels.
MAP_LOADS = (("LOAD_INPUT", "in", "channels"), ("LOAD_ERROR", "out", "total_channels"))
#: Blocks of LOAD_KERNELS whose requests are worked out at once.
BLOCKS_AT_ONCE = 1 << 15
#: Phase to which the time of a label's phase is counted; what belongs to no layer joins the row beside it.
PHASE_OF = {"ff": "ff", "ng": "ng", "wg": "wg", "loss": "ng", "update": "wg"}
#: Numbers of the units in a block's waits, and the fields that hold them.
WAIT_UNITS = (Unit.LOAD, Unit.COMPUTE, Unit.POST, Unit.UPDATE)
WAIT_FIELDS = ("wait_load", "wait_compute", "wait_post", "wait_update")
UNIT_OF = {name: kind.unit for name, kind in BY_NAME.items()}
OPCODES_OF = {unit: [kind.opcode for kind in BY_NAME.values() if kind.unit is unit] for unit in Unit}


class Row(NamedTuple):
    """A line of the result: one layer and phase."""

    layer: str
    phase: str


class LoadPart(NamedTuple):
    """Requests of LOAD that arrive together, and the cycles that the data bus takes to distribute them."""

    requests: tuple[Request | Bundle, ...]
    bus: int
    number: int
    """Requests on the bus to memory."""
    bytes: int


class Work:
    """See the module.

    Args:
        program: what to run.
        assumptions: depths of queues and buffers.
        interleaving: of the memory.
        join: whether short instructions are taken together.
        catalogue: for requests of LOAD and UPDATE, of a compiled memory.

    Attributes:
        rows: of the result, in the order FF, NG, WG.
        arrays: the blocks of the program, in order, as columns.
        instructions: how many there are.
    """

    def __init__(
        self,
        program: Program,
        assumptions: Assumptions,
        interleaving: Interleaving,
        join: bool = True,
        catalogue: Catalogue | None = None,
    ) -> None:
        self.machine: Machine = program.machine
        self.assumptions = assumptions
        self._program, self._interleaving, self._join = program, interleaving, join
        self._catalogue = catalogue
        self.instructions = len(program.opcodes)
        self._columns = {name: program.columns(name) for name, at in program.positions.items() if len(at)}
        self._lists: dict[str, Fields] = {}
        self.rows, rows = _rows(program)
        self.arrays = self._cut(rows)
        self._post = PostWork(self.machine, assumptions)

    def _cut(self, rows: NDArray[np.int64]) -> BlockArrays:
        waits = np.zeros((self.instructions, 4), np.int32)
        sizes = np.zeros(self.instructions, np.int64)
        for name, columns in self._columns.items():
            at = self._program.positions[name]
            waits[at] = np.stack([columns[field] for field in WAIT_FIELDS], axis=1)
            if name == "LOAD_KERNELS":
                sizes[at] = columns["count"] * (INDEX_BYTES + columns["taps"] * columns["with_data"])
            elif name == "UPDATE":
                state = columns["count"] * (columns["stored_bytes"] + columns["momentum_bytes"])
                sizes[at] = -(-state // self.machine.groups)
        limits, most = self.assumptions, np.ones(self.instructions, np.int64)
        if self._join:
            most[self._program.positions["LOAD_KERNELS"]] = limits.block_instructions
            most[self._program.positions["UPDATE"]] = limits.block_instructions * self.machine.groups
        return cut_blocks(self._program.opcodes, rows, waits, sizes, most, limits.block_bytes)

    @cached_property
    def blocks(self) -> list[Block]:
        """The blocks one by one, for those who take them so."""
        return self.arrays.some(slice(None))

    def numbers(self, unit: Unit) -> list[int]:
        """Numbers of the blocks of a unit."""
        found: list[int] = np.flatnonzero(np.isin(self.arrays.opcode, OPCODES_OF[unit])).tolist()
        return found

    def stands_alone(self, number: int) -> bool:
        """Whether a block of POST begins when all before it have completed, and ends before the next one begins."""
        return self.arrays.one(number).name in ALONE

    def named(self, name: str) -> Ints:
        """Numbers of the blocks of a kind."""
        return np.flatnonzero(self.arrays.opcode == BY_NAME[name].opcode)

    def _fields(self, name: str) -> Fields:
        """The fields of all instructions of a kind as lists."""
        if name not in self._lists:
            self._lists[name] = {field: values.tolist() for field, values in self._columns[name].items()}
        return self._lists[name]

    @property
    def fetch_instructions(self) -> int:
        """Instructions of a fetch."""
        return max(1, self.assumptions.fetch_beats * self.machine.memory.port_bytes // INSTRUCTION_BYTES)

    @cached_property
    def group_cycles(self) -> Ints:
        """Cycles of each COMPUTE in each group, [computes, groups]: the steps of its busiest PE, and those of its pipeline."""
        cycles: Ints = self._program.compute_cycles.max(axis=2) + self.assumptions.compute_fill
        return cycles

    @cached_property
    def holds(self) -> Ints:
        """How POST and UPDATE delay each COMPUTE, and it UPDATE, [computes, 3]."""
        return holds(self._program)

    @cached_property
    def useful_cycles(self) -> Ints:
        """MAC cycles of all PEs of a group together, [computes, groups]."""
        found: Ints = self._program.compute_cycles.sum(axis=2)
        return found

    def load_parts(self, number: int) -> Iterator[LoadPart]:
        """What a block of LOAD asks for, in order."""
        block = self.blocks[number]
        if block.name == "LOAD_KERNELS":
            yield self._kernel_parts[number] if self._join else self._single_kernels(block.place)
            return
        asked, bus = self.load_request(number)
        if not isinstance(asked, RegionRequest):
            yield LoadPart((asked,), bus or 0, 1, asked.bytes)
            return
        for request in requests(asked.region, asked.limit):
            yield LoadPart((request,), request.bus_cycles(self.machine.lanes, self.machine.load_words), request.runs, request.bytes)

    def load_request(self, number: int) -> tuple[Request | RegionRequest, int | None]:
        """What a block of LOAD that is not LOAD_KERNELS asks for: entries of the step table and the cycles in which the data
        bus distributes them, or a region of a map (None: the bus takes those of its words).
        """
        block = self.arrays.one(number)
        fields, at = self._fields(block.name), block.place
        if block.name == "LOAD_PARAMS":
            size = fields["count"][at] * STEP_ENTRY_BYTES
            return Request(fields["source"][at], size), -(-size // self._chunk)
        prefix, channels = next(item[1:] for item in MAP_LOADS if item[0] == block.name)
        box = bounding_box(boxes(fields, at, prefix))
        whole = region(self.machine.lanes, fields, at, "source", box, fields[channels][at])
        return RegionRequest(whole, self.assumptions.request_bytes * self.machine.memory.channels), None

    @property
    def _chunk(self) -> int:
        """Bytes that leave LOAD's DMA engine in a cycle (`LoadSizes.chunk` of the gateware)."""
        machine = self.machine
        return min(machine.memory.port_bytes, max(_KERNEL_BEAT_BYTES, 1 << (machine.lanes - 1).bit_length()))

    @cached_property
    def leads(self) -> Ints:
        """Cycles in which the data bus rests before each block of LOAD, because that before was of another kind."""
        limits, blocks = self.assumptions, np.array(self.numbers(Unit.LOAD), np.int64)
        is_kernels = self.arrays.opcode[blocks] == BY_NAME["LOAD_KERNELS"].opcode
        turns = np.zeros(len(blocks), np.bool_)
        turns[1:] = is_kernels[1:] != is_kernels[:-1]
        found = np.where(turns, limits.load_turn, 0)
        if "LOAD_KERNELS" in self._columns:
            columns, places = self._columns["LOAD_KERNELS"], self.arrays.place[self._kernel_blocks]
            coordinates = columns["count"][places] * columns["with_data"][places] * INDEX_BYTES
            found[is_kernels] += turns[is_kernels] * (limits.load_beats - -coordinates // self._chunk)
        return found

    @cached_property
    def _kernel_parts(self) -> dict[int, LoadPart]:
        """What each block of LOAD_KERNELS asks for, by number of the block."""
        numbers, owners = self._kernel_blocks.tolist(), self._kernel_owners
        addresses, sizes = _kernel_requests(self._kernel_fields(), slice(None))
        bundles = self._interleaving.bundles(np.tile(owners, 2), len(numbers), addresses, sizes, write=False)
        totals = self._kernel_bus(len(numbers)).tolist()
        return {
            number: LoadPart((bundle,) if bundle.requests else (), total, bundle.requests, bundle.bytes)
            for number, bundle, total in zip(numbers, bundles, totals, strict=True)
        }

    def add_loads(self, catalogue: Catalogue) -> Ints:
        """Put what LOAD asks for into a catalogue.

        Returns:
            Of each block of LOAD, as in `Asked`: first and last request, and base, [blocks, 3].
        """
        loads = np.array(self.numbers(Unit.LOAD), np.int64)
        found = np.full((len(loads), 3), -1, np.int64)
        limit = self.assumptions.request_bytes * self.machine.memory.channels
        for name, prefix, channels in MAP_LOADS:
            if name in self._columns:
                regions = all_regions(self.machine.lanes, self._columns[name], prefix, "source", channels)
                found[np.searchsorted(loads, self.named(name))] = catalogue.add_regions(regions, limit)
        for number in self.named("LOAD_PARAMS").tolist():
            found[np.searchsorted(loads, number)] = catalogue.find(*self.load_request(number))
        if "LOAD_KERNELS" in self._columns:
            found[np.searchsorted(loads, self._kernel_blocks)] = self._add_kernels(catalogue)
        return found

    def _add_kernels(self, catalogue: Catalogue) -> Ints:
        """What blocks of LOAD_KERNELS ask for; as `add_loads`."""
        owners, count = self._kernel_owners, len(self._kernel_blocks)
        bus, fields, requests = self._kernel_bus(count), self._kernel_fields(), np.zeros(count, np.int64)
        for first in range(0, count, BLOCKS_AT_ONCE):
            last = min(first + BLOCKS_AT_ONCE, count)
            inside = slice(*np.searchsorted(owners, (first, last)).tolist())
            addresses, sizes = _kernel_requests(fields, inside)
            of = np.tile(owners[inside] - first, 2)
            bundles = self._interleaving.bundle_arrays(of, last - first, addresses, sizes, write=False)
            requests[first:last] = catalogue.add_bundles(bundles, bus[first:last]) + np.arange(last - first)
        return np.stack([requests, requests + 1, np.zeros_like(requests)], axis=1)

    @cached_property
    def _kernel_blocks(self) -> Ints:
        """Numbers of the blocks of LOAD_KERNELS."""
        return self.named("LOAD_KERNELS")

    def _kernel_fields(self) -> dict[str, Ints]:
        """The fields of LOAD_KERNELS that say what is asked for, each worked out once."""
        return {name: self._columns["LOAD_KERNELS"][name] for name in ("index", "data", "count", "taps", "with_data")}

    def _kernel_bus(self, blocks: int) -> Ints:
        """Cycles in which the data bus distributes each block of LOAD_KERNELS."""
        columns = self._columns["LOAD_KERNELS"]
        bus = np.maximum(columns["count"] * _queue_words(columns["taps"], columns["with_data"]) + columns["last"], 1)
        totals: Ints = np.bincount(self._kernel_owners, weights=bus, minlength=blocks).astype(np.int64)
        return totals

    @cached_property
    def _kernel_owners(self) -> Ints:
        """Block of each LOAD_KERNELS, counted among theirs."""
        counts = self.arrays.counts[self._kernel_blocks]
        return np.repeat(np.arange(len(counts)), counts)

    def _single_kernels(self, at: int) -> LoadPart:
        fields = self._fields("LOAD_KERNELS")
        count, taps, with_data = fields["count"][at], fields["taps"][at], fields["with_data"][at]
        if not count:
            return LoadPart((), 1, 0, 0)
        asked = [Request(fields["index"][at], INDEX_BYTES * count)]
        if with_data:
            asked.append(Request(fields["data"][at], taps * count))
        bus = count * (-(-taps // TAPS_PER_WORD) if with_data else 1) + fields["last"][at]
        return LoadPart(tuple(asked), bus, len(asked), sum(request.bytes for request in asked))

    def steps(self, number: int, group: int = 0) -> Iterator[Step]:
        """The steps of a block of POST, LOSS or STATISTICS, or of a group's UPDATEs of a block."""
        block = self.arrays.one(number)
        if block.name == "UPDATE":
            return iter(self.update_work.steps(number, group))
        return self._post.steps(block.name, self._fields(block.name), block.place)

    def setup(self, number: int, group: int = 0) -> int:
        """Cycles from the begin of a block of POST or UPDATE until it asks for its first data."""
        if self.arrays.opcode[number] == BY_NAME["UPDATE"].opcode:
            return self.update_work.setup(number, group)
        return 0 if self.stands_alone(number) else self.assumptions.post_setup

    def update_count(self, number: int, group: int) -> int:
        """UPDATEs of a group in a block."""
        return self.update_work.count(number, group)

    @cached_property
    def update_work(self) -> UpdateWork:
        """All UPDATEs."""
        numbers, columns = self.named("UPDATE"), self._columns.get("UPDATE", {})
        counts = self.arrays.counts[numbers]
        machine, assumptions = self.machine, self.assumptions
        return UpdateWork(numbers, counts, columns, self._interleaving, machine, assumptions, self._join, self._catalogue)


def _kernel_requests(fields: dict[str, Ints], of: slice) -> tuple[Ints, Ints]:
    """Addresses and bytes of what some LOAD_KERNELS ask for: coordinates of all of them, then weights of all of them."""
    index, data, counts, taps, with_data = (values[of] for values in fields.values())
    return np.concatenate([index, data]), np.concatenate([counts * INDEX_BYTES, counts * taps * with_data])


def _queue_words(taps: NDArray[np.int64], with_data: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(with_data == 1, -(-taps // TAPS_PER_WORD), 1)


def _rows(program: Program) -> tuple[tuple[Row, ...], NDArray[np.int64]]:
    """The rows of a program, and the row of each instruction.

    Instructions of no layer (the step table, the statistics, HALT) join the row before them, or the first one.
    """
    layers = [step.name for step in program.layout.graph.steps]
    nodes = {node.name for node in program.layout.graph.nodes}
    # A layer without weights has no WG: the update of its parameters counts with the errors that it sends.
    labels = set(program.labels)
    phases = {each: "ng" if each.phase == "update" and each.layer in nodes else PHASE_OF.get(each.phase) for each in labels}
    found = {(label.layer, phases[label]) for label in labels if phases[label] and label.phase != "loss"}
    rows = tuple(Row(layer, phase) for phase in ("ff", "ng", "wg") for layer in layers if (layer, phase) in found)
    number = {row: index for index, row in enumerate(rows)}
    row_of = {}
    for label in labels:
        phase = phases[label]
        # A network of one layer has a loss but no NG: its loss counts with its WG.
        beside = number.get(Row(label.layer, "wg"), -1)
        row_of[label] = -1 if phase is None else number.get(Row(label.layer, phase), beside)
    of = np.array([row_of[label] for label in program.labels], np.int64)
    known = np.where(of >= 0, np.arange(len(of)), -1)
    before = np.maximum.accumulate(known)
    return rows, np.where(before >= 0, of[np.maximum(before, 0)], 0)
