"""Runs inside the simulator: the DMA chip on the AXI4 memory of cocotbext-axi, with rests on every channel."""

import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiRam

MEMORY = 1 << 17
HALF = 1 << 16


def rests(seed: int):
    """Whether a channel rests, cycle by cycle."""
    source = random.Random(seed)
    while True:
        yield source.random() < 0.3


class Ends:
    """Sources and sinks on the chip's streams."""

    def __init__(self, dut: object) -> None:
        self.dut = dut
        self.got: list[bytes] = []
        self.done = 0

    def port(self, name: str) -> object:
        return getattr(self.dut, name)

    async def send(self, stream: str, **fields: int) -> None:
        for name, value in fields.items():
            self.port(f"{stream}_{name}").value = value
        self.port(f"{stream}_valid").value = 1
        while True:
            await RisingEdge(self.dut.aclk)
            if self.port(f"{stream}_ready").value == 1:
                break
        self.port(f"{stream}_valid").value = 0

    async def take(self, stream: str) -> None:
        source = random.Random(9)
        while True:
            ready = source.random() < 0.7
            self.port(f"{stream}_ready").value = int(ready)
            await RisingEdge(self.dut.aclk)
            if ready and self.port(f"{stream}_valid").value == 1:
                count = int(self.port(f"{stream}_count").value)
                self.got.append(int(self.port(f"{stream}_data").value).to_bytes(8, "little")[:count])

    async def count_done(self) -> None:
        self.dut.done0_ready.value = 1
        while True:
            await RisingEdge(self.dut.aclk)
            self.done += int(self.dut.done0_valid.value == 1)


@cocotb.test()
async def reads_and_writes(dut: object) -> None:
    seed = int(os.environ["FIXGRAD_SEED"])
    source = random.Random(seed)
    for name in ("read0", "read1", "write0", "write1", "in0", "in1"):
        getattr(dut, f"{name}_valid").value = 0
    dut.stop.value, dut.base.value, dut.limit.value = 0, 0, MEMORY
    dut.aresetn.value = 0
    cocotb.start_soon(Clock(dut.aclk, 10, "ns").start())
    ram = AxiRam(AxiBus.from_prefix(dut, "m_axi_0"), dut.aclk, dut.aresetn, reset_active_level=False, size=MEMORY)
    channels = (ram.read_if.ar_channel, ram.read_if.r_channel, ram.write_if.aw_channel)
    for number, channel in enumerate((*channels, ram.write_if.w_channel, ram.write_if.b_channel)):
        channel.set_pause_generator(rests(seed + number))
    image = bytearray(source.randbytes(MEMORY))
    ram.write(0, bytes(image))
    await ClockCycles(dut.aclk, 5)
    dut.aresetn.value = 1
    ends = Ends(dut)
    cocotb.start_soon(ends.take("out0"))
    cocotb.start_soon(ends.count_done())
    reads = [(source.randrange(HALF - 5000), source.randrange(1, 1200), source.randrange(1, 9)) for _ in range(6)]
    wanted = b"".join(bytes(image[a : a + n]) for a, n, _ in reads)

    async def read() -> None:
        for address, length, size in reads:
            await ends.send("read0", address=address, length=length, size=size)

    cocotb.start_soon(read())
    for number in range(5):
        address, length, size = HALF + 8192 * number + source.randrange(4000), source.randrange(1, 700), source.randrange(1, 9)
        data = source.randbytes(length)
        image[address : address + length] = data
        await ends.send("write0", address=address, length=length, size=size)
        for at in range(0, length, size):
            await ends.send("in0", payload=int.from_bytes(data[at : at + size], "little"))
    for _ in range(200):
        if ends.done == 5 and len(b"".join(ends.got)) == len(wanted):
            break
        await ClockCycles(dut.aclk, 100)
    assert ends.done == 5
    assert b"".join(ends.got) == wanted
    assert ram.read(0, MEMORY) == bytes(image)
