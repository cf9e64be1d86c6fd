"""The board around a machine: SDRAM controller against a model of the chip, host bridge over a serial line."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from fixgrad.errors import UsageError
from fixgrad.gateware.axi.bus import Axi4LiteSignature, Axi4Signature
from fixgrad.gateware.axi.lite import LiteSlave
from fixgrad.gateware.synthesis.board.host_bridge import Request, SerialHost
from fixgrad.gateware.synthesis.board.sdram import Command, Sdram
from fixgrad.gateware.synthesis.board.sdram_timing import SdramCycles, SdramPart
from fixgrad.gateware.synthesis.board.ulx3s import SITES, Pll

#: As the real one, with few rows and columns so that bursts cross them, and little to wait for.
SMALL = SdramPart(row_bits=11, column_bits=5, power_up=1000.0, refresh=2000.0)
CLOCK_MHZ = 50.0
AXI = Axi4Signature(address_bits=20, data_bytes=8, id_bits=2)


class ChipModel:
    """An SDRAM that insists on its rules: banks open, times kept, refreshed in time."""

    def __init__(self, part: SdramPart, clock_mhz: float) -> None:
        self.part, self.cycles = part, SdramCycles.of(part, clock_mhz)
        self.words = np.zeros(part.capacity // 2, np.uint16)
        self.open: dict[int, tuple[int, int]] = {}  # bank -> row, cycle of ACTIVATE
        self.closed_at = self.refreshed_at = self.written_at = -1000
        self.refreshes, self.is_ready = 0, False

    def step(self, cycle: int, command: Command, bank: int, a: int, dqm: int, dq: int | None) -> int | None:
        """One edge of the chip's clock; returns what a READ sends."""
        times = self.cycles
        if command is not Command.NOP:
            assert cycle - self.refreshed_at >= times.rfc, f"{command} during a refresh"
        if command is Command.PRECHARGE:
            assert cycle - self.written_at >= times.wr
            assert all(cycle - at >= times.ras for _, at in self.open.values())
            self.open, self.closed_at = {}, cycle
        elif command is Command.REFRESH:
            assert not self.open
            assert cycle - self.closed_at >= times.rp
            self.refreshed_at, self.refreshes = cycle, self.refreshes + 1
        elif command is Command.MODE:
            assert self.refreshes >= 2
            assert a == 0b1000100000, "bursts of one, CAS latency 2"
            self.is_ready = True
        elif command is Command.ACTIVATE:
            assert self.is_ready
            assert cycle - self.closed_at >= times.rp
            assert bank not in self.open
            self.open[bank] = a, cycle
        elif command in (Command.READ, Command.WRITE):
            row, at = self.open[bank]
            assert cycle - at >= times.rcd
            place = (row << self.part.bank_bits | bank) << self.part.column_bits | a
            if command is Command.READ:
                return int(self.words[place])
            assert dq is not None
            mask = (0 if dqm & 1 else 0xFF) | (0 if dqm & 2 else 0xFF00)
            self.words[place] = (int(self.words[place]) & ~mask) | (dq & mask)
            self.written_at = cycle
        return None


def plugged(sdram: Sdram, model: ChipModel) -> Callable[[Any], Any]:
    """A process that is the chip: a command on the pins is seen half a cycle later; data of CAS latency 2 is there a cycle after."""

    async def chip(ctx: Any) -> None:
        cycle, pins = 0, sdram.pins
        values = pins.command, pins.ba, pins.a, pins.dqm, pins.dq_o, pins.dq_oe
        seen: list[int | None] = [None]
        async for _, _, command, bank, a, dqm, dq, is_driven in ctx.tick().sample(*values):
            seen.append(model.step(cycle, Command(command), bank, a, dqm, dq if is_driven else None))
            sent = seen.pop(0)
            ctx.set(pins.dq_i, 0xDEAD if sent is None else sent)
            cycle += 1

    return chip


