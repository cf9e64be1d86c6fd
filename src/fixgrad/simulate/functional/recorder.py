"""Every tensor of a step in canonical order, collected while a program runs, and which instruction made each part of it."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler import Program
from fixgrad.compiler.layout import BIAS_BYTES, code_bytes, stored_bytes
from fixgrad.compiler.stages import FeatureMap, Stage
from fixgrad.machine.encoding import Instruction
from fixgrad.network import MaxPool2d

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
        activations: by layer with weights: its codes before pooling, int16 [batch, channels, rows, columns].
        errors: by tensor: 8-bit codes where they are made: the logits, and the input of each layer but the first.
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
        self._stages = {stage.name: stage for stage in layout.stages}
        self._by_target = {stage.target.name: stage for stage in layout.stages}
        self._index = {
            stage.name: layout.weight_index(stage, matrix).ravel()
            for stage, matrix in zip(layout.stages, layout.matrices, strict=True)
        }

    def saw_codes(self, index: int, instruction: Instruction, codes: Ints) -> None:
        """POST or LOSS made these codes."""
        region = self.program.layout.table.region_at(instruction.target)
        assert region is not None
        kind, _, name = region.name.partition("/")
        if kind == "activation":
            self._forward(index, instruction, codes, self._by_target[name])
        elif instruction.name == "LOSS":
            stage = self._stages[name]
            place = _Place(instruction.random_image // self.program.machine.lanes, 0)
            self._keep(index, "error", self.errors, stage.name, stage.error, place, codes, (0, 0), stage)
        else:
            self._backward(index, instruction, codes, self._stages[name])

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
        kind, _, layer = region.name.partition("/")
        if kind == "bias":
            first = (instruction.stored - region.address) // BIAS_BYTES
            order = self.program.layout.table.orders[self._stages[layer].target.name]
            name, places = f"{layer}.bias", order[first : first + len(gradients)]
        else:
            first = (instruction.stored - region.address) // stored_bytes(self.program.recipe.stored_bits)
            name, places = f"{layer}.weight", self._index[layer][first : first + len(gradients)]
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
        for part in reversed(self.parts.get((kind, name), [])):
            if part.holds(place):
                return int(part.index_in_program)
        return None

    def _forward(self, index: int, i: Instruction, codes: Ints, stage: Stage) -> None:
        address = self.program.layout.table.address(f"activation/{stage.target.name}")
        place = self._place(i.target - address, stage.target, code_bytes(i.out_bits))
        corner = i.out0_top, i.out0_left
        self._keep(index, "activation", self.activations, stage.name, stage.error, place, codes, corner, stage)

    def _backward(self, index: int, i: Instruction, codes: Ints, before: Stage) -> None:
        stage = self.program.layout.stages[before.index + 1]
        address = self.program.layout.table.address(f"error/{before.name}")
        place = self._place(i.target - address, before.error, 1)
        corner = i.out0_top, i.out0_left
        self._keep(index, "error", self.errors, stage.layer.inputs[0], stage.source, place, codes, corner, before)

    def _place(self, offset: int, item: FeatureMap, width: int) -> _Place:
        words = offset // (self.program.machine.lanes * width)
        return _Place(words // item.words, words % item.words // item.pixels)

    def _keep(
        self,
        index: int,
        kind: str,
        tensors: dict[str, Codes],
        name: str,
        item: FeatureMap,
        place: _Place,
        codes: Ints,
        corner: tuple[int, int],
        owner: Stage,
    ) -> None:
        """Put codes [channels, rows, columns, lanes] where they belong; `owner` is the stage whose target orders the channels."""
        batch, lanes = self.program.batch, self.program.machine.lanes
        if name not in tensors:
            tensors[name] = np.zeros((batch, item.channels, item.rows, item.columns), np.int16)
        order = self.program.layout.table.orders[owner.target.name]
        channels = order[place.channel : place.channel + len(codes)]
        first = place.micro_batch * lanes
        images = slice(first, min(first + lanes, batch))
        rows, columns = (slice(corner[axis], corner[axis] + codes.shape[1 + axis]) for axis in (0, 1))
        tensors[name][images, channels, rows, columns] = codes.transpose(3, 0, 1, 2)[: images.stop - first]
        self.parts.setdefault((kind, name), []).append(Part(index, images, channels, rows, columns))


def all_errors(program: Program, recorder: Recorder, image: NDArray[np.uint8]) -> dict[str, Codes]:
    """The error of every tensor behind the first layer with weights, in the tensors' shapes.

    NG makes the error of a layer's input. On the way back to the layer before only pooling changes it, and what comes of
    that is in memory.
    """
    network, stages = program.network, program.layout.stages
    found = {network.logits: recorder.errors[network.logits]}
    for before, stage in pairwise(stages):
        codes, tensor = recorder.errors[stage.layer.inputs[0]], stage.layer.inputs[0]
        while tensor not in found:
            found[tensor] = codes
            layer = network.layer(tensor)
            if tensor == before.name:
                break
            if isinstance(layer, MaxPool2d):
                codes = program.layout.read_error(image, before.name)
            tensor = layer.inputs[0]
    return {name: codes.reshape(len(codes), *network.shapes[name]) for name, codes in found.items()}
