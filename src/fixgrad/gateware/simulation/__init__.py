"""Simulation of the gateware: builds, test bench, the device that a host sees."""

from fixgrad.gateware.simulation.bench import Bench, BenchError, DramTiming, Hostility
from fixgrad.gateware.simulation.builds import Engine, build
from fixgrad.gateware.simulation.designs import accelerator_netlist
from fixgrad.gateware.simulation.device import Device, DeviceError, Outcome, RegisterDevice, RtlDevice
from fixgrad.gateware.simulation.emit import Netlist, ToolError, netlist, verilog

__all__ = [
    "Bench",
    "BenchError",
    "Device",
    "DeviceError",
    "DramTiming",
    "Engine",
    "Hostility",
    "Netlist",
    "Outcome",
    "RegisterDevice",
    "RtlDevice",
    "ToolError",
    "accelerator_netlist",
    "build",
    "netlist",
    "verilog",
]
