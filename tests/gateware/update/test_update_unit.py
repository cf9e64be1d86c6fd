"""The update unit against the definition of the update, and its operands against the requantisation of weights."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixgrad.gateware.pe.sharing import converted
from fixgrad.gateware.update.update_unit import COEFFICIENT_BITS, OPERAND_BITS, SETTING, TERM_BITS, UPDATE_LATENCY, UpdateUnit
from fixgrad.machine.instructions import STEP_PARAMETERS
from fixgrad.machine.presets import PRESETS, TINY
from fixgrad.network import recipe, update
from fixgrad.network.recipe import Coefficient, UpdateConstants
from fixgrad.network.update import ParameterFormats, TermShifts
from fixgrad.numbers import Rounding, StreamKey, hash32, requantise, wrap32

PES = TINY.pes_per_group


@dataclass(frozen=True)
class Setting:
    """An UPDATE's entry of the step table."""

    stochastic: int = 0
    key_low: int = 0
    key_high: int = 0
    momentum: int = 230
    rate: int = 200
    decay: int = 150
    gradient_left: int = 4
    decay_left: int = -12
    step_left: int = -4
    operand_shift: int = 16
    stored_bits: int = 24
    momentum_bits: int = 24


@dataclass
class Parameter:
    """One parameter's numbers."""

    gradients: list[int]
    stored: int
    momentum: int
    element: int = 0
    memory_gradient: int = 0


@dataclass
class Result:
    """All that comes out: (stored, momentum, operand) of each parameter, and whether any overflowed."""

    parameters: list[tuple[int, int, int]] = field(default_factory=list)
    overflow: bool = False


def expected(setting: Setting, parameters: list[Parameter], pes: int) -> Result:
    chosen = [[g for pe, g in enumerate(p.gradients) if pes >> pe & 1] for p in parameters]
    gradient, overflow = wrap32(np.array([sum(g) + p.memory_gradient for g, p in zip(chosen, parameters, strict=True)]))
    key = StreamKey(setting.key_low, setting.key_high)
    new = update.update(
        np.array([p.stored for p in parameters]),
        np.array([p.momentum for p in parameters]),
        gradient,
        ParameterFormats(setting.stored_bits, 0, setting.momentum_bits),
        TermShifts(setting.gradient_left, setting.decay_left, setting.step_left),
        UpdateConstants(setting.momentum, Coefficient(setting.rate, 0), Coefficient(setting.decay, 0)),
        Rounding.STOCHASTIC if setting.stochastic else Rounding.NEAREST,
        hash32(np.array([p.element for p in parameters], np.uint32), key),
    )
    operands = requantise(new.stored, setting.operand_shift, recipe.OPERAND_BITS)
    rows = zip(new.stored.tolist(), new.momentum.tolist(), operands.tolist(), strict=True)
    return Result(list(rows), overflow)


def run(simulate: Callable[..., None], jobs: list[tuple[Setting, list[Parameter], int]], gaps: float = 0.0) -> list[Result]:
    dut, random, results = UpdateUnit(TINY), Random(0), [Result()]

    async def bench(ctx: Any) -> None:
        for setting, parameters, pes in jobs:
            ctx.set(dut.setting, {name: getattr(setting, name) for name, _ in SETTING})
            ctx.set(dut.pes, pes)
            for parameter in parameters:
                while random.random() < gaps:
                    await ctx.tick()
                for port, gradient in zip(dut.gradients, parameter.gradients, strict=True):
                    ctx.set(port, gradient & 0xFFFFFFFF)
                for name in ("memory_gradient", "stored", "momentum", "element"):
                    ctx.set(getattr(dut, name), getattr(parameter, name))
                ctx.set(dut.valid, 1)
                await ctx.tick()
                ctx.set(dut.valid, 0)
            await ctx.tick().repeat(UPDATE_LATENCY)
            await ctx.tick()
            results.append(Result())

    async def collect(ctx: Any) -> None:
        while True:
            if ctx.get(dut.updated_valid):
                updated = ctx.get(dut.updated)
                results[-1].parameters.append((updated.stored, updated.momentum, updated.operand))
                results[-1].overflow |= bool(updated.overflow)
            await ctx.tick()

    simulate(dut, bench, collect, limit=100_000)
    return results[:-1]


def a_code(random: Random, bits: int) -> int:
    """A code of any magnitude in the symmetric range of `bits` bits."""
    limit = (1 << (bits - 1)) - 1
    value = random.choice([random.getrandbits(random.randint(0, bits - 1)), limit, 1 << random.randint(0, bits - 2), 0])
    return random.choice([1, -1]) * min(value, limit)


def a_setting(random: Random) -> Setting:
    stored_bits, momentum_bits = random.choice([16, 24, 32]), random.randint(16, 32)
    return Setting(
        stochastic=random.randint(0, 1),
        key_low=random.getrandbits(32),
        key_high=random.getrandbits(32),
        momentum=random.getrandbits(8),
        rate=random.getrandbits(8),
        decay=random.getrandbits(8),
        gradient_left=random.randint(-62, update.MAX_TERM_LEFT),
        decay_left=random.randint(-62, update.MAX_TERM_LEFT),
        step_left=stored_bits - momentum_bits - update.MOMENTUM_RANGE if random.random() < 0.5 else random.randint(-31, 15),
        operand_shift=random.randint(0, 24),
        stored_bits=stored_bits,
        momentum_bits=momentum_bits,
    )


