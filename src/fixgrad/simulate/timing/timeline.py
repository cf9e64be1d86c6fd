"""A simulation as Chrome trace events, which Perfetto (ui.perfetto.dev) and chrome://tracing show.

Format: "Trace Event Format", Google. A track for every unit and group holds one complete event (`ph` X) for each
instruction; a counter track for every memory channel shows the rate at which it moves bytes. Times are microseconds.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fixgrad.simulate.timing.run import Simulation
from fixgrad.simulate.timing.work import Row

#: Process numbers of the two groups of tracks.
MACHINE, MEMORY = 1, 2
#: Points of a counter track.
BINS = 2000
Event = dict[str, Any]


def write_timeline(path: Path, simulation: Simulation) -> int:
    """Write the events of a simulation to `path`, one a line; returns how many.

    The simulation must have kept its samples for the counters to be there.
    """
    count = 0
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ns","traceEvents":[')
        for count, event in enumerate(timeline(simulation), start=1):
            file.write("\n" if count == 1 else ",\n")
            file.write(json.dumps(event, separators=(",", ":")))
        file.write("\n]}\n")
    return count


def timeline(simulation: Simulation) -> Iterator[Event]:
    """All events: names of the tracks, instructions, counters."""
    us = 1.0 / simulation.work.machine.clock_mhz
    yield from _names(simulation)
    yield from _instructions(simulation, us)
    yield from _counters(simulation, us)


def _names(simulation: Simulation) -> Iterator[Event]:
    for process, name in ((MACHINE, simulation.work.machine.name), (MEMORY, "memory")):
        yield {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": {"name": name}}
    for number, name in enumerate(_tracks(simulation)):
        yield {"ph": "M", "pid": MACHINE, "tid": number, "name": "thread_name", "args": {"name": name}}
        yield {"ph": "M", "pid": MACHINE, "tid": number, "name": "thread_sort_index", "args": {"sort_index": number}}


def _tracks(simulation: Simulation) -> list[str]:
    groups = range(len(simulation.groups))
    lanes = range(simulation.work.machine.update_lanes)
    return ["LOAD", *(f"COMPUTE group {g}" for g in groups), "POST", *(f"UPDATE lane {lane}" for lane in lanes)]


def _instructions(simulation: Simulation, us: float) -> Iterator[Event]:
    work, groups = simulation.work, len(simulation.groups)

    def event(track: int, number: int, start: int, end: int, **more: int) -> Event:
        block = work.blocks[number]
        label: Row = work.rows[block.row]
        return {
            "ph": "X", "pid": MACHINE, "tid": track, "cat": label.phase,
            "name": f"{label.layer} {label.phase.upper()} {block.name}",
            "ts": round(start * us, 4), "dur": round((end - start) * us, 4),
            "args": {"instruction": block.first, "instructions": block.count, "cycle": start, "cycles": end - start, **more},
        }  # fmt: skip

    for load in simulation.loads:
        yield event(0, load.block, load.first, load.end, waited=load.first - load.ready)
    computes = simulation.compute_blocks
    for group in simulation.groups:
        for number, run in zip(computes, group.runs, strict=True):
            yield event(1 + group.group, number, run.start, run.end, stolen=run.stolen)
    for post in simulation.posts:
        yield event(1 + groups, post.block, post.begin, post.drained, written=post.end)
    for lane, records in enumerate(simulation.updates):
        for update in records:
            if update.busy:
                yield event(2 + groups + lane, update.block, update.begin, update.drained, written=update.end)


def _counters(simulation: Simulation, us: float) -> Iterator[Event]:
    """GB/s read and written by each channel, in equal intervals; what a service moves is spread evenly over its time."""
    samples, total = simulation.memory.samples, simulation.cycles
    if not samples:
        return
    width = max(1, -(-total // BINS))
    moved = np.zeros((len(simulation.memory.channels), 2, -(-total // width)))
    for start, end, channel, size, write in samples:
        first, last = min(start, total - 1) // width, min(end, total - 1) // width
        moved[channel, int(write), first : last + 1] += size / (last - first + 1)
    rates = moved / (width * us * 1000)
    for channel in range(len(rates)):
        for index in range(rates.shape[2]):
            read, written = rates[channel, :, index]
            yield {
                "ph": "C", "pid": MEMORY, "tid": 0, "name": f"channel {channel} GB/s", "ts": round(index * width * us, 4),
                "args": {"read": round(read, 3), "written": round(written, 3)},
            }  # fmt: skip
