"""The timeline against the Trace Event Format."""

import json
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from fixgrad.compiler import Program
from fixgrad.simulate.timing import simulate, write_timeline
from fixgrad.simulate.timing.timeline import MACHINE, MEMORY, timeline


@pytest.mark.parametrize("machine", ["tiny", "kcu1500"])
def test_the_file_is_a_trace(compiled: Callable[..., Program], tmp_path: Path, machine: str) -> None:
    program = compiled(machine=machine)
    simulation = simulate(program, keep_samples=True)
    path = tmp_path / "trace.json"
    count = write_timeline(path, simulation)
    found = json.loads(path.read_text())
    assert found["displayTimeUnit"] in ("ms", "ns")
    events = found["traceEvents"]
    assert len(events) == count
    total = simulation.cycles / program.machine.clock_mhz
    names = set()
    busy: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        assert event["ph"] in "MXC"
        assert {type(event[key]) for key in ("pid", "tid")} == {int}
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            if event["name"] == "thread_name":
                names.add(event["args"]["name"])
            continue
        assert 0 <= event["ts"] <= total
        if event["ph"] == "C":
            assert event["pid"] == MEMORY
            assert all(value >= 0 for value in event["args"].values())
        else:
            assert event["pid"] == MACHINE
            assert event["dur"] >= 0
            busy[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    groups = program.machine.groups
    assert names == {"LOAD", "POST"} | {f"COMPUTE group {g}" for g in range(groups)} | {
            f"UPDATE lane {lane}" for lane in range(program.machine.update_lanes)
        }
    for spans in busy.values():
        spans.sort()
        assert all(before[1] <= after[0] + 1e-3 for before, after in pairwise(spans))
    assert len(busy[1]) == len(program.positions["COMPUTE"])


def test_counters_add_up_to_the_bytes(compiled: Callable[..., Program]) -> None:
    simulation = simulate(compiled(), keep_samples=True)
    counters = [event for event in timeline(simulation) if event["ph"] == "C"]
    times = [event["ts"] for event in counters]
    width = times[1] - times[0]
    moved = {kind: 1000 * width * sum(event["args"][kind] for event in counters) for kind in ("read", "written")}
    totals = simulation.memory.channels[0].totals
    assert moved["read"] == pytest.approx(totals.bytes_read, rel=0.01)
    assert moved["written"] == pytest.approx(totals.bytes_written, rel=0.01)


def test_without_samples_there_are_no_counters(compiled: Callable[..., Program]) -> None:
    assert not any(event["ph"] == "C" for event in timeline(simulate(compiled())))
