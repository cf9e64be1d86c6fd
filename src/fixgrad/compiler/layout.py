"""Where everything lies in memory: named regions, and the numbers of step-table entries and range registers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.matrix import KernelMatrix
from fixgrad.compiler.stages import FeatureMap, Stage
from fixgrad.machine import Machine
from fixgrad.machine.instructions import STEP_ENTRY_BYTES
from fixgrad.network import Recipe

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


def entry_names(stages: Sequence[Stage], train: bool) -> list[str]:
    """Names of the step table's entries, in order."""
    names = [f"ff/{stage.name}" for stage in stages]
    if train:
        names += [f"ng/{stage.name}" for stage in stages[1:]]
        names.append(f"loss/{stages[-1].name}")
        names += [f"update/{name}" for stage in stages for name in stage.layer.parameters]
    return names


class _Allocator:
    def __init__(self) -> None:
        self.regions: dict[str, Region] = {}
        self._end = 0

    def add(self, name: str, size: int, meaning: str, alignment: int = ALIGNMENT) -> None:
        start = -(-self._end // alignment) * alignment
        self.regions[name] = Region(name, start, size, meaning)
        self._end = start + size


def lay_out(
    stages: Sequence[Stage],
    matrices: Sequence[KernelMatrix],
    orders: dict[str, Ints],
    machine: Machine,
    batch: int,
    recipe: Recipe,
    train: bool,
) -> RegionTable:
    """The regions of all tensors; the program's own follows when it is known how long it is."""
    places = _Allocator()
    names = entry_names(stages, train)
    places.add("step_table", len(names) * STEP_ENTRY_BYTES, "step table: 64 bytes an entry")
    if train:
        places.add("statistics", len(names) * REGISTER_BYTES, "range registers: 16 bytes each")
        places.add("labels", micro_batches(batch, machine.lanes) * machine.lanes * LABEL_BYTES, "uint16 [micro-batch][lane]")
    for region in _map_regions(stages, machine, batch, train):
        places.add(*region, alignment=MAP_ALIGNMENT)
    for stage, matrix in zip(stages, matrices, strict=True):
        for region in _weight_regions(stage, matrix, recipe, train):
            places.add(*region)
    numbers = {name: number for number, name in enumerate(names)}
    return RegionTable(places.regions, orders, numbers, dict(numbers) if train else {})


def with_program(table: RegionTable, size: int) -> RegionTable:
    """The table with the program's own region behind all others."""
    start = -(-table.bytes // MAP_ALIGNMENT) * MAP_ALIGNMENT
    program = Region("program", start, size, "instructions: 128 bytes each")
    return replace(table, regions={**table.regions, "program": program})


def _map_regions(stages: Sequence[Stage], machine: Machine, batch: int, train: bool) -> Iterator[tuple[str, int, str]]:
    word = micro_batches(batch, machine.lanes) * machine.lanes
    meaning = "codes [micro-batch][channel][row][column][lane] of"

    def size(item: FeatureMap) -> int:
        return item.words * word * code_bytes(item.bits)

    yield f"activation/{stages[0].source.name}", size(stages[0].source), f"{meaning} {stages[0].source.name}"
    for stage in stages:
        yield f"activation/{stage.target.name}", size(stage.target), f"{meaning} {stage.target.name}"
        if train:
            yield f"error/{stage.name}", size(stage.error), f"{meaning} the error of {stage.name}"
        if train and stage.is_pooled:
            yield f"argmax/{stage.name}", stage.target.words * word, f"place of the maximum in each window of {stage.name}"


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
        yield f"bias_momentum/{name}", outputs * BIAS_BYTES, "momenta of the biases, int32"
        yield f"bias_element/{name}", outputs * ELEMENT_BYTES, "random element of each bias, uint32"
        yield f"bias_gradient/{name}", outputs * BIAS_BYTES, "sum of the errors of each channel, int32; 0 between steps"
