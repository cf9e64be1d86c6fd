"""The units of a long program, compiled by numba: dispatch, LOAD, the groups, POST and UPDATE in one loop over the agenda.

They do what `Dispatcher`, `LoadUnit`, `ComputeGroup`, `PipelineUnit`, `Progress` and `Agenda` do, action by action, in the same
order; the tests compare all records of the two. numba's cache looks at the time stamp of this file alone: after a change of
`event_state`, `channel_state`, `channel_loops` or `references`, touch it.
"""

from typing import Any

import numpy as np

from fixgrad.simulate.timing.channel_loops import DONE, ask_parts, compiled, entry, serve
from fixgrad.simulate.timing.channel_state import ASKED, BUS, BUS_FREE, LEAD, PART, Channels, LoadState, Traffic
from fixgrad.simulate.timing.channel_state import BEGUN as LOAD_BEGUN
from fixgrad.simulate.timing.channel_state import NOW as LOAD_NOW
from fixgrad.simulate.timing.event_state import (
    AGENDA,
    AHEAD,
    BEGIN,
    BEGUN_AT,
    BUSY,
    CALLED,
    CLOSED,
    COMPUTE,
    CONTROL,
    COUNT,
    CURRENT,
    CURRENT_NUMBER,
    CURRENT_READY,
    CURRENT_UNIT,
    CYCLES,
    DISPATCHED,
    DRAINS,
    END,
    ENDED,
    FETCHED,
    FIRST,
    FREE,
    FULL,
    GROUP_FREE,
    HALT_NUMBER,
    HALT_UNIT,
    HALTED,
    HEAD,
    HELD_BY,
    INSIDE,
    LAST_WRITE,
    LOADED,
    LOADING,
    NEWEST,
    NOW,
    OLDEST,
    OPENING,
    OPENS,
    ORDINAL,
    OWNED,
    PIPELINE_FREE,
    POST,
    READS,
    ROW,
    RUNS,
    START,
    STEP,
    STOLEN,
    TAIL,
    TAKEN,
    TURN,
    UNIT,
    UPDATE,
    WAITING,
    WAITS,
    WRITES,
    WRITTEN,
    Plan,
    State,
)
from fixgrad.simulate.timing.holds import SHARES
from fixgrad.simulate.timing.references import (
    refer_to_channels,
    refer_to_load,
    refer_to_plan,
    refer_to_state,
    refer_to_traffic,
)

_NEVER = 1 << 62
#: `SHARES` and `Hold` of `holds`, as numba takes them.
_SHARES: Any = np.int64(SHARES)
_HOLDS: Any = np.arange(3)
_LANES, _GRADIENTS, _REST = _HOLDS
#: The queue of a unit that has but one, and the step that stands for the end of a block.
_ONLY: Any = np.int64(0)
_END: Any = np.int64(-1)


@compiled
def _at(state: State, time: int, action: int) -> None:
    """See `Agenda.at`: behind all actions of the same cycle."""
    agenda, place = state.agenda, state.counters[AGENDA]
    if place == len(agenda):
        raise OverflowError("more actions are on the agenda than it holds")
    while place > 0 and agenda[place - 1, 0] <= time:
        agenda[place, 0], agenda[place, 1] = agenda[place - 1, 0], agenda[place - 1, 1]
        place -= 1
    agenda[place, 0], agenda[place, 1] = time, action
    state.counters[AGENDA] += 1


@compiled
def _wait(state: State, kind: int, count: int, action: int) -> None:
    """Do `action` when `count` instructions of a unit have completed, or (CONTROL) when block `count` is dispatched."""
    place = state.counters[WAITING]
    state.waiting[place, 0], state.waiting[place, 1], state.waiting[place, 2] = kind, count, action
    state.counters[WAITING] += 1


@compiled
def _wake(state: State, kind: int, known: int, time: int) -> None:
    """Put on the agenda what has waited for this."""
    waiting, kept = state.waiting, 0
    for index in range(state.counters[WAITING]):
        if waiting[index, 0] == kind and waiting[index, 1] <= known:
            _at(state, time, waiting[index, 2])
        else:
            for column in range(3):
                waiting[kept, column] = waiting[index, column]
            kept += 1
    state.counters[WAITING] = kept


