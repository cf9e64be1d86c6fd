"""Simulation of the gateware: builds, test bench, the device that a host sees."""

from fixgrad.gateware.simulation.bench import Bench, BenchError, DramTiming, Hostility
from fixgrad.gateware.simulation.build import Engine, build
from fixgrad.gateware.simulation.emit import Netlist, ToolError, netlist

__all__ = ["Bench", "BenchError", "DramTiming", "Engine", "Hostility", "Netlist", "ToolError", "build", "netlist"]
