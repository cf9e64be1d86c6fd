"""The functional simulator as a device: the host's driver runs on it as on the RTL or on a board."""

import time

import numpy as np

from fixgrad.machine import Machine
from fixgrad.machine.device import Bytes, Device, Outcome
from fixgrad.machine.encoding import decode_program
from fixgrad.machine.instructions import INSTRUCTION_BYTES
from fixgrad.machine.registers import ErrorCode, register, reset_value
from fixgrad.simulate.functional.order import Order
from fixgrad.simulate.functional.run import Observer, execute


class FunctionalDevice(Device):
    """A machine that executes instructions one by one and counts no cycles. Its registers read as after reset.

    Args:
        machine: which one.
        memory_bytes: of its memory, all zero at first; the machine's own by default.
        order: of the units among each other.

    Attributes:
        observer: told of every result that never reaches memory.
    """

    def __init__(self, machine: Machine, memory_bytes: int | None = None, order: Order | None = None) -> None:
        self.machine, self.order = machine, order
        self.memory_bytes = memory_bytes or machine.memory.bytes_total
        self.observer: Observer | None = None
        self._memory = np.zeros(self.memory_bytes, np.uint8)

    def write_memory(self, address: int, data: Bytes) -> None:
        """See `Device`."""
        self.check_range(address, len(data))
        self._memory[address : address + len(data)] = data

    def read_memory(self, address: int, size: int) -> Bytes:
        """See `Device`."""
        self.check_range(address, size)
        return self._memory[address : address + size].copy()

    def read_register(self, name: str) -> int:
        """See `Device`."""
        return reset_value(register(name), self.machine)

    def run(self, address: int, instructions: int) -> Outcome:
        """See `Device`.

        Raises:
            ProgramError: bytes that are no instruction.
            IllegalInstruction: an instruction that cannot be executed; no memory is lost, but what ran before it stays done.
        """
        began = time.perf_counter()
        program = decode_program(self.read_memory(address, instructions * INSTRUCTION_BYTES).tobytes())
        execute(self.machine, self._memory, program, self.observer, self.order)
        return Outcome(ErrorCode.NONE, seconds=time.perf_counter() - began)