class Master:
    """Bursts of an AXI4 master in a test bench."""

    def __init__(self, port: Any, generator: np.random.Generator) -> None:
        self.port, self.generator = port, generator

    async def write(self, ctx: Any, address: int, words: list[int], strobes: list[int]) -> int:
        await self._request(ctx, self.port.aw, address, len(words))
        for index, (word, strobe) in enumerate(zip(words, strobes, strict=True)):
            await self._rest(ctx)
            ctx.set(self.port.w.payload, {"data": word, "strb": strobe, "last": index == len(words) - 1})
            ctx.set(self.port.w.valid, 1)
            await ctx.tick().until(self.port.w.ready)
            ctx.set(self.port.w.valid, 0)
        await self._rest(ctx)
        ctx.set(self.port.b.ready, 1)
        response = await ctx.tick().sample(self.port.b.payload).until(self.port.b.valid)
        ctx.set(self.port.b.ready, 0)
        assert response[0].id == 2
        return int(response[0].resp.value)

    async def read(self, ctx: Any, address: int, beats: int) -> tuple[list[int], int]:
        await self._request(ctx, self.port.ar, address, beats)
        words, response = [], 0
        for index in range(beats):
            await self._rest(ctx)
            ctx.set(self.port.r.ready, 1)
            (beat,) = await ctx.tick().sample(self.port.r.payload).until(self.port.r.valid)
            ctx.set(self.port.r.ready, 0)
            assert (beat.id, beat.last) == (2, index == beats - 1)
            words.append(int(beat.data))
            response = int(beat.resp.value)
        return words, response

    async def _request(self, ctx: Any, channel: Any, address: int, beats: int) -> None:
        ctx.set(channel.payload, {"id": 2, "addr": address, "len": beats - 1, "size": 3, "burst": 1, "cache": 0, "prot": 0})
        ctx.set(channel.valid, 1)
        await ctx.tick().until(channel.ready)
        ctx.set(channel.valid, 0)

    async def _rest(self, ctx: Any) -> None:
        if self.generator.integers(4) == 0:
            await ctx.tick().repeat(int(self.generator.integers(1, 12)))


def simulated(design: Elaboratable, benches: list[Any], processes: list[Any]) -> None:
    simulator = Simulator(design)
    simulator.add_clock(1e-6 / CLOCK_MHZ)
    for process in processes:
        simulator.add_process(process)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("seed", [0, 1])
