"""The state of the machine: its memories, queues and registers, with every access checked."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from fixgrad.compiler.step_entries import decode_entry
from fixgrad.machine import Machine
from fixgrad.machine.encoding import Instruction
from fixgrad.machine.instructions import STEP_ENTRY_BYTES
from fixgrad.simulate.functional.fault import Fault

Array = NDArray[Any]
#: Range registers that the field `statistics` can name, and their 32-bit words: magnitudes, saturated, overflow, 0.
REGISTERS, REGISTER_WORDS = 256, 4
_MASK32 = 0xFFFFFFFF


class Rectangle(NamedTuple):
    """Pixels [top, bottom) x [left, right)."""

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
    def pixels(self) -> int:
        return self.rows * self.columns


class Entries(NamedTuple):
    """Kernels in a queue: coordinates, and weights [count, taps] (None in WG); `last` is the end mark behind them."""

    out: NDArray[np.int64]
    channel: NDArray[np.int64]
    weights: NDArray[np.int8] | None
    words: int
    last: bool


@dataclass(slots=True)
class Queue:
    """The kernel queue of one PE."""

    entries: deque[Entries] = field(default_factory=deque)
    words: int = 0

    def push(self, item: Entries, capacity: int) -> None:
        self.words += item.words
        if self.words > capacity:
            raise Fault(f"a kernel queue overflows: {self.words} words of {capacity}")
        self.entries.append(item)

    def take(self) -> list[Entries]:
        """Everything up to the end mark."""
        taken: list[Entries] = []
        while not taken or not taken[-1].last:
            if not self.entries:
                raise Fault("a kernel queue runs empty before its end mark")
            taken.append(self.entries.popleft())
            self.words -= taken[-1].words
        return taken


class Chip:
    """The machine between two instructions.

    Attributes:
        image: the external memory, changed in place.
        inputs: int8 [pes, input_words, lanes]: all groups hold the same inputs.
        lanes: int32 [groups, pes, lane_words, lanes].
        loaded_inputs: input words that a LOAD_INPUT has written, bool [pes, input_words].
        loaded_errors: lane words that hold an error of a LOAD_ERROR, bool [groups, pes, lane_words].
        loaded_params: entries that a LOAD_PARAMS has written, bool [param_words].
        gradients: int32 [groups, pes, gradient_words].
        numbered: kernels that each PE has numbered since the last COMPUTE that began at 0, [groups, pes].
        undrained: halves of the lane memories whose accumulators POST has still to take, bool [groups, 2].
        unused: gradients that UPDATE has still to take, bool [groups, pes, gradient_words].
        registers: uint32 [256, 4], the range registers.
    """

    def __init__(self, machine: Machine, image: NDArray[np.uint8]) -> None:
        groups, pes, lanes = machine.groups, machine.pes_per_group, machine.lanes
        self.machine = machine
        self.image = image
        self.inputs = np.zeros((pes, machine.input_words, lanes), np.int8)
        self.lanes = np.zeros((groups, pes, machine.lane_words, lanes), np.int32)
        self.loaded_inputs = np.zeros(self.inputs.shape[:2], np.bool_)
        self.loaded_errors = np.zeros(self.lanes.shape[:3], np.bool_)
        self.loaded_params = np.zeros(machine.param_words, np.bool_)
        self.gradients = np.zeros((groups, pes, machine.gradient_words), np.int32)
        self.numbered = np.zeros((groups, pes), np.int64)
        self.undrained = np.zeros((groups, 2), np.bool_)
        self.unused = np.zeros((groups, pes, machine.gradient_words), np.bool_)
        self.params = np.zeros((machine.param_words, STEP_ENTRY_BYTES), np.uint8)
        self.registers = np.zeros((REGISTERS, REGISTER_WORDS), np.uint32)
        self.queues = [[Queue() for _ in range(pes)] for _ in range(groups)]

    def bytes_at(self, address: int, size: int) -> NDArray[np.uint8]:
        """`size` bytes of memory, a view."""
        if address < 0 or address + size > len(self.image):
            raise Fault(f"bytes {address:#x} to {address + size:#x} are outside of the memory of {len(self.image):#x}")
        return self.image[address : address + size]

    def words_at(self, address: int, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
        """A strided view [*shape, lanes] of memory; `strides` in words of all lanes."""
        item = np.dtype(dtype)
        word = self.machine.lanes * item.itemsize
        reach = sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)) + 1
        if 0 in shape:
            return np.zeros((*shape, self.machine.lanes), item)
        base = self.bytes_at(address, reach * word)
        steps = (*(stride * word for stride in strides), item.itemsize)
        return as_strided(base.view(item), (*shape, self.machine.lanes), steps)

    def integers_at(self, address: int, dtype: str, count: int) -> Array:
        """Consecutive little-endian integers, a view."""
        return self.bytes_at(address, count * np.dtype(dtype).itemsize).view(dtype)

    def entry(self, number: int) -> dict[str, int]:
        """An entry of the step table in the parameter memory."""
        if number >= len(self.params):
            raise Fault(f"step-table entry {number} is outside of the parameter memory of {len(self.params)}")
        if not self.loaded_params[number]:
            raise Fault(f"step-table entry {number} was never loaded into the parameter memory")
        return decode_entry(self.params[number])

    def measure(self, register: int, magnitude: int, saturated: int = 0, overflow: bool = False) -> None:
        """Update a range register."""
        row = self.registers[register]
        row[0] |= np.uint32(magnitude)
        row[1] = (int(row[1]) + saturated) & _MASK32
        row[2] |= np.uint32(overflow)

    def lane_half(self, word: int) -> int:
        """Half of the lane memories that holds a word."""
        return int(word >= self.machine.half_lane_words)

    def rectangles(self, instruction: Instruction, prefix: str) -> tuple[Rectangle, ...]:
        """The rectangles of the machine's PEs."""
        sides = ("top", "bottom", "left", "right")
        found = []
        for pe in range(self.machine.pes_per_group):
            rectangle = Rectangle(*(getattr(instruction, f"{prefix}{pe}_{side}") for side in sides))
            if rectangle.rows < 0 or rectangle.columns < 0:
                raise Fault(f"the rectangle {prefix}{pe} ends before it begins: {tuple(rectangle)}")
            found.append(rectangle if rectangle.pixels else Rectangle(0, 0, 0, 0))
        return tuple(found)


def magnitudes(values: Array) -> int:
    """OR of the magnitudes, as the range detector's 32 bits."""
    return int(np.bitwise_or.reduce(np.abs(values.astype(np.int64)), axis=None)) if values.size else 0
