"""The memory image of a program: what the host writes before a step, and how it reads tensors back in canonical order."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.error_memory import error_lifetimes
from fixgrad.compiler.graph import Graph
from fixgrad.compiler.layout import BIAS_BYTES, REGISTER_BYTES, RegionTable, code_bytes, stored_bytes
from fixgrad.compiler.matrix import KernelMatrix, parameter_index
from fixgrad.compiler.stages import FeatureMap, Stage
from fixgrad.compiler.step_entries import encode_step_table
from fixgrad.errors import DataError, UsageError
from fixgrad.machine.elementwise_instructions import RECORD, RECORD_BYTES
from fixgrad.network import BatchNorm, Network, Recipe, State, StepTable
from fixgrad.network.normalisation import Running
from fixgrad.network.operations import pass_forward

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Codes = NDArray[np.integer[Any]]
#: Name of a field of a record -> its number.
_RECORD = {item.name: item.offset // 8 for item in RECORD}


class StoredParameter(NamedTuple):
    """A parameter as the machine stores it, in the parameter's own shape; int32 (operands int8). A bias has no operands."""

    stored: NDArray[np.int32]
    momentum: NDArray[np.int32]
    operand: NDArray[np.int8] | None


class Vector(NamedTuple):
    """A parameter of one element a channel: its name, what its regions are named by, and the map that orders its channels."""

    name: str
    region: str
    map: FeatureMap


class RangeRegister(NamedTuple):
    """What a range detector saw: bits of the largest magnitude, saturated elements, and whether an accumulator wrapped."""

    magnitude_bits: int
    saturated: int
    overflow: bool


