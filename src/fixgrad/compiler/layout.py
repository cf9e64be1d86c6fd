"""Where everything lies in memory: named regions, and the numbers of step-table entries and range registers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.error_memory import error_lifetimes, shared_places
from fixgrad.compiler.graph import Backward, Graph, Node
from fixgrad.compiler.matrix import KernelMatrix
from fixgrad.compiler.stages import FeatureMap, Stage
from fixgrad.machine import Machine
from fixgrad.machine.elementwise_instructions import RECORD_BYTES
from fixgrad.machine.instructions import STEP_ENTRY_BYTES
from fixgrad.network import BatchNorm, Concat, MaxPool2d, Recipe, SlidingMaxPool2d

Ints = NDArray[np.int64]
#: Regions begin at a burst of the widest memory; feature maps at a page, which is also where channels alternate.
ALIGNMENT, MAP_ALIGNMENT = 64, 4096
INDEX_BYTES, ELEMENT_BYTES, BIAS_BYTES, LABEL_BYTES, REGISTER_BYTES = 2, 4, 4, 2, 16


@dataclass(frozen=True, slots=True)
class Region:
    """A range of addresses and what it holds."""

    name: str
    address: int
    bytes: int
    meaning: str

    @property
    def end(self) -> int:
        return self.address + self.bytes


@dataclass(frozen=True)
class RegionTable:
    """All regions of a program's memory image.

    Attributes:
        regions: by name.
        orders: by feature map: the logical channel that each place in memory holds.
        entries: number of each step-table entry: ``ff/conv1``, ``ng/conv2``, ``loss/dense8``, ``update/conv1.weight``.
        registers: number of each range register, of the same names.
    """

    regions: dict[str, Region]
    orders: dict[str, Ints] = field(repr=False)
    entries: dict[str, int]
    registers: dict[str, int]

    @property
    def bytes(self) -> int:
        """Size of the image."""
        return max((region.end for region in self.regions.values()), default=0)

    def address(self, name: str) -> int:
        """First byte of a region."""
        return self.regions[name].address

    @property
    def shares_errors(self) -> bool:
        """Whether regions of errors overlap."""
        errors = sorted((item.address, item.end) for item in self.regions.values() if item.name.startswith("error/"))
        return any(before[1] > after[0] for before, after in pairwise(errors))

    def region_at(self, address: int) -> Region | None:
        """The region that holds an address."""
        return next((item for item in self.regions.values() if item.address <= address < item.end), None)


def code_bytes(bits: int) -> int:
    """Bytes of a code in memory."""
    return 2 if bits > 8 else 1


def stored_bytes(bits: int) -> int:
    """Bytes of a stored weight or momentum."""
    return -(-bits // 8)


def micro_batches(batch: int, lanes: int) -> int:
    """Parts of a batch that the lanes take one after the other."""
    return -(-batch // lanes)


#: The entry of instructions that pass codes on: nothing is shifted.
PASS_ENTRY = "pass"


def register_names(graph: Graph) -> list[str]:
    """Names of the range registers of a training step, in order: of every tensor with a scale of its own, and of parameters."""
    backward = list(reversed(graph.backward))
    names = [f"ff/{step.name}" for step in graph.steps if step.layer.rescales]
    names += [f"ng/{back.step.name}" for back in backward if makes_error(back)]
    names.append(f"loss/{graph.network.logits}")
    names += [f"sum/{item.tensor}" for back in backward for item in back.sums]
    return names + [f"update/{name}" for step in graph.steps for name in step.layer.parameters]


def makes_error(back: Backward) -> bool:
    """Whether an error is made anew, with a scale and a range register of its own, by NG of a stage or of a node."""
    if isinstance(back.step, Stage):
        return back.step.sink is not None
    return any(item.is_new for item in back.sent)


def entry_names(graph: Graph, train: bool) -> list[str]:
    """Names of the step table's entries, in order: those of the registers, of a concatenation one for each input, `PASS_ENTRY`."""
    wanted = register_names(graph) if train else [f"ff/{step.name}" for step in graph.steps if step.layer.rescales]
    inputs = {f"ff/{node.name}": len(node.sources) for node in graph.nodes if isinstance(node.layer, Concat)}
    names = [entry for name in wanted for entry in _entries(name, inputs.get(name))]
    passes = any(not node.layer.rescales for node in graph.nodes)
    passes_errors = any(not makes_error(back) for back in graph.backward if isinstance(back.step, Node))
    return [*names, PASS_ENTRY] if passes or (train and passes_errors) else names


def _entries(name: str, inputs: int | None) -> list[str]:
    return [name] if inputs is None else [f"{name}/{number}" for number in range(inputs)]


