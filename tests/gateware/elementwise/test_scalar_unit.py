"""The scalar unit against `fixgrad.network.normalisation`, through the functional NORMALISE: every register that is kept."""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

from fixgrad.gateware.elementwise.scalar_program import INPUTS, REGISTERS, WORK
from fixgrad.gateware.elementwise.scalar_unit import ScalarUnit
from fixgrad.machine import Instruction, preset
from fixgrad.machine.elementwise_instructions import NORMALISE_EVALUATION, NORMALISE_FF, NORMALISE_NG, RECORD
from fixgrad.simulate.functional.chip import Chip
from fixgrad.simulate.functional.normalise import normalise

from .channels import a_channel, an_entry, channel_of, record_bytes

MACHINE = preset("tiny-graph")
RESULTS = {
    NORMALISE_FF: [item.name for item in RECORD[2:]],
    NORMALISE_NG: ["a", "b", "c", "gamma_gradient", "beta_gradient"],
    NORMALISE_EVALUATION: [item.name for item in RECORD[2:9]],
}


def expected(mode: int, entry: dict[str, int], channel: dict[str, int], scalars: dict[str, int]) -> dict[str, int]:
    """The record and gradients that the functional simulator leaves."""
    chip = Chip(MACHINE, np.zeros(4096, np.uint8))
    chip.image[:128] = record_bytes(channel)
    for place, name in ((512, "gamma"), (516, "beta")):
        chip.integers_at(place, "<i4", 1)[0] = channel[name]
    chip.params[0], chip.loaded_params[0] = an_entry(entry), True
    places = {"record": 0, "gamma": 512, "beta": 516, "gamma_gradient": 520, "beta_gradient": 524}
    normalise(chip, Instruction("NORMALISE", mode=mode, channels=1, **places, **scalars))
    found = dict(zip((item.name for item in RECORD), chip.integers_at(0, "<i8", 16).tolist(), strict=False))
    return {**found, **{name: int(chip.integers_at(places[name], "<i4", 1)[0]) for name in ("gamma_gradient", "beta_gradient")}}


@pytest.mark.parametrize("mode", [NORMALISE_FF, NORMALISE_NG, NORMALISE_EVALUATION])
def test_random_channels(simulate: Callable[..., None], mode: int) -> None:
    dut, random, cycles = ScalarUnit(), Random(mode), []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.mode, mode)
        for number in range(60):
            bank = number & 1
            count, entry, average = channel_of(random)
            channel = a_channel(random, mode, count, entry)
            wanted = expected(mode, entry, channel, {"count": count, "average": average})
            ctx.set(dut.scalars, {"count": count, "average": average, **entry})
            for place, name in enumerate(INPUTS):
                value = channel[name.removeprefix("in_")] & (1 << 64) - 1
                ctx.set(dut.write, {"enable": 1, "bank": bank, "place": place, "value": value})
                await ctx.tick()
            ctx.set(dut.write.enable, 0)
            ctx.set(dut.bank, bank)
            ctx.set(dut.begin, 1)
            await ctx.tick()
            ctx.set(dut.begin, 0)
            cycles.append(0)
            while ctx.get(dut.busy):
                cycles[-1] += 1
                await ctx.tick()
            for name in RESULTS[mode]:
                ctx.set(dut.result, {"bank": bank, "place": REGISTERS[name]})
                await ctx.delay(1e-9)
                got = ctx.get(dut.value)
                if name.endswith("gradient"):
                    got &= (1 << 32) - 1
                    wanted[name] &= (1 << 32) - 1
                else:
                    wanted[name] &= (1 << 64) - 1
                assert got == wanted[name], (number, name, channel, count, entry)

    simulate(dut, bench, limit=200_000)
    figures = {NORMALISE_FF: MACHINE.latencies.normalise, NORMALISE_NG: MACHINE.latencies.normalise_errors}
    assert min(cycles) <= figures.get(mode, max(cycles)) <= max(cycles)  # what the timing simulator takes for a channel
    assert max(cycles) <= {NORMALISE_FF: 256, NORMALISE_NG: 169, NORMALISE_EVALUATION: 94}[mode]  # as docs/gateware_blocks.md says


def test_registers_have_places_of_their_own() -> None:
    assert len(set(REGISTERS.values())) == len(REGISTERS)
    assert len(WORK) <= 32