@compiled
def _complete(state: State, unit: int, time: int, known: int) -> None:
    """See `Progress.complete`: the instructions that were not known yet, up to number `known`, complete."""
    first, before = state.done_first[unit], state.known[unit]
    if before and state.done[first + before - 1] > time:
        time = state.done[first + before - 1]
    state.done[first + before : first + known] = time
    state.known[unit] = known
    _wake(state, unit, known, max(time, state.counters[NOW]))


@compiled
def _arrive(plan: Plan, state: State, unit: int, group: int, number: int, time: int) -> None:
    """See `SharedProgress.arrive`."""
    place = number if unit == COMPUTE else len(plan.compute_blocks) + number
    arrived = state.arrived[place]
    arrived[0] += 1
    if time >= arrived[1]:
        arrived[1], arrived[2] = time, group
    if arrived[0] == plan.cycles.shape[1]:
        _complete(state, unit, arrived[1], number + 1)


@compiled
def _fetch(channels: Channels, traffic: Traffic, plan: Plan, state: State, now: int) -> None:
    """See `Dispatcher._fetch`."""
    counters = state.counters
    page = counters[FETCHED]
    if page == len(plan.fetches):
        return
    row = plan.blocks[min(counters[DISPATCHED], len(plan.blocks) - 1), ROW]
    asked = plan.fetches[page]
    state.fetched[page], _ = serve(channels, traffic, (asked[0], asked[1]), asked[2], now, row)
    counters[FETCHED] += 1


@compiled
def _places(plan: Plan, block: int, group: int) -> int:
    """Places that a block takes in the queue of its unit (UPDATE: of a group)."""
    count = plan.blocks[block, COUNT]
    if plan.blocks[block, UNIT] == UPDATE:
        count = plan.update_counts[plan.blocks[block, ORDINAL], group]
    return int(min(count, plan.depth))


@compiled
def _full_queue(plan: Plan, state: State, block: int) -> int:
    """The first queue in which a block finds no room, or -1."""
    unit = plan.blocks[block, UNIT]
    if unit != UPDATE:
        return int(unit) if state.room[unit] < _places(plan, block, _ONLY) else -1
    for group in range(plan.cycles.shape[1]):
        if state.room[CONTROL + 1 + group] < _places(plan, block, group):
            return int(CONTROL + 1 + group)
    return -1


@compiled
def _take(plan: Plan, state: State, block: int) -> None:
    """Take the places of a block in its queues."""
    unit = plan.blocks[block, UNIT]
    if unit != UPDATE:
        state.room[unit] -= _places(plan, block, _ONLY)
        return
    for group in range(plan.cycles.shape[1]):
        state.room[CONTROL + 1 + group] -= _places(plan, block, group)


@compiled
def _pass(plan: Plan, state: State, block: int, run: int) -> bool:
    """See `Dispatcher._pass`; `run` is the action of dispatch."""
    counters = state.counters
    first, count = plan.blocks[block, FIRST], plan.blocks[block, COUNT]
    while counters[INSIDE] < count:
        number = first + counters[INSIDE]
        page, place = number // plan.page, number % plan.page
        if page >= counters[FETCHED]:
            _at(state, counters[FREE], run)
            return False
        if state.fetched[page] > counters[FREE]:
            _at(state, state.fetched[page], run)
            return False
        if place == 0:
            _at(state, counters[FREE], run + 1)
        here = min(count - counters[INSIDE], plan.page - place)
        if counters[INSIDE] == 0:
            counters[BEGUN_AT] = counters[FREE] + plan.beats
        counters[INSIDE] += here
        counters[FREE] += here * plan.beats
    return True


@compiled
def _dispatch(plan: Plan, state: State, now: int, run: int) -> None:
    """See `Dispatcher.run`."""
    counters = state.counters
    counters[FULL] = -1
    counters[FREE] = max(counters[FREE], now)
    while counters[DISPATCHED] < len(plan.blocks):
        block = counters[DISPATCHED]
        full = _full_queue(plan, state, block)
        if full >= 0:
            counters[FULL] = full
            return
        if not _pass(plan, state, block, run):
            return
        _take(plan, state, block)
        counters[INSIDE] = 0
        time = counters[BEGUN_AT] + plan.dispatch
        state.times[block, 0], state.times[block, 1] = time, counters[FREE] + plan.dispatch
        state.times[block, 2] = counters[HELD_BY]
        counters[DISPATCHED] += 1
        _wake(state, CONTROL, block, max(time, now))


