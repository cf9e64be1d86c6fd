"""What every gap of a long program went into, compiled by numba: `attribution.explain` over arrays, gap by gap.

numba's cache looks at the time stamp of this file alone: after a change of `event_state`, touch it.
"""

from typing import Any, NamedTuple

import numpy as np

from fixgrad.simulate.timing.channel_loops import compiled, entry
from fixgrad.simulate.timing.channel_state import Integers
from fixgrad.simulate.timing.event_state import COMPUTE, CONTROL, LOAD, POST, ROW, Plan, State
from fixgrad.simulate.timing.references import refer_to_plan, refer_to_state

#: Numbers of the causes, in the order of `Cause`; numpy's, which numba takes for values.
_CAUSES: Any = np.arange(1, 8)
_IMBALANCE, _POST, _LOAD_BUS, _BANDWIDTH, _LATENCY, _DEPENDENCY, _FILL = _CAUSES


class Owners(NamedTuple):
    """Which record each instruction belongs to, and the latencies of memory.

    Attributes:
        loads: of each LOAD, its block among those of LOAD.
        updates: of each group's UPDATEs, the item, [UPDATEs, groups].
        read_latency, write_latency: cycles of a burst on idle memory.
        groups_per_lane: of UPDATE.
    """

    loads: Integers
    updates: Integers
    read_latency: int
    write_latency: int
    groups_per_lane: int


@compiled
def _give(ledger: Integers, row: int, cause: int, low: int, high: int, since: int) -> int:
    """See `_Walk._give`; returns the new end of what is left."""
    since = max(since, low)
    if since < high:
        ledger[row, cause] += high - since
        high = since
    return high


@compiled
def _mixed(ledger: Integers, row: int, causes: tuple[int, int], span: tuple[int, int], since: int, shares: tuple[int, int]) -> int:
    """See `_Walk._mixed`; `span` is what is left, `shares` the whole and the part that goes to the first cause."""
    low, high = span
    since, (whole, part) = max(since, low), shares
    if since < high:
        length = high - since
        given = length * part // whole if whole > 0 else length
        ledger[row, causes[0]] += given
        ledger[row, causes[1]] += length - given
        high = since
    return high


@compiled
def _load(plan: Plan, state: State, owners: Owners, ledger: Integers, number: int, low: int, high: int) -> tuple[int, int, int, int]:
    """See `_Walk._load`: the end of what is left, what the LOAD waited for, and its row."""
    unit, last, row = CONTROL, 0, 0
    while high > low:
        row = plan.blocks[plan.load_blocks[number], ROW]
        unit, last, ready, asked, first, end, bus = state.load_records[number]
        before = state.load_records[number - 1, 5] if number else 0
        high = _give(ledger, row, _FILL, low, high, end)
        shares = end - first, min(bus, end - first)
        high = _mixed(ledger, row, (_LOAD_BUS, _BANDWIDTH), (low, high), first, shares)
        since = max(asked, before)
        high = _give(ledger, row, _BANDWIDTH, low, high, since + owners.read_latency)
        high = _give(ledger, row, _LATENCY, low, high, since)
        if number == 0 or before < high:
            high = _give(ledger, row, _FILL, low, high, ready)
            break
        number -= 1
    return high, unit, last, row


@compiled
def _steps(
    plan: Plan, state: State, owners: Owners, ledger: Integers, item: int, pipeline: int, low: int, high: int
) -> tuple[int, int, int, int]:
    """See `_Walk._steps`: the end of what is left, what the POST or UPDATE waited for, and its row."""
    first, place, cause = plan.item_first[plan.queues[pipeline]], state.places[item], _DEPENDENCY if pipeline else _POST
    row, record = plan.blocks[plan.items[item], ROW], state.step_records[item]
    high = _give(ledger, row, _FILL, low, high, record[5])
    high = _give(ledger, row, _BANDWIDTH, low, high, record[4] + owners.write_latency)
    unit, last = CONTROL, 0
    while high > low:
        row = plan.blocks[plan.items[item], ROW]
        unit, last, ready, begin, drained, _, busy = state.step_records[item]
        before = state.step_records[state.order[place - 1], 4] if place > first else 0
        high = _give(ledger, row, _LATENCY, low, high, drained)
        shares = drained - begin, min(busy, drained - begin)
        high = _mixed(ledger, row, (cause, _BANDWIDTH), (low, high), begin, shares)
        if place == first or before < begin:
            high = _give(ledger, row, _LATENCY, low, high, ready)
            break
        place -= 1
        item = state.order[place]
    return high, unit, last, row


@compiled
def _explain(
    plan: Plan, state: State, owners: Owners, ledger: Integers, group: int, gap: tuple[int, int], blocker: tuple[int, int], row: int
) -> None:
    """See `attribution.explain`."""
    (low, high), (unit, number) = gap, blocker
    while high > low:
        if unit == CONTROL:
            high = _give(ledger, row, _FILL, low, high, low)
        elif unit == LOAD:
            high, unit, number, row = _load(plan, state, owners, ledger, owners.loads[number], low, high)
        elif unit == COMPUTE:
            row = plan.blocks[plan.compute_blocks[number], ROW]
            high = _give(ledger, row, _FILL, low, high, state.done[state.done_first[COMPUTE] + number])
            slowest = state.arrived[number, 2]
            high = _give(ledger, row, _DEPENDENCY if slowest == group else _IMBALANCE, low, high, low)
        else:
            of_group = state.arrived[len(plan.compute_blocks) + number, 2] if unit != POST else 0
            pipeline = 0 if unit == POST else 1 + of_group // owners.groups_per_lane
            item = number if unit == POST else owners.updates[number, of_group]
            high, unit, number, row = _steps(plan, state, owners, ledger, item, pipeline, low, high)


@entry
def explain_all(plan: Plan, state: State, owners: Owners, ledger: Integers, cycles: int, halt: tuple[int, int]) -> None:
    """Give every cycle in which a group waited to a row and cause, of `ledger` [rows, causes], in cycles of groups.

    Args:
        cycles: of the step.
        halt: unit and number of what HALT waited for last.
    """
    plan, state = refer_to_plan(*plan), refer_to_state(*state)
    computes, groups = plan.cycles.shape
    for group in range(groups):
        free = 0
        for number in range(computes + 1):
            start, end, blocker, row = cycles, cycles, halt, plan.blocks[plan.halt, ROW]
            if number < computes:
                start, end, _, unit, last = state.runs[number, group]
                blocker, row = (unit, last), plan.blocks[plan.compute_blocks[number], ROW]
            if start > free:
                _explain(plan, state, owners, ledger, group, (free, start), blocker, row)
            free = end
