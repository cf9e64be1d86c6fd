"""The RTL of a machine as a device, with the memory that the timing simulator has."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fixgrad.errors import UsageError

if TYPE_CHECKING:
    from fixgrad.gateware.simulation import DramTiming, RtlDevice
    from fixgrad.machine import Machine

#: Rests on every channel in hostile mode: begun in a fifth of the cycles, up to so many cycles long.
_HOSTILE_PER_MILLE, _HOSTILE_LONGEST = 200, 9
#: What a memory channel is asked for at a time in the mean: bytes of which the sustained rate is that of long streams.
_STREAM_BYTES = 1 << 16
_PAGE = 4096


def rtl_device(
    machine: "Machine",
    memory_bytes: int,
    *,
    trace: Path | None = None,
    hostile: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> "RtlDevice":
    """The machine in Verilator, with a DRAM of its standard's timing behind each port.

    Args:
        memory_bytes: that a program touches.
        trace: a file for the waveform (VCD), many megabytes for a thousand cycles of a large machine.
        hostile: a seed: random rests on every channel of memory and control port, and bursts out of order.
        progress: told now and then how many cycles a program has run for.

    Raises:
        UsageError: the tools are not installed.
    """
    try:
        from fixgrad.gateware.simulation import Hostility, RtlDevice, accelerator_netlist
    except ModuleNotFoundError as missing:
        raise UsageError(f"{missing.name} is not installed: the executor rtl needs fixgrad[rtl]") from None
    hostility = Hostility() if hostile is None else Hostility(hostile, _HOSTILE_PER_MILLE, _HOSTILE_LONGEST, True)
    return RtlDevice(
        machine,
        accelerator_netlist(machine),
        memory_bytes=-(-memory_bytes // _PAGE) * _PAGE,
        timing=dram_timing(machine),
        hostility=hostility,
        trace=trace,
        quick=True,  # what costs four times the build gains nothing here: measured on tiny and kcu1500
        progress=progress,
    )


def dram_timing(machine: "Machine") -> "DramTiming":
    """Timing of one memory channel for the test bench, in cycles of the machine, from the machine's DRAM standard.

    Latency is that of a closed bank, the rate that of a long stream, both by the closed forms of `fixgrad.simulate.dram`;
    refresh is apart, since the test bench refreshes in one piece.
    """
    from fixgrad.gateware.simulation import DramTiming
    from fixgrad.simulate.dram import AddressMap, Clock, ClosedForm, Transfer, load_standard, refresh_share

    standard, clock = load_standard(machine.memory.standard), Clock(machine.clock_mhz)
    form, timing = ClosedForm(standard, AddressMap.BANK_GROUP_LOWEST), standard.timing
    stream_ns = form.service(Transfer(_STREAM_BYTES)).busy_ns * (1 - refresh_share(standard))
    return DramTiming(
        read_latency=clock.cycles(form.latency(write=False).closed_bank),
        write_latency=clock.cycles(standard.controller.front_end_ns),
        bytes_per_kilocycle=int(_STREAM_BYTES / stream_ns * clock.ns(1000)),
        turnaround=clock.cycles(form.turnaround_ns(to_write=False)),
        refresh_interval=clock.cycles(timing.t_refi * standard.clock_ns),
        refresh_cycles=clock.cycles((timing.t_rfc + timing.t_rp + timing.t_rcd) * standard.clock_ns),
    )
