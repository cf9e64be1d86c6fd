"""The whole machine `tiny` in RTL."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fixgrad.cli.rtl_device import dram_timing
from fixgrad.gateware.simulation import Hostility, RtlDevice, accelerator_netlist
from fixgrad.machine import Machine, preset

MakeDevice = Callable[..., RtlDevice]
#: A program that stops moving is given up soon.
TIMEOUT_CYCLES = 20_000


@pytest.fixture(scope="session")
def make_device() -> Iterator[MakeDevice]:
    """Makes devices with 4 MiB of memory: `RtlDevice`'s options; the memory has DRAM timing."""
    made: list[RtlDevice] = []

    def make(machine: Machine | None = None, hostility: Hostility | None = None, **options: Any) -> RtlDevice:
        machine = machine or preset("tiny")
        device = RtlDevice(
            machine,
            accelerator_netlist(machine),
            memory_bytes=1 << 22,
            timing=dram_timing(machine),
            hostility=hostility or Hostility(),
            quick=True,
            limit=4_000_000,
            **options,
        )
        device.timeout = TIMEOUT_CYCLES
        made.append(device)
        return device

    yield make
    for device in made:
        device.bench.close()


@pytest.fixture(scope="session")
def tiny(make_device: MakeDevice) -> RtlDevice:
    return make_device()


@pytest.fixture(scope="session")
def hostile_graph(make_device: MakeDevice) -> RtlDevice:
    """`tiny` with an elementwise unit, likewise hostile."""
    return make_device(preset("tiny-graph"), Hostility(12, 200, 9, True))


@pytest.fixture(scope="session")
def hostile_blocks(make_device: MakeDevice) -> RtlDevice:
    """`tiny` as it is built for an ECP5, whose patient queues are in block RAM, likewise hostile."""
    machine = preset("tiny").with_changes(name="tiny-ecp5", device=preset("ecp5-85f").device)
    return make_device(machine, Hostility(13, 200, 9, True))


@pytest.fixture(scope="session")
def hostile_tiny(make_device: MakeDevice) -> RtlDevice:
    """Its memory rests on every channel and answers out of order; the control port rests, too."""
    return make_device(hostility=Hostility(11, 200, 9, True))
