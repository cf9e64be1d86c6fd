"""The recorded step of VGG-11 in RTL: the timing simulator is within the promised 2 %, and the page shows the record."""

import json
from pathlib import Path

import pytest

from fixgrad.machine import preset
from fixgrad.simulate.cycle_comparison import CycleComparison, PhaseCycles, StepRate, rate_lines, table

DOCS = Path(__file__).parents[2] / "docs"
RECORD = json.loads((DOCS / "results" / "cycles-kcu1500-vgg11.json").read_text())
ROWS = [PhaseCycles(**row) for row in RECORD["cycles"]]
#: Most that the simulator may be off, and cycles from which on a row is held to it: fixed latencies rule shorter ones.
BOUND, LONG = 0.02, 2000


def test_every_long_row_and_the_step_are_within_the_bound() -> None:
    long = [row for row in ROWS if row.device > LONG]
    assert len(long) >= 29
    assert long[-1].layer == "step"
    assert all(abs(row.error) <= BOUND for row in long)


def test_the_rows_add_up_to_the_step() -> None:
    *rows, step = ROWS
    assert (sum(row.device for row in rows), sum(row.simulated for row in rows)) == (step.device, step.simulated)
    assert (step.device, step.simulated) == tuple(RECORD["step"][name]["cycles"] for name in ("rtl", "simulated"))


def test_the_step_is_as_fast_as_promised() -> None:
    assert RECORD["equal"] is True
    assert RECORD["step"]["simulated"]["gops"] >= 1250
    assert RECORD["step"]["rtl"]["gops"] >= 1200


def test_the_machine_is_the_preset_but_for_what_came_later() -> None:
    recorded, now = RECORD["machine"], preset("kcu1500").to_dict()
    assert {name: recorded[name] for name in recorded if name != "identity" and name in now} == {
        name: now[name] for name in recorded if name != "identity" and name in now
    }
    assert recorded["groups"] == 8


def test_the_page_has_what_was_recorded() -> None:
    page = (DOCS / "gateware.md").read_text()
    assert table(ROWS) in page
    rates = [
        StepRate(values["cycles"], RECORD["machine"]["clock_mhz"], values["gops"] * values["us"] / 1e6)
        for values in RECORD["step"].values()
    ]
    for line in rate_lines(CycleComparison(ROWS, *rates)):
        assert line in page
    assert RECORD["commit"] in page
    assert RECORD["command"] in page


def test_time_and_rate_of_a_step() -> None:
    rate = StepRate(cycles=500, clock_mhz=250.0, gop=3.0)
    assert rate.us == 2.0
    assert rate.gops == 1_500_000.0
    lines = rate_lines(CycleComparison([], rate, StepRate(1000, 250.0, 3.0)))
    assert lines[0] == "rtl: 500 cycles = 0.00 ms at 250 MHz = 1,500,000 equivalent GOP/s"
    assert lines[1].startswith("simulated: 1,000 cycles")


def test_a_row_knows_its_error() -> None:
    assert PhaseCycles("conv1", "ff", 1000, 990).error == pytest.approx(-0.01)
    assert PhaseCycles("conv1", "ff", 0, 990).error == 0.0