def test_bursts_of_two_masters_meet_what_they_wrote(seed: int) -> None:
    sdram, model = Sdram(AXI, 2, CLOCK_MHZ, SMALL), ChipModel(SMALL, CLOCK_MHZ)
    half = SMALL.capacity // 2
    ends: list[int] = []

    def bench(number: int) -> Any:
        generator = np.random.default_rng([seed, number])
        master, memory = Master(sdram.ports[number], generator), np.zeros(half, np.uint8)

        async def run(ctx: Any) -> None:
            for _ in range(14):
                beats = int(generator.choice([1, 2, 7, 16, 30]))
                start = 8 * int(generator.integers(0, 100))
                if generator.integers(2):
                    data = generator.integers(0, 256, 8 * beats, np.uint8)
                    kept = generator.integers(0, 2, 8 * beats).astype(bool)
                    strobes = np.packbits(kept, bitorder="little").tolist()
                    assert await master.write(ctx, number * half + start, data.view(np.uint64).tolist(), strobes) == 0
                    np.copyto(memory[start : start + 8 * beats], data, where=kept)
                else:
                    words, response = await master.read(ctx, number * half + start, beats)
                    assert response == 0
                    assert words == memory[start : start + 8 * beats].view(np.uint64).tolist()
            at = number * half // 2
            assert np.array_equal(model.words[at : at + half // 2].view(np.uint8), memory)
            ends.append(number)

        return run

    simulated(sdram, [bench(0), bench(1)], [plugged(sdram, model)])
    assert sorted(ends) == [0, 1]
    assert model.refreshes > 10


def test_behind_the_chips_end_nothing_is_written() -> None:
    sdram, model = Sdram(AXI, 1, CLOCK_MHZ, SMALL), ChipModel(SMALL, CLOCK_MHZ)
    found = []

    async def bench(ctx: Any) -> None:
        master = Master(sdram.ports[0], np.random.default_rng(0))
        found.append(await master.write(ctx, SMALL.capacity, [-1 & (1 << 64) - 1], [0xFF]))
        found.append((await master.read(ctx, SMALL.capacity, 2))[1])

    simulated(sdram, [bench], [plugged(sdram, model)])
    assert found == [3, 3], "DECERR"
    assert not model.words.any()


class HostChip(Elaboratable):
    """A host bridge with registers that hold what is written, and an SDRAM."""

    def __init__(self, divisor: int) -> None:
        self.host = SerialHost(Axi4LiteSignature(address_bits=12), AXI, divisor)
        self.slave, self.sdram = LiteSlave(12), Sdram(AXI, 1, CLOCK_MHZ, SMALL)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.host, m.submodules.slave, m.submodules.sdram = self.host, self.slave, self.sdram
        wiring.connect(m, self.host.s_axi, self.slave.bus)
        wiring.connect(m, self.host.m_axi, self.sdram.ports[0])
        with m.If(self.slave.write):
            m.d.sync += self.slave.read_data.eq(self.slave.write_data ^ self.slave.address)
        return m


def bits_of(message: bytes) -> Iterator[int]:
    for byte in message:
        yield 0
        yield from (byte >> place & 1 for place in range(8))
        yield 1


@pytest.mark.parametrize("divisor", [4, 9])
def test_a_host_reads_and_writes_registers_and_memory(divisor: int) -> None:
    chip, model = HostChip(divisor), ChipModel(SMALL, CLOCK_MHZ)

    def request(kind: Request, address: int, content: bytes = b"") -> bytes:
        return bytes([kind]) + address.to_bytes(4, "little") + content

    word = bytes(range(0xA0, 0xA8))
    message = b"\0\0" + b"".join(
        (
            request(Request.WRITE_REGISTER, 0x104, (0x12345678).to_bytes(4, "little")),
            request(Request.READ_REGISTER, 0x104),
            request(Request.WRITE_MEMORY, 0x48, word),
            request(Request.READ_MEMORY, 0x48),
            request(Request.READ_MEMORY, SMALL.capacity),
        )
    )
    expected = b"\0" + b"\0" + (0x12345678 ^ 0x104).to_bytes(4, "little") + b"\0" + b"\0" + word + b"\3" + bytes(8)
    answered = bytearray()

    async def sends(ctx: Any) -> None:
        await ctx.tick().repeat(200)
        for bit in bits_of(message):
            ctx.set(chip.host.received, bit)
            await ctx.tick().repeat(divisor)

    async def receives(ctx: Any) -> None:
        while len(answered) < len(expected):
            await ctx.tick().until(~chip.host.sent)
            await ctx.tick().repeat(divisor // 2)
            byte = 0
            for place in range(9):
                await ctx.tick().repeat(divisor)
                byte |= ctx.get(chip.host.sent) << place
            answered.append(byte & 0xFF)
            assert byte >> 8, "stop bit"

    simulated(chip, [sends, receives], [plugged(chip.sdram, model)])
    assert bytes(answered[:-8]) == expected[:-8]
    assert model.words[0x24:0x28].tobytes() == word


def test_a_clock_that_the_board_cannot_make_is_refused() -> None:
    assert Pll.of(50.0) == Pll(1, 2, 12)
    assert Pll.of(40.0) == Pll(5, 8, 15)
    with pytest.raises(UsageError, match=r"clock_mhz is 33.3"):
        Pll.of(33.3)
    with pytest.raises(UsageError, match=r"allows 100"):
        SdramCycles.of(SdramPart(), 125.0)


def test_no_site_is_used_twice() -> None:
    sites = [site for group in SITES.values() for site in group]
    assert len(set(sites)) == len(sites)


