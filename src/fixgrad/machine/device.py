"""A machine as its host sees it. The same host code runs on a simulator, on the RTL, and on a board."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import FixgradError
from fixgrad.machine.encoding import Instruction, decode, disassemble, encode_program, identity
from fixgrad.machine.instructions import INSTRUCTION_BYTES, Unit
from fixgrad.machine.parameters import Machine
from fixgrad.machine.registers import (
    CAUSES,
    MAGIC,
    READABLE_PARAMETERS,
    Cause,
    ErrorCode,
    counter_name,
    register,
)

Bytes = NDArray[np.uint8]


class DeviceError(FixgradError):
    """The device is not a machine of ours, is another one, or does not answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended.

    Attributes:
        error: NONE where it reached HALT.
        instruction: index of the instruction at fault.
        address: first byte of the access that failed, where one did.
        cycles: from start to end; 0 where the device does not count them.
        causes: where the cycles of each unit went; empty where the device does not count them.
        completed: cycle at which each instruction of a unit completed, in order (of COMPUTE and UPDATE: in the slowest group);
            empty where the device does not tell.
        seconds: time that the host waited.
    """

    error: ErrorCode
    instruction: int = 0
    address: int | None = None
    cycles: int = 0
    causes: Mapping[Unit, Mapping[Cause, int]] = field(default_factory=dict)
    completed: Mapping[Unit, NDArray[np.int64]] = field(default_factory=dict)
    seconds: float = 0.0

    def explain(self, program: bytes | Bytes) -> str:
        """One line: what happened, where, and the instruction there."""
        if self.error is ErrorCode.NONE:
            return f"the program ended after {self.cycles} cycles"
        where = f" at {self.address:#x}" if self.address is not None else ""
        return f"{self.error.text}{where}: instruction {self.instruction}{self._text(bytes(program))}"

    def _text(self, program: bytes) -> str:
        raw = program[self.instruction * INSTRUCTION_BYTES : (self.instruction + 1) * INSTRUCTION_BYTES]
        try:
            return f", {disassemble(decode(raw))}" if raw else ", behind the program's end"
        except FixgradError as problem:
            return f", {problem}"


class Device(ABC):
    """A machine with its memory.

    Attributes:
        machine: what it should be.
        memory_bytes: its memory; addresses begin at 0.
    """

    machine: Machine
    memory_bytes: int

    @abstractmethod
    def write_memory(self, address: int, data: Bytes) -> None:
        """Puts bytes into memory."""

    @abstractmethod
    def read_memory(self, address: int, size: int) -> Bytes:
        """A copy of bytes of memory."""

    @abstractmethod
    def read_register(self, name: str) -> int:
        """A register of `fixgrad.machine.registers`."""

    @abstractmethod
    def run(self, address: int, instructions: int) -> Outcome:
        """Runs the program of so many instructions at `address` to its end.

        Raises:
            DeviceError: the device does not answer.
        """

    def run_program(self, address: int, program: list[Instruction]) -> Outcome:
        """Puts a program into memory and runs it."""
        self.write_memory(address, np.frombuffer(encode_program(program), np.uint8))
        return self.run(address, len(program))

    def check_range(self, address: int, size: int) -> None:
        """Raises DeviceError where bytes lie outside of the memory."""
        if address < 0 or size < 0 or address + size > self.memory_bytes:
            raise DeviceError(
                f"bytes {address:#x} to {address + size:#x} are outside of the device's memory of {self.memory_bytes:#x} bytes"
            )


class RegisterDevice(Device):
    """A device that is driven by its registers: the RTL, or a board.

    Attributes:
        timeout: cycles without progress after which the machine stops by itself.
    """

    timeout: int = 1 << 20

    @abstractmethod
    def write_register(self, name: str, value: int) -> None:
        """Writes a register; raises DeviceError where the device refuses."""

    @abstractmethod
    def wait(self) -> bool:
        """Waits for the interrupt; False where it does not come within a time that any program should end in."""

    def read_wide(self, name: str) -> int:
        """The 64 bits of NAME_LOW and NAME_HIGH, low half first."""
        return self.read_register(f"{name}_LOW") | self.read_register(f"{name}_HIGH") << 32

    def write_wide(self, name: str, value: int) -> None:
        """Writes NAME_LOW and NAME_HIGH."""
        self.write_register(f"{name}_LOW", value & 0xFFFF_FFFF)
        self.write_register(f"{name}_HIGH", value >> 32)

    def check_identity(self) -> None:
        """Raises DeviceError where the device is no machine of ours, or another one; the message names what differs."""
        magic = self.read_register("MAGIC")
        if magic != MAGIC:
            raise DeviceError(f"the device is no fixgrad machine: register MAGIC reads {magic:#010x}, not {MAGIC:#010x}")
        found, wanted = self.read_wide("IDENTITY"), int(identity(self.machine), 16)
        if found == wanted:
            return
        different = []
        for name in READABLE_PARAMETERS:
            there, here = self.read_register(name.upper()), getattr(self.machine, name)
            if there != here:
                different.append(f"{name} is {there} there, {here} here")
        reason = "; ".join(different) or "its memory, its latencies or its instruction set differ"
        raise DeviceError(f"the device is another machine than {self.machine.name} ({found:016x}, not {wanted:016x}): {reason}")

    def run(self, address: int, instructions: int) -> Outcome:
        """See `Device.run`."""
        self.check_range(address, instructions * INSTRUCTION_BYTES)
        self.check_identity()
        self.write_wide("EXPECTED_IDENTITY", int(identity(self.machine), 16))
        self.write_wide("MEMORY_BASE", 0)
        self.write_wide("MEMORY_LIMIT", self.memory_bytes)
        self.write_wide("PROGRAM", address)
        self.write_register("PROGRAM_LENGTH", instructions)
        self.write_register("TIMEOUT", self.timeout)
        self.write_register("INTERRUPT_STATUS", _bits("INTERRUPT_STATUS", "done", "error"))
        self.write_register("INTERRUPT_ENABLE", _bits("INTERRUPT_ENABLE", "done", "error"))
        began = time.perf_counter()
        self.write_register("CONTROL", _bits("CONTROL", "start"))
        if not self.wait():
            raise DeviceError(f"{self.machine.name} raises no interrupt: STATUS is {self.read_register('STATUS'):#x}; reset it")
        return self._outcome(time.perf_counter() - began)

    def _outcome(self, seconds: float) -> Outcome:
        error = ErrorCode(self.read_register("ERROR"))
        failed_access = error in (ErrorCode.MEMORY_READ, ErrorCode.MEMORY_WRITE, ErrorCode.OUTSIDE_MEMORY)
        causes = {unit: {cause: self.read_wide(counter_name(unit, cause)) for cause in of} for unit, of in CAUSES.items()}
        return Outcome(
            error,
            self.read_register("ERROR_INSTRUCTION"),
            self.read_wide("ERROR_ADDRESS") if failed_access else None,
            self.read_wide("CYCLES"),
            causes,
            self.completed_times(),
            seconds,
        )

    def completed_times(self) -> Mapping[Unit, NDArray[np.int64]]:
        """`Outcome.completed` of the program that has just ended."""
        return {}


def _bits(name: str, *wanted: str) -> int:
    """A register's value with these bits set."""
    return sum(1 << bits.low for bits in register(name).bits if bits.name in wanted)
