"""A compiled program: instructions, memory layout, and what is known about it without running it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.code import Code
from fixgrad.compiler.image import MemoryLayout
from fixgrad.compiler.packing import Columns
from fixgrad.compiler.schedule import Schedule
from fixgrad.compiler.stream import Label
from fixgrad.machine import Machine
from fixgrad.machine.encoding import Instruction, decode, decode_program, identity
from fixgrad.machine.instructions import INSTRUCTION_BYTES
from fixgrad.network import Network, Recipe, State, StepTable

Ints = NDArray[np.integer[Any]]


class Instructions(Sequence[Instruction]):
    """The instructions of a program, decoded when they are asked for.

    Args:
        encoded: uint8 [instructions, 128].
    """

    def __init__(self, encoded: NDArray[np.uint8]) -> None:
        self._encoded = encoded
        self._decoded: list[Instruction] | None = None

    @classmethod
    def from_image(cls, data: NDArray[np.uint8]) -> "Instructions":
        """The instructions that a program's region holds."""
        return cls(data.reshape(-1, INSTRUCTION_BYTES))

    def __len__(self) -> int:
        return len(self._encoded)

    @overload
    def __getitem__(self, index: int) -> Instruction: ...
    @overload
    def __getitem__(self, index: slice) -> "Instructions": ...
    def __getitem__(self, index: int | slice) -> "Instruction | Instructions":
        if isinstance(index, slice):
            return Instructions(self._encoded[index])
        if self._decoded is None:
            return decode(self._encoded[index].tobytes(), index * INSTRUCTION_BYTES)
        return self._decoded[index]

    def __iter__(self) -> Iterator[Instruction]:
        if self._decoded is None:
            self._decoded = decode_program(self._encoded.tobytes())
        return iter(self._decoded)


@dataclass(frozen=True, eq=False)
class Program:
    """A training step (or forward pass) of one network, with its masks, for one machine and batch.

    Attributes:
        machine, network, batch, recipe, mode: what it was compiled for; `mode` is ``train`` or ``forward``.
        count_padding: whether taps in the zero padding take a cycle.
        masks: live kernels of each weight, bool [out, in], by parameter name; weights that are not pruned have none.
        code: the instructions.
        layout: the memory image.
        labels: of each instruction: (layer, phase).
        kernel_counts: of each COMPUTE, in order: the kernels that each PE takes, int32 [computes, groups, pes].
        taps: of each COMPUTE: the cycles that a kernel takes each PE, int32 [computes, pes].
        schedule: tiling, predicted cost and lower bound of each layer and phase.
    """

    machine: Machine
    network: Network
    batch: int
    recipe: Recipe
    mode: str
    count_padding: bool
    masks: dict[str, NDArray[np.bool_]] = field(repr=False)
    code: Code = field(repr=False)
    layout: MemoryLayout = field(repr=False)
    labels: tuple[Label, ...] = field(repr=False)
    kernel_counts: Ints = field(repr=False)
    taps: Ints = field(repr=False)
    schedule: Schedule = field(repr=False)

    @property
    def encoded(self) -> NDArray[np.uint8]:
        """The instructions' bytes, uint8 [instructions, 128]."""
        return self.code.encoded

    @property
    def identity(self) -> str:
        """Hash of machine and instruction set: what the identity register of the machine must read."""
        return identity(self.machine)

    @property
    def instructions(self) -> Instructions:
        """The instructions in program order."""
        return Instructions(self.encoded)

    def build_image(
        self, state: State, table: StepTable, x: Ints, labels: NDArray[np.integer[Any]] | None = None
    ) -> NDArray[np.uint8]:
        """The whole memory before a step; see `MemoryLayout.build_image`."""
        return self.layout.build_image(state, table, x, labels, self.encoded)

    @property
    def opcodes(self) -> NDArray[np.uint8]:
        """Opcode of each instruction."""
        return self.code.opcodes

    @property
    def positions(self) -> dict[str, NDArray[np.int64]]:
        """Name of a kind -> positions of its instructions in program order."""
        return self.code.positions

    def columns(self, name: str) -> Columns:
        """All instructions of a kind at once: field name -> values, in the order of `positions[name]`."""
        return self.code.columns(name)

    @property
    def compute_cycles(self) -> NDArray[np.int64]:
        """Cycles that each COMPUTE takes each PE, [computes, groups, pes]: kernels times (pixel, tap) pairs."""
        return self.kernel_counts.astype(np.int64) * self.taps[:, None, :]
