"""Netlists of whole machines, converted once for each state of the sources: Amaranth takes 10 to 30 s for one."""

import hashlib
import importlib.metadata
import json
import os
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from fixgrad.gateware.axi.ports import Port
from fixgrad.gateware.cache import cache_folder
from fixgrad.gateware.simulation.emit import Netlist, netlist
from fixgrad.machine import Machine

#: What a netlist follows from, beside the machine's parameters: these packages and Amaranth.
_PACKAGES = ("gateware", "machine", "numbers")


def accelerator_netlist(machine: Machine) -> Netlist:
    """The netlist of `Accelerator(machine, watched=True)`, from the cache or converted now."""
    text = json.dumps([_sources(), importlib.metadata.version("amaranth"), machine.to_dict()])
    target = cache_folder() / "netlists" / f"{machine.name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    if target.exists():
        os.utime(target)
        found = json.loads(target.read_text(encoding="utf-8"))
        return Netlist(found["top"], found["blocks"], tuple(Port(*port) for port in found["ports"]))
    from fixgrad.gateware.machine import Accelerator

    made = netlist(Accelerator(machine, watched=True), machine.device.block_kind)
    ports = [(port.name, port.bits, port.is_input) for port in made.ports]
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps({"top": made.top, "blocks": dict(made.blocks), "ports": ports}), encoding="utf-8")
    unfinished.replace(target)
    return made


@cache
def _sources() -> str:
    """Digest of every Python file of the packages."""
    whole = hashlib.sha256()

    def add(folder: Traversable) -> None:
        for entry in sorted(folder.iterdir(), key=lambda each: each.name):
            if entry.is_dir():
                add(entry)
            elif entry.name.endswith(".py"):
                content = entry.read_bytes()
                whole.update(f"{entry.name} {len(content)} ".encode() + content)

    for package in _PACKAGES:
        add(resources.files("fixgrad") / package)
    return whole.hexdigest()