@compiled
def _begun(plan: Plan, state: State, block: int, now: int, group: int) -> None:
    """See `Dispatcher.begun`."""
    counters, unit = state.counters, plan.blocks[block, UNIT]
    queue = CONTROL + 1 + group if unit == UPDATE else unit
    state.room[queue] += _places(plan, block, group)
    if counters[FULL] == queue:
        if unit == POST and plan.blocks[block, ORDINAL] > 0:
            counters[HELD_BY] = plan.blocks[block, ORDINAL] - 1
        counters[FULL] = -1
        _at(state, now, _first_write(plan, state) + 2 * len(state.pipelines))


@compiled
def _ready(plan: Plan, state: State, block: int, action: int) -> tuple[int, int, int]:
    """See `Dispatcher.ready`: cycle (-1: not known yet), unit and number of what was waited for last."""
    if block >= state.counters[DISPATCHED]:
        _wait(state, CONTROL, block, action)
        return -1, 0, 0
    time, last, number = state.times[block, 0], CONTROL, 0
    if state.times[block, 2] >= 0:
        last, number = POST, state.times[block, 2]
    for unit in range(CONTROL):
        count = plan.blocks[block, WAITS + unit]
        if count == 0:
            continue
        if count > state.known[unit]:
            _wait(state, unit, count, action)
            return -1, 0, 0
        completed = state.done[state.done_first[unit] + count - 1] + plan.completion
        if completed > time:
            time, last, number = completed, unit, count - 1
    return time, last, number


