"""The RTL as a device: the register driver of `fixgrad.machine.device` on the test bench."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fixgrad.gateware.simulation.bench import IDEAL, PEACEFUL, Bench, DramTiming, Hostility
from fixgrad.gateware.simulation.builds import Engine
from fixgrad.gateware.simulation.emit import Netlist
from fixgrad.machine import Machine
from fixgrad.machine.device import Bytes, Device, DeviceError, Outcome, RegisterDevice
from fixgrad.machine.instructions import Unit
from fixgrad.machine.registers import CAUSES, register

__all__ = ["Device", "DeviceError", "Outcome", "RegisterDevice", "RtlDevice"]

#: Cycles that one call of the simulation runs for: a second or so on a large machine.
_CYCLES_A_CALL = 20_000


class RtlDevice(RegisterDevice):
    """A machine's RTL on the test bench.

    Args:
        machine: which machine the design is.
        design: a chip with the ports `s_axi_*`, `m_axi_0_*`, ... and `irq`.
        memory_bytes: of the memory; the machine's by default. Bytes that nobody touches cost nothing.
        engine: the simulator. quick: see `build`.
        timing, hostility: of every memory channel; each channel has a seed of its own.
        trace: a file for the waveform (VCD).
        limit: cycles after which a program is given up.
        progress: told now and then, while a program runs, how many cycles it has run for.
    """

    def __init__(
        self,
        machine: Machine,
        design: Netlist,
        *,
        memory_bytes: int | None = None,
        engine: Engine = Engine.VERILATOR,
        timing: DramTiming = IDEAL,
        hostility: Hostility = PEACEFUL,
        trace: Path | None = None,
        quick: bool = False,
        limit: int = 1 << 34,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.machine, self.limit, self.progress = machine, limit, progress
        self._ended = 0
        self.memory_bytes = memory_bytes or machine.memory.bytes_total
        self.bench = Bench(design, engine, trace=trace, quick=quick)
        self.bench.allocate(self.memory_bytes)
        for channel in range(machine.memory.channels):
            own = Hostility(hostility.seed + channel, hostility.per_mille, hostility.longest, hostility.reorder)
            self.bench.attach_memory(
                f"m_axi_{channel}",
                channel=channel,
                channels=machine.memory.channels,
                interleave=machine.memory.interleave,
                timing=timing,
                hostility=own,
            )
        self.bench.attach_registers("s_axi", hostility)
        units = [unit for unit in CAUSES if f"completed_{unit}_valid" in self.bench.ports]
        self._completed = {unit: self.bench.sink(f"completed_{unit}") for unit in units}
        self.bench.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bench.close()

    def write_memory(self, address: int, data: Bytes) -> None:
        """See `Device`."""
        self.check_range(address, len(data))
        self.bench.memory[address : address + len(data)] = data

    def read_memory(self, address: int, size: int) -> Bytes:
        """See `Device`."""
        self.check_range(address, size)
        return self.bench.memory[address : address + size].copy()

    def read_register(self, name: str) -> int:
        """See `Device`."""
        value, response = self.bench.read_register(0, register(name).offset)
        if response:
            raise DeviceError(f"the read of register {name} was refused with response {response}")
        return value

    def write_register(self, name: str, value: int) -> None:
        """See `RegisterDevice`."""
        response = self.bench.write_register(0, register(name).offset, value)
        if response:
            raise DeviceError(f"the write of {value:#x} to register {name} was refused with response {response}")

    def wait(self) -> bool:
        """See `RegisterDevice`. Raises BenchError where the design broke a rule of AXI."""
        began, came = self.bench.cycle, False
        while not came and self.bench.cycle - began < self.limit:
            came = self.bench.run_until("irq", 1, min(_CYCLES_A_CALL, self.limit - (self.bench.cycle - began)))
            self.bench.check()
            if self.progress is not None:
                self.progress(self.bench.cycle - began)
        self._ended = self.bench.cycle
        return came

    def completed_times(self) -> Mapping[Unit, NDArray[np.int64]]:
        """See `Outcome`; from the cycle on in which the counter of cycles starts."""
        start = self._ended - self.read_wide("CYCLES")
        return {unit: sink.pop()[1].astype(np.int64) - start for unit, sink in self._completed.items()}