@dataclass(frozen=True)
class MemoryLayout:
    """Where every tensor of a program lies, and how it is written and read.

    Attributes:
        table: regions, channel orders, numbers of step-table entries and range registers.
        network, recipe, batch: of the program.
        lanes: of the machine.
        graph, matrices: of the program.
        trains: whether the program is a training step.
    """

    table: RegionTable
    network: Network
    recipe: Recipe
    batch: int
    lanes: int
    graph: Graph
    matrices: tuple[KernelMatrix, ...]
    trains: bool

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The layers with weights."""
        return self.graph.stages

    @property
    def regions(self) -> dict[str, Any]:
        """Regions by name."""
        return self.table.regions

    @property
    def bytes(self) -> int:
        """Size of the image."""
        return self.table.bytes

    def build_image(self, state: State, table: StepTable, x: Codes, labels: NDArray[np.integer] | None, program: Bytes) -> Bytes:
        """The whole memory before a step: program, step table, batch, parameters; all else is 0.

        Args:
            state: whose masks must be those of the program.
            table: of the coming step.
            x: input codes [batch, ...].
            labels: [batch]; None for a forward pass.
            program: the encoded instructions.

        Raises:
            DataError: the state's masks are not the program's.
            UsageError: a batch of another size than the program's.
        """
        image = np.zeros(self.bytes, np.uint8)
        self._region(image, "program")[:] = program.reshape(-1)
        self.update_step_table(image, table)
        self.write_batch(image, x, labels)
        for stage, matrix in zip(self.stages, self.matrices, strict=True):
            self._write_weight(image, state, stage, matrix)
            if self.trains:
                elements = self.weight_index(stage, matrix)[:, 0]
                self._write_integers(image, f"element/{stage.name}", elements)
        for vector in self.vectors:
            self._write_vector(image, state, vector)
        if self.trains:
            for step in self.graph.steps:
                # A tensor's error has the shape of the map that is stored; of the logits LOSS makes it: the same shape.
                first = self.order(step.target) * step.target.pixels * self.batch
                self._write_integers(image, f"random/{step.name}", first)
        for layer in self.network.batch_norms:
            self._write_running(image, layer, state.running[layer.name])
        return image

    def update_step_table(self, image: Bytes, table: StepTable) -> None:
        """Write the scales and constants of the coming step."""
        entries = encode_step_table(self.graph, self.table.entries, table, self.recipe, trains=self.trains)
        self._region(image, "step_table")[:] = entries.reshape(-1)

    def write_batch(self, image: Bytes, x: Codes, labels: NDArray[np.integer] | None) -> None:
        """Write the input codes [batch, ...] and the labels [batch] of the coming step."""
        if len(x) != self.batch:
            raise UsageError(f"the batch has {len(x)} images: the program is for {self.batch}")
        for layer in self.graph.host:
            x = pass_forward(layer, x)
        self._write_map(image, f"activation/{self.graph.source.name}", self.graph.source, x)
        if labels is not None and self.trains:
            padded = np.zeros(self._padded_batch, np.uint16)
            padded[: self.batch] = labels
            self._region(image, "labels")[:] = padded.view(np.uint8)

    def read_activation(self, image: Bytes, tensor: str) -> Codes:
        """Codes of a stored tensor, in its shape with the batch first.

        Raises:
            UsageError: the machine does not store it: of a pooled layer it keeps the pooled map alone.
        """
        for item in self.graph.maps:
            if tensor in item.tensors:
                codes = self._read_map(image, f"activation/{item.name}", item)
                return codes.reshape(self.batch, *self.network.shapes[tensor])
        raise UsageError(f"the activation {tensor!r} is not stored: stored are {', '.join(self.stored_activations)}")

    def read_error(self, image: Bytes, tensor: str) -> Codes:
        """8-bit codes of a stored error, in the tensor's shape with the batch first.

        Raises:
            UsageError: the machine does not store it: behind a layer with weights it keeps errors before pooling alone.
        """
        item = self.stored_errors.get(tensor)
        if item is None:
            names = ", ".join(self.stored_errors) or "none"
            raise UsageError(f"the error {tensor!r} is not stored: stored are {names}")
        codes = self._read_map(image, f"error/{item.name}", item)
        return codes.reshape(self.batch, *self.network.shapes[tensor.partition("@")[0]])

    @cached_property
    def stored_errors(self) -> dict[str, FeatureMap]:
        """Errors that `read_error` finds, by the names of a trace: a tensor's, and ``tensor@layer``, made for one of several."""
        if not self.trains:
            return {}
        kept = self._kept_errors
        found = {name: item for name, item in self.graph.error_of.items() if item.words == int(np.prod(self.network.shapes[name]))}
        for back in self.graph.backward:
            sink = back.step.sink if isinstance(back.step, Stage) else None
            made = [(sink.tensor, sink.map)] if sink is not None else [(item.name, item.target) for item in back.sent if item.is_new]
            found |= {name: item for name, item in made if "@" in name}
        return {name: item for name, item in found.items() if item.name in kept}

    @property
    def _kept_errors(self) -> set[str]:
        """Error maps in whose memory nothing is written after them."""
        names = {item.name for item in self.graph.errors}
        if not self.table.shares_errors:
            return names
        lifetimes, regions = error_lifetimes(self.graph), self.table.regions

        def is_overwritten(name: str) -> bool:
            mine = regions[f"error/{name}"]
            later = (regions[f"error/{other}"] for other in names if lifetimes[other].written > lifetimes[name].written)
            return any(other.address < mine.end and mine.address < other.end for other in later)

        return {name for name in names if not is_overwritten(name)}

    @property
    def stored_activations(self) -> tuple[str, ...]:
        """Tensors that `read_activation` finds."""
        return tuple(name for item in self.graph.maps for name in item.tensors)

    def read_parameter(self, image: Bytes, name: str) -> StoredParameter:
        """A weight or bias: stored codes, momenta, and the 8-bit operands of the next step; what is pruned is 0."""
        vector = next((item for item in self.vectors if item.name == name), None)
        if vector is not None:
            return self._read_vector(image, vector)
        for stage, matrix in zip(self.stages, self.matrices, strict=True):
            if name == f"{stage.name}.weight":
                return self._read_weight(image, stage, matrix)
        raise UsageError(f"{name!r} is no parameter of {self.network.name}: it has {', '.join(self.network.parameters)}")

    def read_running(self, image: Bytes, name: str) -> Running:
        """The running statistics of a batch normalisation."""
        layer = self.network.layer(name)
        records = self._region(image, f"record/{name}").view("<i8").reshape(-1, RECORD_BYTES // 8)
        order = self.order(self.graph.step_of(layer.name).target)
        mean, variance = (np.empty(len(order), np.int64) for _ in range(2))
        mean[order], variance[order] = records[:, _RECORD["running_mean"]], records[:, _RECORD["running_variance"]]
        return Running(mean, variance)

    def read_statistics(self, image: Bytes) -> dict[str, RangeRegister]:
        """The range registers, by the names of step-table entries: ``ff/conv1``, ``ng/conv2``, ``update/conv1.weight``."""
        rows = self._region(image, "statistics").reshape(-1, REGISTER_BYTES).view("<u4")
        return {
            name: RangeRegister(int(rows[number, 0]).bit_length(), int(rows[number, 1]), bool(rows[number, 2]))
            for name, number in self.table.registers.items()
        }

    def weight_index(self, stage: Stage, matrix: KernelMatrix) -> Ints:
        """Linear index in the layer's weight of every stored element, [kernels, taps], in storage order."""
        rows, columns = matrix.entries()
        orders = self.table.orders
        first = parameter_index(stage, rows, columns, orders[stage.target.name], orders[stage.source.name])
        return first[:, None] + np.arange(stage.taps)

    @cached_property
    def vectors(self) -> tuple[Vector, ...]:
        """Biases of layers, and gamma and beta of normalisations."""
        found = [Vector(f"{stage.name}.bias", stage.name, stage.target) for stage in self.stages if stage.layer.bias]
        for node in self.graph.nodes:
            found += [Vector(name, name, node.target) for name in node.layer.parameters]
        return tuple(found)

    def order(self, item: FeatureMap) -> Ints:
        """The logical channel that each place of an activation or error map holds."""
        return self.table.orders[self.graph.order_of.get(item.name, item.name)]

    @cached_property
    def _padded_batch(self) -> int:
        return -(-self.batch // self.lanes) * self.lanes

    def _region(self, image: Bytes, name: str) -> Bytes:
        region = self.table.regions[name]
        return image[region.address : region.end]

    def _write_map(self, image: Bytes, region: str, item: FeatureMap, codes: Codes) -> None:
        """Codes [batch, ...] in canonical order into [micro-batch][channel][row][column][lane]."""
        dtype = np.dtype(np.int8 if code_bytes(item.bits) == 1 else "<i2")
        padded = np.zeros((self._padded_batch, item.channels, item.pixels), dtype)
        padded[: self.batch] = codes.reshape(self.batch, item.channels, item.pixels)
        by_lane = padded.reshape(-1, self.lanes, item.channels, item.pixels)[:, :, self.order(item)]
        self._region(image, region)[:] = np.ascontiguousarray(by_lane.transpose(0, 2, 3, 1)).view(np.uint8).reshape(-1)

    def _read_map(self, image: Bytes, region: str, item: FeatureMap) -> Codes:
        order = self.order(item)
        dtype = np.dtype(np.int8 if code_bytes(item.bits) == 1 else "<i2")
        stored = self._region(image, region).view(dtype).reshape(-1, item.channels, item.pixels, self.lanes)
        codes = np.empty((len(stored), self.lanes, item.channels, item.pixels), dtype)
        codes[:, :, order] = stored.transpose(0, 3, 1, 2)
        return codes.reshape(self._padded_batch, item.channels, item.pixels)[: self.batch]

    def _write_weight(self, image: Bytes, state: State, stage: Stage, matrix: KernelMatrix) -> None:
        name = f"{stage.name}.weight"
        parameter = state.parameters[name]
        index = self.weight_index(stage, matrix).ravel()
        stored = parameter.stored.reshape(-1)[index]
        if np.count_nonzero(stored) != np.count_nonzero(parameter.stored) or not _same_mask(parameter.mask, index, stage):
            raise DataError(f"the mask of {name} is not the program's: compile the program again with the state's masks")
        rows, columns = matrix.places.row, matrix.places.col
        self._region(image, f"index/{stage.name}")[:] = np.stack([rows, columns], axis=1).astype(np.uint8).reshape(-1)
        operand = parameter.operand().reshape(-1)[index].astype(np.int8)
        self._region(image, f"operand/{stage.name}")[:] = operand.view(np.uint8)
        if self.trains:
            momentum = parameter.momentum.reshape(-1)[index]
            for region, codes, bits in (("stored", stored, self.recipe.stored_bits), ("momentum", momentum, self.recipe.momentum_bits)):
                self._region(image, f"{region}/{stage.name}")[:] = to_bytes(codes, stored_bytes(bits))

    def _write_vector(self, image: Bytes, state: State, vector: Vector) -> None:
        parameter, order = state.parameters[vector.name], self.order(vector.map)
        self._region(image, f"bias/{vector.region}")[:] = to_bytes(parameter.stored[order], BIAS_BYTES)
        if self.trains:
            self._region(image, f"bias_momentum/{vector.region}")[:] = to_bytes(parameter.momentum[order], BIAS_BYTES)
            self._write_integers(image, f"bias_element/{vector.region}", order)

    def _write_integers(self, image: Bytes, region: str, values: Ints) -> None:
        """Values modulo 2**32, as uint32."""
        self._region(image, region)[:] = (values & 0xFFFFFFFF).astype("<u4").view(np.uint8)

    def _write_running(self, image: Bytes, layer: BatchNorm, running: Running) -> None:
        order = self.order(self.graph.step_of(layer.name).target)
        records = np.zeros((layer.channels, RECORD_BYTES // 8), "<i8")
        records[:, _RECORD["running_mean"]], records[:, _RECORD["running_variance"]] = running.mean[order], running.variance[order]
        self._region(image, f"record/{layer.name}")[:] = records.view(np.uint8).reshape(-1)

    def _read_weight(self, image: Bytes, stage: Stage, matrix: KernelMatrix) -> StoredParameter:
        shape, index = stage.layer.weight_shape, self.weight_index(stage, matrix).ravel()
        operand = np.zeros(shape, np.int8)
        operand.reshape(-1)[index] = self._region(image, f"operand/{stage.name}").view(np.int8)
        stored, momentum = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        if self.trains:
            stored.reshape(-1)[index] = from_bytes(self._region(image, f"stored/{stage.name}"), stored_bytes(self.recipe.stored_bits))
            momentum.reshape(-1)[index] = from_bytes(
                self._region(image, f"momentum/{stage.name}"), stored_bytes(self.recipe.momentum_bits)
            )
        return StoredParameter(stored, momentum, operand)

    def _read_vector(self, image: Bytes, vector: Vector) -> StoredParameter:
        order = self.order(vector.map)
        stored, momentum = np.zeros(len(order), np.int32), np.zeros(len(order), np.int32)
        stored[order] = from_bytes(self._region(image, f"bias/{vector.region}"), BIAS_BYTES)
        if self.trains:
            momentum[order] = from_bytes(self._region(image, f"bias_momentum/{vector.region}"), BIAS_BYTES)
        return StoredParameter(stored, momentum, None)


def _same_mask(mask: NDArray[np.bool_] | None, index: Ints, stage: Stage) -> bool:
    """Whether a mask keeps exactly as many elements as the program; that they are the same follows where it keeps those."""
    shape = stage.layer.weight_shape
    if mask is None:
        return index.size == int(np.prod(shape))
    kept = np.broadcast_to(mask.reshape(*shape[:2], *(1,) * (len(shape) - 2)), shape).reshape(-1)
    return bool(np.count_nonzero(kept) == index.size and kept[index].all())


def to_bytes(codes: Codes, width: int) -> Bytes:
    """Signed codes as little-endian integers of `width` bytes each."""
    return np.ascontiguousarray(codes.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width]).reshape(-1)


def from_bytes(data: Bytes, width: int) -> NDArray[np.int32]:
    """Little-endian signed integers of `width` (1 to 4) bytes each."""
    wide = np.zeros((data.size // width, 4), np.uint8)
    wide[:, 4 - width :] = data.reshape(-1, width)
    codes: NDArray[np.int32] = wide.view("<i4").reshape(-1) >> np.int32(8 * (4 - width))
    return codes.astype(np.int32)