@compiled
def _stolen_until(plan: Plan, state: State, group: int, now: int) -> int:
    """See `ComputeGroup._stolen_until`."""
    found, kept, start = state.groups[group], state.group_drains[group], state.groups[group, START]
    stolen, holds = 0, plan.holds[found[RUNS]]
    for place in range(found[OLDEST], found[NEWEST]):
        begin, end, words, hold = kept[place % len(kept)]
        length = max(end - begin, 1)
        before, after = min(max(start - begin, 0), length), min(max(now - begin, 0), length)
        stolen += (words * after // length - words * before // length) * holds[hold]
    return int(stolen // _SHARES)


@compiled
def _finish_compute(plan: Plan, state: State, group: int, now: int) -> bool:
    """See `ComputeGroup._finish`."""
    found = state.groups[group]
    if now < found[END]:
        return False
    stolen = _stolen_until(plan, state, group, now) if found[OLDEST] < found[NEWEST] else 0
    if stolen > found[STOLEN]:
        found[END] += stolen - found[STOLEN]
        found[STOLEN] = stolen
        _at(state, found[END], group)
        return False
    number, kept = found[RUNS], state.group_drains[group]
    run = state.runs[number, group]
    run[0], run[1], run[2] = found[START], found[END], found[STOLEN]
    found[RUNS] += 1
    found[GROUP_FREE] = found[END]
    found[START] = -1
    while found[OLDEST] < found[NEWEST] and kept[found[OLDEST] % len(kept), 1] <= now:
        found[OLDEST] += 1
    unit = plan.blocks[plan.compute_blocks[number], UNIT]
    _arrive(plan, state, unit, group, number, found[END])
    return True


@compiled
def _step_group(plan: Plan, state: State, group: int, now: int) -> None:
    """See `ComputeGroup.step`."""
    found = state.groups[group]
    if found[START] >= 0 and not _finish_compute(plan, state, group, now):
        return
    number = found[RUNS]
    if number == len(plan.compute_blocks):
        return
    block = plan.compute_blocks[number]
    ready, unit, last = _ready(plan, state, block, group)
    if ready < 0:
        return
    if ready > now:
        _at(state, ready, group)
        return
    start, run = max(ready, found[GROUP_FREE]), state.runs[number, group]
    run[3], run[4] = unit, last
    state.begun[number] += 1
    if state.begun[number] == plan.cycles.shape[1]:
        _begun(plan, state, block, start, group)
    found[START], found[STOLEN] = start, 0
    found[END] = start + plan.cycles[number, group]
    _at(state, found[END], group)


@compiled
def _begin_load(plan: Plan, state: State, load: LoadState, now: int, action: int) -> bool:
    """See `LoadUnit._begin`."""
    number = state.counters[LOADED]
    if number == len(plan.load_blocks):
        return False
    block, record = plan.load_blocks[number], state.load_records[number]
    ready, unit, last = _ready(plan, state, block, action)
    if ready < 0:
        return False
    if ready > now:
        _at(state, ready, action)
        return False
    record[0], record[1], record[2] = unit, last, ready
    _begun(plan, state, block, now, _ONLY)
    state.counters[LOADING] = 1
    load.integers[PART] = load.integers[BUS] = 0
    load.integers[ASKED] = load.integers[LOAD_BEGUN] = -1
    load.integers[LEAD] = plan.leads[number]
    return True


@compiled
def _step_load(channels: Channels, traffic: Traffic, load: LoadState, plan: Plan, state: State, now: int, action: int) -> None:
    """See `LoadUnit.step`; LOAD goes on by itself as long as no other unit has anything to do."""
    counters, integers = state.counters, load.integers
    while counters[LOADING] or _begin_load(plan, state, load, now, action):
        number = counters[LOADED]
        block, asked, record = plan.load_blocks[number], plan.loads[number], state.load_records[number]
        horizon = state.agenda[counters[AGENDA] - 1, 0] if counters[AGENDA] else _NEVER
        times, row = (now, horizon, state.times[block, 1]), plan.blocks[block, ROW]
        free = ask_parts(channels, traffic, load, (asked[0], asked[1]), asked[2], times, row)
        now = counters[NOW] = integers[LOAD_NOW]
        if free != DONE:
            _at(state, free, action)
            return
        waited = integers[ASKED] < 0
        record[3], record[4] = (now, now) if waited else (integers[ASKED], integers[LOAD_BEGUN])
        record[5], record[6] = max(integers[BUS_FREE], record[4]), integers[BUS]
        counters[LOADED] += 1
        counters[LOADING] = 0
        unit = plan.blocks[block, UNIT]
        _complete(state, unit, record[5], state.known[unit] + plan.blocks[block, COUNT])


@compiled
def _next_item(plan: Plan, state: State, pipeline: int, now: int) -> bool:
    """See `PipelineUnit._next`."""
    unit, first = state.pipelines[pipeline], plan.queues[pipeline]
    count = plan.queues[pipeline + 1] - first
    for turn in range(count):
        place = (unit[TURN] + turn) % count
        queue = first + place
        item = plan.item_first[queue] + state.queues[queue, TAKEN]
        if state.queues[queue, CALLED] or item == plan.item_first[queue + 1]:
            continue
        alone = pipeline == 0 and (plan.alone[state.queues[queue, TAKEN]] or plan.alone[state.queues[queue, TAKEN] + 1])
        if alone and unit[HEAD] < unit[TAIL]:
            continue
        block, action = plan.items[item], plan.cycles.shape[1] + 1 + queue
        ready, last, number = _ready(plan, state, block, action)
        if alone and ready >= 0 and unit[ENDED] > ready:
            ready, last, number = unit[ENDED], POST, state.queues[queue, TAKEN] - 1
        if ready < 0 or ready > now:
            state.queues[queue, CALLED] = 1
            if ready > now:
                _at(state, ready, action)
            continue
        state.queues[queue, TAKEN] += 1
        unit[TURN] = (place + 1) % count
        _begun(plan, state, block, now, max(queue - 1, 0))
        unit[OPENS] = max(now, max(ready, unit[OPENS]) + plan.setups[item])
        unit[CURRENT], unit[STEP] = item, plan.item_steps[item]
        unit[CURRENT_READY], unit[CURRENT_UNIT], unit[CURRENT_NUMBER] = ready, last, number
        return True
    return False


@compiled
def _add_piece(state: State, pipeline: int, step: int, begin: int, end: int) -> None:
    """Append what has been read (step -1: the end of a block)."""
    unit = state.pipelines[pipeline]
    if unit[TAIL] - unit[HEAD] == state.pieces.shape[1]:
        raise OverflowError("more steps have been read ahead than are kept")
    piece = state.pieces[pipeline, unit[TAIL] % state.pieces.shape[1]]
    piece[0], piece[1], piece[2], piece[3] = unit[CURRENT], step, begin, end
    for column in range(3):
        piece[4 + column] = unit[CURRENT_READY + column]
    unit[TAIL] += 1


@compiled
def _drain(state: State, group: int, begin: int, end: int, words: int, hold: int) -> None:
    """See `ComputeGroup.drain`."""
    found, kept = state.groups[group], state.group_drains[group]
    if words == 0:
        return
    if found[NEWEST] - found[OLDEST] == len(kept):
        raise OverflowError("more steps of POST and UPDATE are outstanding than are kept")
    place = found[NEWEST] % len(kept)
    kept[place, 0], kept[place, 1], kept[place, 2], kept[place, 3] = begin, end, words, hold
    found[NEWEST] += 1


@compiled
def _rest(plan: Plan, state: State, group: int) -> int:
    """See `ComputeGroup.rest`."""
    found = state.groups[group]
    return int(plan.holds[found[RUNS], _REST]) if found[START] >= 0 else 0


@compiled
def _first_write(plan: Plan, state: State) -> int:
    """The action of the first pipeline's write; behind those are the openings of items, dispatch, fetch and the end."""
    return int(plan.cycles.shape[1] + 1 + len(state.queues))


@compiled
def _read(channels: Channels, traffic: Traffic, plan: Plan, state: State, pipeline: int, now: int) -> None:
    """See `PipelineUnit._read`."""
    unit, written = state.pipelines[pipeline], state.written[pipeline]
    step, row = unit[STEP], plan.blocks[plan.items[unit[CURRENT]], ROW]
    first, last = now, now
    for number in range(plan.steps[step, READS], plan.steps[step + 1, READS]):
        asked = plan.reads[number]
        begin, end = serve(channels, traffic, (asked[0], asked[1]), asked[2], now, row)
        first, last = max(first, begin), max(last, end)
    first = max(unit[PIPELINE_FREE], first)
    cycles = plan.steps[step, CYCLES]
    if pipeline:
        cycles += cycles * _rest(plan, state, plan.item_queues[unit[CURRENT]] - 1) // _SHARES
    last = max(first + cycles, last, written[unit[WRITTEN] % plan.ahead])
    unit[PIPELINE_FREE] = last
    unit[AHEAD] += 1
    unit[STEP] += 1
    _add_piece(state, pipeline, step, first, last)
    for number in range(plan.steps[step, DRAINS], plan.steps[step + 1, DRAINS]):
        _drain(state, plan.drains[number, 0], first, last, plan.drains[number, 1], _GRADIENTS if pipeline else _LANES)
    latency = plan.update if pipeline else plan.post
    _at(state, last + latency, _first_write(plan, state) + pipeline)


@compiled
def _completed(plan: Plan, state: State, item: int, time: int) -> None:
    """The instructions of an item complete."""
    block, queue = plan.items[item], plan.item_queues[item]
    unit = plan.blocks[block, UNIT]
    if unit == POST:
        _complete(state, unit, time, state.known[unit] + plan.blocks[block, COUNT])
        return
    for _ in range(plan.item_counts[item]):
        _arrive(plan, state, unit, queue - 1, state.queues[queue, OWNED], time)
        state.queues[queue, OWNED] += 1


@compiled
def _close(plan: Plan, state: State, pipeline: int) -> None:
    """See `PipelineUnit._close`."""
    unit, pieces = state.pipelines[pipeline], state.pieces[pipeline]
    while unit[HEAD] < unit[TAIL] and pieces[unit[HEAD] % len(pieces), 1] < 0:
        piece = pieces[unit[HEAD] % len(pieces)]
        unit[HEAD] += 1
        item, drained = piece[0], piece[3]
        record = state.step_records[item]
        end = max(drained, unit[LAST_WRITE], state.times[plan.items[item], 1])
        record[0], record[1], record[2] = piece[5], piece[6], piece[4]
        record[3], record[4] = drained if unit[BEGIN] < 0 else unit[BEGIN], drained
        record[5], record[6] = end, unit[BUSY]
        unit[ENDED] = end
        unit[BEGIN], unit[BUSY] = -1, 0
        place = plan.item_first[plan.queues[pipeline]] + unit[CLOSED]
        state.order[place], state.places[item] = item, place
        unit[CLOSED] += 1
        _completed(plan, state, item, end)


@compiled
def _read_ahead(channels: Channels, traffic: Traffic, plan: Plan, state: State, pipeline: int, now: int) -> None:
    """See `PipelineUnit._read_ahead`."""
    unit = state.pipelines[pipeline]
    while unit[AHEAD] < plan.ahead:
        if unit[CURRENT] < 0 and not _next_item(plan, state, pipeline, now):
            return
        if unit[OPENS] > now:
            if not unit[OPENING]:
                unit[OPENING] = 1
                _at(state, unit[OPENS], _first_write(plan, state) + len(state.pipelines) + pipeline)
            return
        if unit[STEP] < plan.item_steps[unit[CURRENT] + 1]:
            _read(channels, traffic, plan, state, pipeline, now)
            continue
        _add_piece(state, pipeline, _END, now, max(now, unit[PIPELINE_FREE]))
        unit[CURRENT] = -1
        if unit[TAIL] - unit[HEAD] == 1:
            _close(plan, state, pipeline)


@compiled
def _write(channels: Channels, traffic: Traffic, plan: Plan, state: State, pipeline: int, now: int) -> None:
    """See `PipelineUnit._write`."""
    unit = state.pipelines[pipeline]
    piece = state.pieces[pipeline, unit[HEAD] % state.pieces.shape[1]]
    unit[HEAD] += 1
    step, row = piece[1], plan.blocks[plan.items[piece[0]], ROW]
    if unit[BEGIN] < 0:
        unit[BEGIN] = piece[2]
    unit[BUSY] += plan.steps[step, CYCLES]
    written = now
    for number in range(plan.steps[step, WRITES], plan.steps[step + 1, WRITES]):
        asked = plan.writes[number]
        _, end = serve(channels, traffic, (asked[0], asked[1]), asked[2], now, row)
        written = max(written, end)
    state.written[pipeline, unit[WRITTEN] % plan.ahead] = written
    unit[WRITTEN] += 1
    unit[LAST_WRITE] = max(unit[LAST_WRITE], written)
    unit[AHEAD] -= 1
    _close(plan, state, pipeline)


@compiled
def _stop(plan: Plan, state: State, action: int) -> None:
    """See `Simulation`: the cycle at which HALT may begin is the last one."""
    ready, unit, number = _ready(plan, state, plan.halt, action)
    if ready >= 0:
        state.counters[HALTED], state.counters[HALT_UNIT], state.counters[HALT_NUMBER] = ready, unit, number


@entry
def run(channels: Channels, traffic: Traffic, load: LoadState, plan: Plan, state: State) -> None:
    """Do everything. Actions are the groups, LOAD, the queues' next blocks, the pipelines' writes and openings, dispatch, fetch and
    the end."""
    channels, traffic, load = refer_to_channels(*channels), refer_to_traffic(*traffic), refer_to_load(*load)
    plan, state = refer_to_plan(*plan), refer_to_state(*state)
    groups, pipelines, counters = plan.cycles.shape[1], len(state.pipelines), state.counters
    writes = _first_write(plan, state)
    openings, dispatch = writes + pipelines, writes + 2 * pipelines
    of_queue = np.zeros(len(state.queues), np.int64)
    for pipeline in range(pipelines):
        of_queue[plan.queues[pipeline] : plan.queues[pipeline + 1]] = pipeline
    begin = counters[NOW]
    for _ in range(plan.fetch_bursts):
        _at(state, begin, dispatch + 1)
    _at(state, begin, dispatch)
    for action in range(writes):
        _at(state, begin, action)
    _at(state, begin, dispatch + 2)
    while counters[AGENDA]:
        counters[AGENDA] -= 1
        now, action = state.agenda[counters[AGENDA]]
        counters[NOW] = now
        if action < groups:
            _step_group(plan, state, action, now)
        elif action == groups:
            _step_load(channels, traffic, load, plan, state, now, action)
        elif action < dispatch:
            pipeline = (action - writes) % pipelines
            if action < writes:
                pipeline = of_queue[action - groups - 1]
                state.queues[action - groups - 1, CALLED] = 0
            elif action < openings:
                _write(channels, traffic, plan, state, pipeline, now)
            else:
                state.pipelines[pipeline, OPENING] = 0
            _read_ahead(channels, traffic, plan, state, pipeline, now)
        elif action == dispatch:
            _dispatch(plan, state, now, dispatch)
        elif action == dispatch + 1:
            _fetch(channels, traffic, plan, state, now)
        else:
            _stop(plan, state, action)
