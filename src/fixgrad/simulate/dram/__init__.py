"""DRAM: bandwidth and latency of memory channels, by closed forms or bank by bank.

`open_channel` gives a channel of either fidelity behind one interface; `docs/dram.md` explains both models.
"""

from fixgrad.simulate.dram.address import AddressMap
from fixgrad.simulate.dram.channel import (
    Channel,
    Clock,
    ClosedFormChannel,
    Fidelity,
    Served,
    Totals,
    open_channel,
    transfer_cycles,
    transfer_ns,
)
from fixgrad.simulate.dram.closed_form import ClosedForm, Service, refresh_share
from fixgrad.simulate.dram.standard import (
    ControllerPolicy,
    DramStandard,
    DramTiming,
    available_standards,
    load_standard,
    standard_from_table,
)
from fixgrad.simulate.dram.trace import TraceReport, TraceRequest, run_trace
from fixgrad.simulate.dram.transfer import Transfer, burst_addresses, burst_count

__all__ = [
    "AddressMap",
    "Channel",
    "Clock",
    "ClosedForm",
    "ClosedFormChannel",
    "ControllerPolicy",
    "DramStandard",
    "DramTiming",
    "Fidelity",
    "Served",
    "Service",
    "Totals",
    "TraceReport",
    "TraceRequest",
    "Transfer",
    "available_standards",
    "burst_addresses",
    "burst_count",
    "load_standard",
    "open_channel",
    "refresh_share",
    "run_trace",
    "standard_from_table",
    "transfer_cycles",
    "transfer_ns",
]
