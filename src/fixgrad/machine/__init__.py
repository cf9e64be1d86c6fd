"""What an accelerator is: its parameters, the presets, the instruction set, the register map."""

from fixgrad.machine.parameters import Device, Latencies, Machine, Memory
from fixgrad.machine.presets import PRESETS, preset

__all__ = ["PRESETS", "Device", "Latencies", "Machine", "Memory", "preset"]
