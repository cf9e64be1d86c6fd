"""The parameter memory against the definition of the step table."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from fixgrad.gateware.control.step_table import StepTable
from fixgrad.machine.instructions import STEP_ENTRY_BYTES, STEP_PARAMETERS
from fixgrad.machine.presets import TINY

Simulate = Callable[..., None]
READERS = 3


def entry_bytes(fields: dict[str, int]) -> bytes:
    """The 64 bytes of an entry."""
    found = bytearray(STEP_ENTRY_BYTES)
    for p in STEP_PARAMETERS:
        found[p.offset : p.offset + p.bytes] = fields[p.name].to_bytes(p.bytes, "little", signed=p.signed)
    return bytes(found)


def random_fields(rng: random.Random) -> dict[str, int]:
    """Any values that the fields can hold."""
    return {
        p.name: rng.randrange(-(1 << 8 * p.bytes - 1), 1 << 8 * p.bytes - 1) if p.signed else rng.getrandbits(8 * p.bytes)
        for p in STEP_PARAMETERS
    }


async def write(ctx: Any, dut: StepTable, index: int, raw: bytes) -> None:
    ctx.set(dut.write.enable, 1)
    ctx.set(dut.write.index, index)
    ctx.set(dut.write.entry.as_value(), int.from_bytes(raw, "little"))
    await ctx.tick()
    ctx.set(dut.write.enable, 0)


@pytest.mark.parametrize("seed", range(3))
def test_every_reader_gets_its_entries_in_order(simulate: Simulate, seed: int) -> None:
    rng = random.Random(seed)
    table = [random_fields(rng) for _ in range(TINY.param_words)]
    dut = StepTable(TINY, READERS)
    wanted = [[rng.randrange(TINY.param_words) for _ in range(40)] for _ in range(READERS)]
    answers: list[list[dict[str, int]]] = [[] for _ in range(READERS)]

    async def bench(ctx: Any) -> None:
        for index, fields in enumerate(table):
            # Bytes that no field takes are not kept.
            await write(ctx, dut, index, entry_bytes(fields)[:-1] + b"\xff")
        left = [list(of_reader) for of_reader in wanted]
        while any(len(a) < len(w) for a, w in zip(answers, wanted, strict=True)):
            for reader, indices in zip(dut.readers, left, strict=True):
                # A stream's offer stands until it is accepted.
                if indices and (ctx.get(reader.index.valid) or rng.random() < 0.7):
                    ctx.set(reader.index.valid, 1)
                    ctx.set(reader.index.payload, indices[0])
            accepted = [bool(ctx.get(reader.index.valid & reader.index.ready)) for reader in dut.readers]
            assert sum(accepted) == any(ctx.get(reader.index.valid) for reader in dut.readers)
            await ctx.tick()
            for number, (reader, taken) in enumerate(zip(dut.readers, accepted, strict=True)):
                assert ctx.get(reader.entry.valid) == taken, "an entry in the cycle after its index"
                if taken:
                    payload = reader.entry.payload
                    answers[number].append({p.name: ctx.get(payload[p.name]) for p in STEP_PARAMETERS})
                    assert ctx.get(payload.as_value()) >> 8 * (STEP_ENTRY_BYTES - 1) == 0
                    left[number].pop(0)
                    ctx.set(reader.index.valid, 0)

    simulate(dut, bench)
    assert answers == [[table[index] for index in indices] for indices in wanted]


def test_an_entry_that_the_machine_does_not_have_is_not_written(simulate: Simulate) -> None:
    machine = TINY.with_changes(param_words=24)
    dut = StepTable(machine, 1)

    async def bench(ctx: Any) -> None:
        for index in range(1024):
            await write(ctx, dut, index, index.to_bytes(2, "little") + bytes(62))
        for index in range(24):
            ctx.set(dut.readers[0].index.valid, 1)
            ctx.set(dut.readers[0].index.payload, index)
            await ctx.tick()
            assert ctx.get(dut.readers[0].entry.payload.as_value()) == index

    simulate(dut, bench)