def a_parameter(random: Random, setting: Setting) -> Parameter:
    return Parameter(
        [a_code(random, 32) >> random.randint(0, 4) for _ in range(PES)],
        a_code(random, setting.stored_bits),
        a_code(random, setting.momentum_bits),
        element=random.getrandbits(32),
    )


@settings(max_examples=2)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.4]))
def test_random_updates(simulate: Callable[..., None], seed: int, gaps: float) -> None:
    random = Random(seed)
    jobs = []
    for _ in range(30):
        setting = a_setting(random)
        jobs.append((setting, [a_parameter(random, setting) for _ in range(12)], random.randrange(1 << PES)))
    assert run(simulate, jobs, gaps) == [expected(*job) for job in jobs]


@pytest.mark.parametrize("stochastic", [0, 1])
def test_every_rounding_of_a_small_momentum(simulate: Callable[..., None], stochastic: int) -> None:
    """Momenta around 0 and every remainder of the sum modulo 256, and of the step."""
    setting = Setting(stochastic, 1, 2, momentum=1, rate=0, decay=0, step_left=-4, operand_shift=0)
    parameters = [Parameter([0] * PES, 5, momentum, element=momentum & 0xFFFF) for momentum in range(-300, 300)]
    assert run(simulate, [(setting, parameters, 0)]) == [expected(setting, parameters, 0)]


def test_the_corners_saturate(simulate: Callable[..., None]) -> None:
    jobs = []
    for bits in (16, 24, 32):
        limit = (1 << (bits - 1)) - 1
        setting = Setting(gradient_left=24, decay_left=24, stored_bits=bits, momentum_bits=bits, operand_shift=bits - 8)
        ends = [(g, w, u) for g in (-(1 << 31), (1 << 31) - 1) for w in (-limit, limit) for u in (-limit, limit)]
        jobs.append((setting, [Parameter([g] + [0] * (PES - 1), w, u) for g, w, u in ends], 1))
    results = run(simulate, jobs)
    assert results == [expected(*job) for job in jobs]
    limit = (1 << 23) - 1
    stored, _, operand = results[1].parameters[2]
    assert (stored, operand) == (limit, 127), "a negative momentum leaves the largest weight where it is"


def test_partial_gradients_of_the_pes_add_up(simulate: Callable[..., None]) -> None:
    """Only those of the PEs chosen; a sum beyond 32 bits wraps and says so."""
    setting = Setting(decay=0, momentum=0, gradient_left=8, step_left=0)
    parameters = [Parameter([1000, 30], 0, 0)]
    jobs = [(setting, parameters, pes) for pes in range(4)]
    results = run(simulate, jobs)
    assert results == [expected(*job) for job in jobs]
    assert len({result.parameters[0] for result in results}) == 4
    most = (1 << 31) - 1
    ends = [(setting, [Parameter([most, one], 0, 0)], 3) for one in (0, 1)]
    assert [result.overflow for result in run(simulate, ends)] == [False, True]


def test_a_gradient_from_memory(simulate: Callable[..., None]) -> None:
    setting = Setting()
    parameters = [Parameter([7, 7], 100, -3, memory_gradient=g) for g in (-123456, 1 << 30)]
    assert run(simulate, [(setting, parameters, 0)]) == [expected(setting, parameters, 0)]


def test_a_parameter_a_cycle_in_ten_cycles(simulate: Callable[..., None]) -> None:
    dut, seen = UpdateUnit(TINY), []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.setting, {"stored_bits": 24, "momentum_bits": 24})
        for cycle in range(UPDATE_LATENCY + 6):
            ctx.set(dut.valid, cycle < 5)
            ctx.set(dut.stored, cycle)
            seen.append((ctx.get(dut.updated_valid), ctx.get(dut.updated).stored))
            await ctx.tick()

    simulate(dut, bench)
    assert seen[UPDATE_LATENCY : UPDATE_LATENCY + 5] == [(1, cycle) for cycle in range(5)]
    assert sum(valid for valid, _ in seen) == 5


def test_constants_are_those_of_the_definition() -> None:
    assert TINY.latencies.update == UPDATE_LATENCY
    widths = (COEFFICIENT_BITS, TERM_BITS, OPERAND_BITS)
    assert widths == (recipe.MOMENTUM_FRAC, update.TERM_BITS, recipe.OPERAND_BITS)
    assert recipe.COEFFICIENT_BITS == COEFFICIENT_BITS


def test_the_setting_has_the_names_of_the_step_table() -> None:
    of_update = {p.name for p in STEP_PARAMETERS if "UPDATE" in p.text} | {"key_low", "key_high"}
    assert {name for name, _ in SETTING} == of_update


@pytest.mark.parametrize("name", ["tiny", "formal", "kcu1500"])
def test_presets_convert(name: str) -> None:
    assert "module \\update_unit" in converted(UpdateUnit(PRESETS[name]), "update_unit")


def test_a_weight_without_gradient_and_decay_stays(simulate: Callable[..., None]) -> None:
    setting = replace(Setting(), rate=0, decay=0)
    [result] = run(simulate, [(setting, [Parameter([5, 6], -77777, 0)], 3)])
    assert result.parameters == [(-77777, 0, -1)]
