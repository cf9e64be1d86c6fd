"""The memory image of a program: what the host writes before a step, and how it reads tensors back in canonical order."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.layout import BIAS_BYTES, REGISTER_BYTES, RegionTable, code_bytes, stored_bytes
from fixgrad.compiler.matrix import KernelMatrix, parameter_index
from fixgrad.compiler.stages import FeatureMap, Stage, input_layers
from fixgrad.compiler.step_entries import encode_step_table
from fixgrad.errors import DataError, UsageError
from fixgrad.network import Network, Recipe, State, StepTable
from fixgrad.network.operations import pass_forward

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Codes = NDArray[np.integer[Any]]


class StoredParameter(NamedTuple):
    """A parameter as the machine stores it, in the parameter's own shape; int32 (operands int8). A bias has no operands."""

    stored: NDArray[np.int32]
    momentum: NDArray[np.int32]
    operand: NDArray[np.int8] | None


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
        stages, matrices: of the program.
        trains: whether the program is a training step.
    """

    table: RegionTable
    network: Network
    recipe: Recipe
    batch: int
    lanes: int
    stages: tuple[Stage, ...]
    matrices: tuple[KernelMatrix, ...]
    trains: bool

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
            self._write_bias(image, state, stage)
            self._write_elements(image, stage, matrix)
        return image

    def update_step_table(self, image: Bytes, table: StepTable) -> None:
        """Write the scales and constants of the coming step."""
        entries = encode_step_table(self.stages, self.table.entries, table, self.recipe)
        self._region(image, "step_table")[:] = entries.reshape(-1)

    def write_batch(self, image: Bytes, x: Codes, labels: NDArray[np.integer] | None) -> None:
        """Write the input codes [batch, ...] and the labels [batch] of the coming step."""
        if len(x) != self.batch:
            raise UsageError(f"the batch has {len(x)} images: the program is for {self.batch}")
        for layer in input_layers(self.network):
            x = pass_forward(layer, x)
        source = self.stages[0].source
        self._write_map(image, f"activation/{source.name}", source, x)
        if labels is not None and self.trains:
            padded = np.zeros(self._padded_batch, np.uint16)
            padded[: self.batch] = labels
            self._region(image, "labels")[:] = padded.view(np.uint8)

    def read_activation(self, image: Bytes, tensor: str) -> Codes:
        """Codes of a stored tensor, in its shape with the batch first.

        Raises:
            UsageError: the machine does not store it: of a pooled layer it keeps the pooled map alone.
        """
        for item in (self.stages[0].source, *(stage.target for stage in self.stages)):
            if tensor in item.tensors:
                codes = self._read_map(image, f"activation/{item.name}", item)
                return codes.reshape(self.batch, *self.network.shapes[tensor])
        raise UsageError(f"the activation {tensor!r} is not stored: stored are {', '.join(self.stored_activations)}")

    def read_error(self, image: Bytes, tensor: str) -> Codes:
        """8-bit codes of a stored error, in the tensor's shape with the batch first.

        Raises:
            UsageError: the machine does not store it: it keeps the errors of the layers with weights, before pooling.
        """
        for stage in self.stages:
            if tensor == stage.name and self.trains:
                codes = self._read_map(image, f"error/{stage.name}", stage.error)
                return codes.reshape(self.batch, *self.network.shapes[tensor])
        names = ", ".join(stage.name for stage in self.stages) if self.trains else "none"
        raise UsageError(f"the error {tensor!r} is not stored: stored are {names}")

    @property
    def stored_activations(self) -> tuple[str, ...]:
        """Tensors that `read_activation` finds."""
        maps = (self.stages[0].source, *(stage.target for stage in self.stages))
        return tuple(name for item in maps for name in item.tensors)

    def read_parameter(self, image: Bytes, name: str) -> StoredParameter:
        """A weight or bias: stored codes, momenta, and the 8-bit operands of the next step; what is pruned is 0."""
        layer = name.rpartition(".")[0]
        stage, matrix = next(
            (pair for pair in zip(self.stages, self.matrices, strict=True) if pair[0].name == layer), (None, None)
        )
        if stage is None or matrix is None or name not in stage.layer.parameters:
            raise UsageError(f"{name!r} is no parameter of {self.network.name}: it has {', '.join(self.network.parameters)}")
        if name.endswith(".bias"):
            return self._read_bias(image, stage)
        return self._read_weight(image, stage, matrix)

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
        by_lane = padded.reshape(-1, self.lanes, item.channels, item.pixels)[:, :, self.table.orders[item.name]]
        self._region(image, region)[:] = np.ascontiguousarray(by_lane.transpose(0, 2, 3, 1)).view(np.uint8).reshape(-1)

    def _read_map(self, image: Bytes, region: str, item: FeatureMap) -> Codes:
        order = self._order_of(item)
        dtype = np.dtype(np.int8 if code_bytes(item.bits) == 1 else "<i2")
        stored = self._region(image, region).view(dtype).reshape(-1, item.channels, item.pixels, self.lanes)
        codes = np.empty((len(stored), self.lanes, item.channels, item.pixels), dtype)
        codes[:, :, order] = stored.transpose(0, 3, 1, 2)
        return codes.reshape(self._padded_batch, item.channels, item.pixels)[: self.batch]

    def _order_of(self, item: FeatureMap) -> Ints:
        """Channel order of a map; the error of a layer has that of the layer's target."""
        target = next((stage.target.name for stage in self.stages if stage.name == item.name), item.name)
        return self.table.orders[target]

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

    def _write_bias(self, image: Bytes, state: State, stage: Stage) -> None:
        if not stage.layer.bias:
            return
        parameter, order = state.parameters[f"{stage.name}.bias"], self.table.orders[stage.target.name]
        self._region(image, f"bias/{stage.name}")[:] = to_bytes(parameter.stored[order], BIAS_BYTES)
        if self.trains:
            self._region(image, f"bias_momentum/{stage.name}")[:] = to_bytes(parameter.momentum[order], BIAS_BYTES)

    def _write_elements(self, image: Bytes, stage: Stage, matrix: KernelMatrix) -> None:
        """First random elements: of each kernel, of each bias, and of each channel of the layer's error."""
        if not self.trains:
            return
        order, target = self.table.orders[stage.target.name], stage.target
        # NG requantises the error of the stored map; LOSS that of the logits: the same shape.
        channels = order * target.pixels * self.batch
        elements = {f"element/{stage.name}": self.weight_index(stage, matrix)[:, 0], f"random/{stage.name}": channels}
        if stage.layer.bias:
            elements[f"bias_element/{stage.name}"] = order
        for region, values in elements.items():
            self._region(image, region)[:] = (values & 0xFFFFFFFF).astype("<u4").view(np.uint8)

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

    def _read_bias(self, image: Bytes, stage: Stage) -> StoredParameter:
        order = self.table.orders[stage.target.name]
        stored, momentum = np.zeros(len(order), np.int32), np.zeros(len(order), np.int32)
        stored[order] = from_bytes(self._region(image, f"bias/{stage.name}"), BIAS_BYTES)
        if self.trains:
            momentum[order] = from_bytes(self._region(image, f"bias_momentum/{stage.name}"), BIAS_BYTES)
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