class _Allocator:
    def __init__(self) -> None:
        self.regions: dict[str, Region] = {}
        self._end = 0

    def add(self, name: str, size: int, meaning: str, alignment: int = ALIGNMENT) -> None:
        start = -(-self._end // alignment) * alignment
        self.regions[name] = Region(name, start, size, meaning)
        self._end = start + size

    def add_together(self, regions: Sequence[tuple[str, int, str, int]], alignment: int) -> None:
        """Regions that lie at offsets from one place; they may overlap."""
        start = -(-self._end // alignment) * alignment
        for name, size, meaning, offset in regions:
            self.regions[name] = Region(name, start + offset, size, f"{meaning}; shared with others")
            self._end = max(self._end, start + offset + size)


def lay_out(
    graph: Graph,
    matrices: Sequence[KernelMatrix],
    orders: dict[str, Ints],
    machine: Machine,
    batch: int,
    recipe: Recipe,
    train: bool,
    registers: dict[str, int],
    share_errors: bool = False,
) -> RegionTable:
    """The regions of all tensors; the program's own follows when it is known how long it is.

    Args:
        registers: numbers of the range registers, see `fixgrad.compiler.register_banks`; none of a forward pass.
        share_errors: whether errors that are not needed at the same time lie in the same memory.
    """
    places, names = _Allocator(), entry_names(graph, train)
    places.add("step_table", len(names) * STEP_ENTRY_BYTES, "step table: 64 bytes an entry")
    if train:
        places.add("statistics", (max(registers.values()) + 1) * REGISTER_BYTES, "range registers: 16 bytes each")
        places.add("labels", micro_batches(batch, machine.lanes) * machine.lanes * LABEL_BYTES, "uint16 [micro-batch][lane]")
    maps = list(_map_regions(graph, machine, batch, train))
    shared = [region for region in maps if share_errors and region[0].startswith("error/")]
    for region in maps:
        if region not in shared:
            places.add(*region, alignment=MAP_ALIGNMENT)
    if shared:
        sizes = {name.partition("/")[2]: size for name, size, _ in shared}
        offsets = shared_places(error_lifetimes(graph), sizes, MAP_ALIGNMENT)
        places.add_together([(*region, offsets[region[0].partition("/")[2]]) for region in shared], MAP_ALIGNMENT)
    for stage, matrix in zip(graph.stages, matrices, strict=True):
        for region in _weight_regions(stage, matrix, recipe, train):
            places.add(*region)
    for node in graph.nodes:
        for region in _node_regions(node, train):
            places.add(*region)
    return RegionTable(places.regions, orders, {name: number for number, name in enumerate(names)}, registers)


def with_program(table: RegionTable, size: int) -> RegionTable:
    """The table with the program's own region behind all others."""
    start = -(-table.bytes // MAP_ALIGNMENT) * MAP_ALIGNMENT
    program = Region("program", start, size, "instructions: 128 bytes each")
    return replace(table, regions={**table.regions, "program": program})


def _map_regions(graph: Graph, machine: Machine, batch: int, train: bool) -> Iterator[tuple[str, int, str]]:
    word = micro_batches(batch, machine.lanes) * machine.lanes
    meaning = "codes [micro-batch][channel][row][column][lane] of"
    errors = {item.name: item for item in graph.errors} if train else {}

    def size(item: FeatureMap) -> int:
        return item.words * word * code_bytes(item.bits)

    yield f"activation/{graph.source.name}", size(graph.source), f"{meaning} {graph.source.name}"
    for step in graph.steps:
        yield f"activation/{step.target.name}", size(step.target), f"{meaning} {step.target.name}"
        if step.name in errors:
            yield f"error/{step.name}", size(errors.pop(step.name)), f"{meaning} the error of {step.name}"
        if train and has_argmax(step):
            yield f"argmax/{step.name}", step.target.words * word, f"place of the maximum in each window of {step.name}"
    for item in errors.values():
        yield f"error/{item.name}", size(item), f"{meaning} the error of {item.name}"


def has_argmax(step: Stage | Node) -> bool:
    """Whether the places of maxima are kept; a window of one pixel has no other place."""
    if isinstance(step, Stage):
        return step.is_pooled
    return isinstance(step.layer, MaxPool2d | SlidingMaxPool2d) and step.layer.window != (1, 1)


def _weight_regions(stage: Stage, matrix: KernelMatrix, recipe: Recipe, train: bool) -> Iterator[tuple[str, int, str]]:
    name, kernels, outputs = stage.name, matrix.size, stage.layer.out_channels
    weights = kernels * stage.taps
    yield f"index/{name}", kernels * INDEX_BYTES, "coordinates (row, column) of each live kernel in its CSB block"
    yield f"operand/{name}", weights, "8-bit weights of the live kernels"
    if stage.layer.bias:
        yield f"bias/{name}", outputs * BIAS_BYTES, "stored biases, int32"
    if not train:
        return
    yield f"stored/{name}", weights * stored_bytes(recipe.stored_bits), "stored weights of the live kernels"
    yield f"momentum/{name}", weights * stored_bytes(recipe.momentum_bits), "their momenta"
    yield f"element/{name}", kernels * ELEMENT_BYTES, "first random element of each live kernel, uint32"
    yield f"random/{name}", outputs * ELEMENT_BYTES, "first random element of each channel of the error, uint32"
    if stage.layer.bias:
        yield from _update_regions(name, outputs, "biases", "sum of the errors of each channel, int32; 0 between steps")


def _update_regions(name: str, count: int, what: str, gradient: str) -> Iterator[tuple[str, int, str]]:
    """What an update of vectors needs besides the stored values."""
    one = "bias" if what == "biases" else what
    yield f"bias_momentum/{name}", count * BIAS_BYTES, f"momenta of the {what}, int32"
    yield f"bias_element/{name}", count * ELEMENT_BYTES, f"random element of each {one}, uint32"
    yield f"bias_gradient/{name}", count * BIAS_BYTES, gradient


def _node_regions(node: Node, train: bool) -> Iterator[tuple[str, int, str]]:
    layer, channels = node.layer, node.target.channels
    if train:
        yield f"random/{node.name}", channels * ELEMENT_BYTES, "first random element of each channel of the error, uint32"
    if not isinstance(layer, BatchNorm):
        return
    yield f"record/{node.name}", channels * RECORD_BYTES, "what normalisation keeps of each channel"
    for name, what in ((layer.gamma, "gamma"), (layer.beta, "beta")):
        yield f"bias/{name}", channels * BIAS_BYTES, f"stored {what}, int32"
        if train:
            yield from _update_regions(name, channels, what, f"gradient of each {what}, int32; 0 between steps")
