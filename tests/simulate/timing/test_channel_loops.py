"""The compiled loops against the interpreted ones: every time, byte and record equal, with `==`."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fixgrad.compiler import Program
from fixgrad.machine import preset
from fixgrad.network.models import model
from fixgrad.simulate.dram import ClosedFormChannel, Fidelity
from fixgrad.simulate.timing import Assumptions, Simulation
from fixgrad.simulate.timing.compiled import CompiledMemory, announce_compilation
from fixgrad.simulate.timing.memory import MemorySystem
from fixgrad.simulate.timing.traffic import Bundle, Region, RegionRequest, Request

Compiled = Callable[..., Program]
NEVER = 10**9
CASES: list[dict[str, Any]] = [
    {},
    {"density": 1.0, "batch": 10},
    {"mode": "forward"},
    {"density": 0.2, "batch": 3, "count_padding": True},
    {"machine": preset("tiny").with_changes(groups=1, post_processors=1, lanes=3)},
    {"machine": "kcu1500", "batch": 40},
    {"machine": "u280", "batch": 40, "density": 0.3},
    {"machine": "ecp5-85f", "batch": 8},
    {"machine": "tiny-graph", "batch": 10},
    {"machine": "tiny-graph", "batch": 3, "mode": "forward"},
    {"machine": "kcu1500-graph", "batch": 40},
]


def both(program: Program, **limits: int) -> tuple[Simulation, Simulation]:
    """Interpreted and compiled, with short instructions taken together."""
    interpreted, compiled = (
        Simulation(program, join=True, assumptions=Assumptions(compile_above=above, **limits)) for above in (NEVER, 0)
    )
    assert type(interpreted.memory) is MemorySystem
    assert type(compiled.memory) is CompiledMemory
    return interpreted, compiled


def assert_equal(interpreted: Simulation, compiled: Simulation) -> None:
    assert compiled.cycles == interpreted.cycles
    assert compiled.loads == interpreted.loads
    assert compiled.posts == interpreted.posts
    assert compiled.updates == interpreted.updates
    assert [group.runs for group in compiled.groups] == [group.runs for group in interpreted.groups]
    assert [group.group for group in compiled.groups] == [group.group for group in interpreted.groups]
    assert compiled.ledger.cycles == interpreted.ledger.cycles
    assert compiled.memory.row_bytes == interpreted.memory.row_bytes
    assert [channel.totals for channel in compiled.memory.channels] == [
        channel.totals for channel in interpreted.memory.channels
    ]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step_is_equal_in_every_record(compiled: Compiled, case: dict[str, Any]) -> None:
    assert_equal(*both(compiled(**case)))


@pytest.mark.parametrize(
    "limits",
    [
        {"load_requests": 1},
        {"load_bytes": 64},
        {"request_bytes": 192},
        {"block_instructions": 1},
        {"queue_instructions": 1},
        {"fetch_beats": 2, "fetch_bursts": 1, "queue_instructions": 3},
        {"steps_ahead": 1, "step_bytes": 64},
        {"steps_ahead": 5, "step_parameters": 16},
    ],
    ids=str,
)
def test_other_depths(compiled: Compiled, limits: dict[str, int]) -> None:
    assert_equal(*both(compiled(), **limits))
    assert_equal(*both(compiled(machine="tiny-graph"), **limits))


@pytest.mark.parametrize("shown", [False, True])
def test_compilation_is_announced_on_a_terminal_alone(
    compiled: Compiled, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both(compiled())
    assert not capsys.readouterr().err  # compiled or read from the cache: nothing left to announce
    monkeypatch.setattr(sys.stderr, "isatty", lambda: shown)
    announce_compilation(known=False)
    assert capsys.readouterr().err.count("\n") == int(shown)


def test_digits(compiled: Compiled) -> None:
    assert_equal(*both(compiled(model("digits"), "kcu1500", 32, 0.5)))


@pytest.mark.slow
def test_vgg11(compiled: Compiled) -> None:
    assert_equal(*both(compiled(model("vgg11"), "kcu1500", 32, 0.4)))


@pytest.mark.parametrize("name", ["kcu1500", "u280", "ecp5-85f"])
def test_random_requests_arrive_at_the_same_cycles(name: str) -> None:
    machine, rng = preset(name), np.random.default_rng(5)
    interpreted, compiled = MemorySystem(machine, Fidelity.CLOSED_FORM), CompiledMemory(machine)
    interpreted.begin(2)
    compiled.begin(2)
    assert isinstance(interpreted.channels[0], ClosedFormChannel)
    now = 0
    for _ in range(1500):
        now += int(rng.choice([0, 1, 40, 700]))
        asked, row = _random_request(rng, machine.memory.channels), int(rng.integers(2))
        assert compiled.serve(now, asked, row) == interpreted.serve(now, asked, row)
    compiled.finish()
    assert compiled.row_bytes == interpreted.row_bytes
    assert [channel.totals for channel in compiled.channels] == [channel.totals for channel in interpreted.channels]


def _random_request(rng: np.random.Generator, channels: int) -> Request | Bundle | RegionRequest:
    write, address = bool(rng.integers(2)), int(rng.integers(1 << 24))
    match int(rng.integers(4)):
        case 0:
            return Request(address, int(rng.integers(1, 9000)), write=write)
        case 1:
            run = int(rng.integers(1, 600))
            return Request(address, run, int(rng.integers(1, 20)), run + int(rng.integers(0, 9000)), write)
        case 2:
            run, rows, planes = (int(rng.integers(0, high)) for high in (600, 9, 5))
            row_stride = run + int(rng.integers(0, 3000))
            plane_stride = rows * row_stride + int(rng.integers(0, 9000))
            return RegionRequest(Region(address, run, rows, row_stride, planes, plane_stride), 4096 * channels, write)
        case _:
            shares = tuple(
                (channel, int(rng.integers(1 << 20)), int(rng.integers(1, 6)), int(rng.integers(6, 40)))
                for channel in range(channels)
                if channel == 0 or rng.integers(2)
            )
            return Bundle(shares, 7, 999, write)
