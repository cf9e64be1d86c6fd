"""Every tensor of a step in canonical order, collected while a program runs, and which instruction made each part of it."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler import Program
from fixgrad.compiler.graph import Graph
from fixgrad.compiler.layout import BIAS_BYTES, Region, code_bytes, stored_bytes
from fixgrad.compiler.stages import FeatureMap, Stage
from fixgrad.machine.encoding import Instruction

Codes = NDArray[np.integer[Any]]
Ints = NDArray[np.int64]


class Part(NamedTuple):
    """What one instruction made of a tensor: images, logical channels and a rectangle of pixels of a map.

    A parameter's part has the linear indices of its elements as `channels`.
    """

    index_in_program: int
    images: slice
    channels: Ints
    rows: slice
    columns: slice

    def holds(self, place: tuple[int, ...]) -> bool:
        """Whether it made the element at (image, channel, row, column), or the parameter element at (index,)."""
        if len(place) == 1:
            return bool((self.channels == place[0]).any())
        image, channel, row, column = place
        spans = ((self.images, image), (self.rows, row), (self.columns, column))
        return all(span.start <= item < span.stop for span, item in spans) and bool((self.channels == channel).any())


@dataclass(frozen=True, slots=True)
class _Place:
    """Micro-batch and first channel that an address names."""

    micro_batch: int
    channel: int


class Recorder:
    """An observer that keeps everything.

    Attributes:
        activations: by layer: its codes (before the pool that POST does), int16 [batch, channels, rows, columns].
        errors: 8-bit codes where they are made: by tensor those that POST makes, by error map those of LOSS and ELEMENTWISE.
        gradients: by parameter, int32, in its shape; what is pruned is 0.
        parts: by (kind, name): which instruction made what.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        layout = program.layout
        self.activations: dict[str, Codes] = {}
        self.errors: dict[str, Codes] = {}
        self.gradients: dict[str, Codes] = {}
        self.parts: dict[tuple[str, str], list[Part]] = {}
        self._by_target = {step.target.name: step for step in layout.graph.steps}
        self._by_sink = {stage.sink.map.name: stage for stage in layout.stages if stage.sink is not None}
        self._error_maps = {item.name: item for item in layout.graph.errors}
        self._written = _written_errors(layout.graph)
        self._index = {
            stage.name: layout.weight_index(stage, matrix).ravel()
            for stage, matrix in zip(layout.stages, layout.matrices, strict=True)
        }

    def saw_codes(self, index: int, instruction: Instruction, codes: Ints) -> None:
        """POST, LOSS or ELEMENTWISE made these codes."""
        region = self._region_of(index, instruction)
        kind, _, name = region.name.partition("/")
        offset = instruction.target - region.address
        if kind == "activation":
            step = self._by_target[name]
            place = self._place(offset, step.target, code_bytes(instruction.out_bits))
            item = step.error if isinstance(step, Stage) else step.target
            self._keep(index, instruction, "activation", self.activations, step.name, item, place, codes, step.target)
        elif instruction.name == "POST":
            stage = self._by_sink[name]
            assert stage.sink is not None
            place = self._place(offset, stage.sink.map, 1)
            self._keep(index, instruction, "error", self.errors, stage.sink.tensor, stage.source, place, codes, stage.source)
        else:
            item = self._error_maps[name]
            place = self._place(offset, item, 1)
            self._keep(index, instruction, "error", self.errors, name, item, place, codes, item)

    def _region_of(self, index: int, instruction: Instruction) -> Region:
        """The region that an instruction writes to: where errors share memory, that of an error that it may write."""
        table, label = self.program.layout.table, self.program.labels[index]
        last = [self.program.network.logits]
        for name in last if label.phase == "loss" else self._written.get(label.layer, ()) if label.phase == "ng" else ():
            region = table.regions[f"error/{name}"]
            if region.address <= instruction.target < region.end:
                return region
        found = table.region_at(instruction.target)
        assert found is not None
        return found

    def gradients_of(self, name: str) -> Codes:
        """The gradient of a parameter; zeros before an UPDATE took it."""
        if name not in self.gradients:
            self.gradients[name] = np.zeros(self.program.network.parameters[name], np.int32)
        return self.gradients[name]

    def saw_gradients(self, index: int, instruction: Instruction, gradients: NDArray[np.int32]) -> None:
        """UPDATE took these gradients."""
        if not len(gradients):
            return
        region = self.program.layout.table.region_at(instruction.stored)
        assert region is not None
        kind, _, owner = region.name.partition("/")
        if kind == "bias":
            vector = next(item for item in self.program.layout.vectors if item.region == owner)
            first = (instruction.stored - region.address) // BIAS_BYTES
            name, places = vector.name, self.program.layout.order(vector.map)[first : first + len(gradients)]
        else:
            first = (instruction.stored - region.address) // stored_bytes(self.program.recipe.stored_bits)
            name, places = f"{owner}.weight", self._index[owner][first : first + len(gradients)]
        self.gradients_of(name).reshape(-1)[places] = gradients
        none = slice(0, 0)
        self.parts.setdefault(("parameter", name), []).append(Part(index, none, places, none, none))

    def maker(self, kind: str, name: str, place: tuple[int, ...]) -> int | None:
        """Position of the instruction that made an element last.

        Args:
            kind: ``activation``, ``error`` or ``parameter``.
            name: layer whose output it is, tensor whose error it is, or parameter.
            place: (image, channel, row, column) of the map, or (linear index,) of the parameter.
        """
        stored = self.program.layout.stored_errors.get(name) if kind == "error" else None
        for each in (name,) if stored is None else (name, stored.name):
            for part in reversed(self.parts.get((kind, each), [])):
                if part.holds(place):
                    return int(part.index_in_program)
        return None

    def _place(self, offset: int, item: FeatureMap, width: int) -> _Place:
        words = offset // (self.program.machine.lanes * width)
        return _Place(words // item.words, words % item.words // item.pixels)

    def _keep(
        self,
        index: int,
        instruction: Instruction,
        kind: str,
        tensors: dict[str, Codes],
        name: str,
        item: FeatureMap,
        place: _Place,
        codes: Ints,
        ordered: FeatureMap,
    ) -> None:
        """Put codes [channels, rows, columns, lanes] where they belong; `ordered` is the map whose order the channels have."""
        batch, lanes = self.program.batch, self.program.machine.lanes
        if name not in tensors:
            tensors[name] = np.zeros((batch, item.channels, item.rows, item.columns), np.int16)
        channels = self.program.layout.order(ordered)[place.channel : place.channel + len(codes)]
        first = place.micro_batch * lanes
        images = slice(first, min(first + lanes, batch))
        corner = (instruction.out0_top, instruction.out0_left) if instruction.name == "POST" else (0, 0)
        rows, columns = (slice(corner[axis], corner[axis] + codes.shape[1 + axis]) for axis in (0, 1))
        tensors[name][images, channels, rows, columns] = codes.transpose(3, 0, 1, 2)[: images.stop - first]
        self.parts.setdefault((kind, name), []).append(Part(index, images, channels, rows, columns))


def _written_errors(graph: Graph) -> dict[str, list[str]]:
    """Layer -> the error maps that instructions of its NG write."""
    found: dict[str, list[str]] = {}
    for back in graph.backward:
        written = found.setdefault(back.step.name, [])
        written += [sent.target.name for sent in back.sent]
        if isinstance(back.step, Stage) and back.step.sink is not None:
            written.append(back.step.sink.map.name)
        for item in back.sums:
            found.setdefault(graph.made_by[item.tensor], []).append(item.target.name)
    return found


def all_errors(program: Program, recorder: Recorder, image: NDArray[np.uint8]) -> dict[str, Codes]:
    """The error of every tensor that has one, and what readers make for one of several, in the tensors' shapes.

    They are in memory, but behind a layer whose error POST scatters into windows, and where another error has taken the place:
    those are as they were made.
    """
    layout, graph = program.layout, program.layout.graph
    found = {name: layout.read_error(image, name) for name in layout.stored_errors}
    made = {stage.sink.map.name: stage.sink.tensor for stage in layout.stages if stage.sink is not None}
    wanted = {tensor: made.get(item.name, item.name) for tensor, item in graph.error_of.items()}
    sent = {item.name for back in graph.backward for item in back.sent if item.is_new} | set(made.values())
    wanted |= {name: name for name in sent if "@" in name}
    for tensor, name in wanted.items():
        shape = (program.batch, *program.network.shapes[tensor.partition("@")[0]])
        codes = recorder.errors.get(name)
        # An error that POST has scattered is seen before that alone.
        if tensor not in found and codes is not None and codes.size == int(np.prod(shape)):
            found[tensor] = codes.reshape(shape)
    return found
