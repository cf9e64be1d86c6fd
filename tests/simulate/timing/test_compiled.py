"""Compiled steps: sums close, bounds hold, models agree, and the figures that are promised."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fixgrad.compiler import Program, compile_step
from fixgrad.machine import preset, talk
from fixgrad.network.models import model
from fixgrad.simulate.bounds import Phase, random_masks, step_cost
from fixgrad.simulate.dram import Fidelity
from fixgrad.simulate.timing import Assumptions, Cause, Simulation, StepTiming, simulate_step, timing_of
from fixgrad.simulate.timing.result import Seconds
from fixgrad.sparse import TALK_DENSITIES

Compiled = Callable[..., Program]
CASES: list[dict[str, Any]] = [
    {},
    {"density": 1.0},
    {"density": 0.2, "batch": 3},
    {"batch": 10},
    {"mode": "forward"},
    {"count_padding": True},
    {"machine": "kcu1500", "batch": 32},
    {"machine": "u280", "batch": 40, "density": 0.3},
    {"machine": "ecp5-85f", "batch": 8},
    {"machine": "tiny-graph", "batch": 10},
    {"machine": "tiny-graph", "batch": 3, "mode": "forward"},
    {"machine": "kcu1500-graph", "batch": 40, "density": 1.0},
    {"machine": preset("tiny").with_changes(groups=1, post_processors=1, lanes=3)},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sums_close_and_no_row_moves_less_than_it_must(compiled: Compiled, case: dict[str, Any]) -> None:
    program = compiled(**case)
    timing = simulate_step(program)
    machine = program.machine
    assert sum(row.us for row in timing.layers) == pytest.approx(timing.us, rel=1e-12)
    assert timing.waterfall[-1].until_us == pytest.approx(timing.us, rel=1e-12)
    assert sum(phase.us for phase in timing.phases.values()) == pytest.approx(timing.us, rel=1e-12)
    for row in timing.layers:
        assert sum(row.causes.values()) == pytest.approx(row.us)
        assert row.dram_bytes >= row.dram_bytes_lower_bound > 0
        assert 0 <= row.utilisation <= 1
        assert row.bound is max(row.causes, key=lambda cause: row.causes[cause])
    expected = {"ff"} if program.mode == "forward" else {"ff", "ng", "wg"}
    assert {str(phase) for phase in timing.phases} == expected
    # MACs are those of the masks, and none is done twice.
    bound = step_cost(program.network, _masks(program), machine, program.batch, count_padding=program.count_padding)
    assert {(r.name, r.phase): r.macs for r in timing.layers if r.macs} == {
        (r.name, r.phase): r.macs for r in bound.layers if str(r.phase) in expected and r.macs
    }
    assert timing.us > sum(row.compute_us for row in bound.layers if str(row.phase) in expected)


def _masks(program: Program) -> dict[str, Any]:
    return {name.removesuffix(".weight"): mask for name, mask in program.masks.items()}


def test_the_first_layer_has_no_ng(compiled: Compiled) -> None:
    rows = {(row.name, str(row.phase)) for row in simulate_step(compiled()).layers}
    assert ("conv1", "ng") not in rows
    assert ("conv1", "wg") in rows


def test_the_same_program_takes_the_same_time(compiled: Compiled) -> None:
    first, second = (simulate_step(compiled()) for _ in range(2))
    assert replace(first, seconds=Seconds(0, 0)) == replace(second, seconds=Seconds(0, 0))


@pytest.mark.parametrize("case", [{}, {"machine": "kcu1500", "batch": 32}, {"machine": "u280", "batch": 32}], ids=str)
def test_short_instructions_together_or_apart_take_the_same_time(compiled: Compiled, case: dict[str, Any]) -> None:
    program = compiled(**case)
    together, apart = (Simulation(program, join=join) for join in (True, False))
    assert len(together.work.blocks) < len(apart.work.blocks) == len(program.opcodes)
    assert together.cycles == pytest.approx(apart.cycles, rel=0.06)  # latency rules here; of a long program it is 0.1 %
    assert sum(len(records) for records in apart.updates) == len(program.positions["UPDATE"])
    for joined, single in zip(together.memory.channels, apart.memory.channels, strict=True):
        assert joined.totals.bursts == single.totals.bursts


@pytest.mark.slow
@pytest.mark.parametrize("case", [{}, {"machine": "kcu1500", "batch": 32}], ids=str)
def test_closed_forms_and_banks_agree(compiled: Compiled, case: dict[str, Any]) -> None:
    program = compiled(**case)
    closed, banks = (simulate_step(program, dram=fidelity) for fidelity in Fidelity)
    assert closed.us == pytest.approx(banks.us, rel=0.05)
    assert closed.dram_bytes == banks.dram_bytes


def test_padding_that_counts_takes_its_cycles(compiled: Compiled) -> None:
    without, counted = (simulate_step(compiled(count_padding=padding)) for padding in (False, True))
    assert counted.macs > without.macs
    assert counted.us > without.us


def test_a_row_that_moves_too_little_is_an_error(compiled: Compiled) -> None:
    program = compiled()
    simulation = Simulation(program)
    simulation.memory.row_bytes[1] = 100
    with pytest.raises(AssertionError, match=r"conv2 ff moved 100 bytes, fewer than the \d+ that any schedule must move"):
        timing_of(program, simulation, Fidelity.CLOSED_FORM, Seconds(0, 0))


def test_energy_of_a_step(compiled: Compiled) -> None:
    timing = simulate_step(compiled(machine="kcu1500", batch=32))
    energy = timing.energy
    assert energy is not None
    parts = [energy.mac, energy.buffers, energy.dram, energy.logic, energy.static]
    assert sum(part.value for part in parts) == pytest.approx(energy.total.value)
    assert all(part.low <= part.value <= part.high for part in parts)
    assert energy.per_image(32).value == pytest.approx(energy.total.value / 32)
    assert simulate_step(compiled()).energy is None  # `tiny` is no chip


def test_long_programs_are_taken_together(compiled: Compiled) -> None:
    program = compiled()
    short, long = (Simulation(program, assumptions=Assumptions(join_above=limit)) for limit in (10_000, 50))
    assert len(short.work.blocks) == len(program.opcodes) > len(long.work.blocks)
    assert short.cycles == Simulation(program, join=False).cycles


def talks_step(count_padding: bool) -> StepTiming:
    network, machine = model("vgg11"), preset("kcu1500")
    masks = random_masks(network, TALK_DENSITIES)
    named = {f"{name}.weight": mask for name, mask in masks.items()}
    return simulate_step(compile_step(network, named, machine, 32, count_padding=count_padding))


@pytest.mark.slow
def test_the_talks_step_runs_at_twice_its_rate() -> None:
    timing = talks_step(count_padding=False)
    assert timing.gops >= 1250
    assert timing.resources["bram36"] <= 1060
    assert timing.waterfall[0].us == pytest.approx(21_323.5, rel=1e-4)  # the MAC bound of the same masks
    assert len(timing.layers) == 3 * 11 - 1


@pytest.mark.slow
def test_with_padding_counted_compute_bound_rows_are_those_of_the_talk() -> None:
    timing = talks_step(count_padding=True)
    assert timing.gops >= 1050
    rows = {(row.name, str(row.phase)): row for row in timing.layers}
    for name in ("conv2", "conv3_1", "conv3_2", "conv4_1", "conv4_2"):
        for phase in ("ff", "ng"):
            assert rows[name, phase].bound is Cause.COMPUTE
            assert abs(rows[name, phase].us / talk.figures()[name, phase].us - 1) < 0.05


@pytest.mark.slow
def test_of_the_talks_step_short_instructions_may_be_taken_together() -> None:
    network = model("vgg11")
    masks = {f"{name}.weight": mask for name, mask in random_masks(network, TALK_DENSITIES).items()}
    program = compile_step(network, masks, preset("kcu1500"), 32)
    together, apart = (Simulation(program, join=join).cycles for join in (True, False))
    assert together == pytest.approx(apart, rel=2e-3)
    assert {row.phase for row in simulate_step(program).layers} == set(Phase)
