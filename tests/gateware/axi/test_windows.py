"""Elements out of beats for every place and size, with the granules that engines of aligned data choose; queues in block RAM."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from fixgrad.gateware.axi.streams import BlockFifo, Fifo
from fixgrad.gateware.axi.window import ByteWindow, WordWindow
from fixgrad.gateware.pe.sharing import Sharing

Take = Callable[[Any], Any]


def feeder(stream: Any, payloads: list[Any], rng: random.Random) -> Take:
    """Offers payloads, with rests."""

    async def feed(ctx: Any) -> None:
        for payload in payloads:
            while rng.random() < 0.3:
                await ctx.tick()
            ctx.set(stream.payload, payload)
            ctx.set(stream.valid, 1)
            await ctx.tick().until(stream.ready)
            ctx.set(stream.valid, 0)

    return feed


@pytest.mark.parametrize("granule", [1, 2, 4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_elements_begin_at_a_granule(simulate: Callable[..., None], granule: int, seed: int) -> None:
    """8-byte beats; elements of any multiple of a granule, or of just the granule in a `WordWindow`."""
    rng = random.Random(seed)
    port, element = 8, 8 if granule < 8 else 4
    is_word = granule == 8
    size_of = 4 if is_word else granule
    window: Any = WordWindow(port, 4, 12, tag_bits=5) if is_word else ByteWindow(port, element, 12, granule=granule, tag_bits=5)
    spans, beats, wanted = [], [], []
    for tag in range(20):
        skip = rng.randrange(port // size_of) * size_of
        size = 4 if is_word else rng.randint(1, element // size_of) * size_of
        length = rng.randint(1, 12) * size_of
        memory = bytes(rng.getrandbits(8) for _ in range(-(-(skip + length) // port) * port))
        spans.append({"skip": skip, "length": length, "size": size, "tag": tag})
        beats += [int.from_bytes(memory[at : at + port], "little") for at in range(0, len(memory), port)]
        for at in range(0, length, size):
            part = memory[skip + at : skip + min(at + size, length)]
            wanted.append((int.from_bytes(part, "little"), len(part), int(at + size >= length), tag))
    got = []

    async def take(ctx: Any) -> None:
        while len(got) < len(wanted):
            ctx.set(window.o.ready, rng.random() < 0.7)
            if ctx.get(window.o.valid & window.o.ready):
                got.append(tuple(ctx.get(window.o.payload[name]) for name in ("data", "count", "last", "tag")))
            await ctx.tick()

    simulate(window, take, feeder(window.spans, spans, rng), feeder(window.beats, beats, rng))
    assert got == wanted


@pytest.mark.parametrize("granule", [3, 16])
def test_a_granule_that_divides_nothing_is_refused(granule: int) -> None:
    with pytest.raises(ValueError, match=f"granule is {granule}: choose a divisor of the port's 8 and of 8"):
        ByteWindow(8, 8, 12, granule=granule)


@pytest.mark.parametrize("depth", [2, 8])
def test_a_block_fifo_gives_what_it_got_and_holds_its_depth(simulate: Callable[..., None], depth: int) -> None:
    fifo, rng = BlockFifo(8, depth), random.Random(depth)
    payloads = [rng.getrandbits(8) for _ in range(60)]
    got: list[int] = []

    async def take(ctx: Any) -> None:
        for _ in range(4 * depth + 10):
            await ctx.tick()
        while len(got) < len(payloads):
            ctx.set(fifo.o.ready, rng.random() < 0.7)
            if ctx.get(fifo.o.valid & fifo.o.ready):
                got.append(ctx.get(fifo.o.payload))
            await ctx.tick()

    pushed = 0

    async def count(ctx: Any) -> None:
        nonlocal pushed
        while not got:
            pushed += ctx.get(fifo.i.valid & fifo.i.ready)
            await ctx.tick()

    simulate(fifo, take, feeder(fifo.i, payloads, rng), count)
    assert got == payloads
    assert pushed >= depth


def test_a_block_fifo_of_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="depth is 6: choose a power of two"):
        BlockFifo(8, 6)


class InBlocks(wiring.Component):
    """A queue as it is built for an ECP5."""

    def __init__(self, queue: Fifo) -> None:
        self.queue = queue
        super().__init__(queue.signature)
        queue._MustUse__used = True  # Amaranth sees only its own elaborations, and would warn
        self.i, self.o, self.level = queue.i, queue.o, queue.level

    def elaborate(self, platform: object) -> Module:
        return self.queue.elaborate(Sharing("DP16KD"))


@pytest.mark.parametrize("depth", [17, 32, 60])
def test_a_patient_queue_in_blocks_gives_what_it_got_and_holds_its_depth(simulate: Callable[..., None], depth: int) -> None:
    width = 36
    fifo, rng = Fifo(width, depth, patient=True), random.Random(depth)
    payloads = [rng.getrandbits(width) for _ in range(800)]
    got: list[int] = []
    fullest, waits = 0, 0

    async def take(ctx: Any) -> None:
        nonlocal waits
        for _ in range(4 * depth + 10):
            await ctx.tick()
        while len(got) < len(payloads):
            # It begins full, is emptied, and fills again.
            ctx.set(fifo.o.ready, len(got) < 500 or rng.random() < 0.5)
            waits += ctx.get(fifo.level != 0) and not ctx.get(fifo.o.valid)
            if ctx.get(fifo.o.valid & fifo.o.ready):
                got.append(ctx.get(fifo.o.payload))
            await ctx.tick()

    async def count(ctx: Any) -> None:
        nonlocal fullest
        while True:
            fullest = max(fullest, ctx.get(fifo.level))
            await ctx.tick()

    simulate(InBlocks(fifo), take, feeder(fifo.i, payloads, rng), count)
    assert got == payloads
    assert fullest == depth
    assert waits > 0  # a payload that came to an empty queue is seen a cycle later: it is in block RAM indeed
