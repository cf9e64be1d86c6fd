"""Runs inside the simulator: the control port under the AXI4-Lite master of cocotbext-axi, with rests on every channel."""

import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from fixgrad.machine import preset
from fixgrad.machine.registers import ADDRESS_SPACE, COUNTERS, REGISTERS, Access, register, reset_value


def of_counter(place: int) -> int:
    """The value of a counter in this test: both halves differ from those of all others."""
    return (1000 + place) << 32 | (2000 + place)


async def turns(dut: object) -> None:
    """Each counter in turn."""
    while True:
        for place in range(len(COUNTERS)):
            dut.counter_turn.value = place
            dut.counter_value.value = of_counter(place)
            await ClockCycles(dut.aclk, 1)


def rests(seed: int):
    """Whether a channel rests, cycle by cycle."""
    source = random.Random(seed)
    while True:
        yield source.random() < 0.4


@cocotb.test()
async def every_register(dut: object) -> None:
    seed = int(os.environ["FIXGRAD_SEED"])
    source = random.Random(seed)
    dut.busy.value = 0
    for name in dir(dut):
        if name.startswith(("show_", "set_")):
            getattr(dut, name).value = 0
    dut.aresetn.value = 0
    cocotb.start_soon(Clock(dut.aclk, 10, "ns").start())
    cocotb.start_soon(turns(dut))
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "bus"), dut.aclk, dut.aresetn, reset_active_level=False)
    parts = (master.write_if.aw_channel, master.write_if.w_channel, master.write_if.b_channel)
    for number, channel in enumerate((*parts, master.read_if.ar_channel, master.read_if.r_channel)):
        channel.set_pause_generator(rests(seed + number))
    await ClockCycles(dut.aclk, 5)
    dut.aresetn.value = 1
    wanted = {each.offset: reset_value(each, preset("tiny")) for each in REGISTERS}
    low = {register(f"{name}_LOW").offset: of_counter(place) for place, name in enumerate(COUNTERS)}
    high = {offset + 4 for offset in low}
    kept = 0  # the high half of the counter whose low half was read last
    wanted |= {offset: value % (1 << 32) for offset, value in low.items()}
    access = {each.offset: each.access for each in REGISTERS}
    for _ in range(300):
        offset = 4 * source.randrange(ADDRESS_SPACE // 4)
        if source.random() < 0.5:
            value = source.randrange(1 << 32)
            response = await master.write(offset, value.to_bytes(4, "little"))
            writable = access.get(offset, Access.READ) is not Access.READ
            assert response.resp == (AxiResp.OKAY if writable else AxiResp.SLVERR), hex(offset)
            if access.get(offset) is Access.READ_WRITE:
                wanted[offset] = value
        else:
            response = await master.read(offset, 4)
            assert response.resp == (AxiResp.OKAY if offset in wanted else AxiResp.SLVERR), hex(offset)
            kept = low[offset] >> 32 if offset in low else kept
            assert int.from_bytes(response.data, "little") == (kept if offset in high else wanted.get(offset, 0)), hex(offset)
