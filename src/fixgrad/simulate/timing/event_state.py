"""A program and the state of the units as arrays and tuples that numba takes as they are. See `event_loops`."""

from typing import Any, NamedTuple

import numpy as np

from fixgrad.simulate.timing.channel_state import Integers

#: Units as numbers: those that are waited for first, in the order of `work.WAIT_UNITS`. They are numpy's, which numba takes
#: for values; of a function that is called with Python's constants it compiles a version for each of them.
_UNITS: Any = np.arange(5)
LOAD, COMPUTE, POST, UPDATE, CONTROL = _UNITS
#: Columns of `Plan.blocks`; four more hold the waits.
FIRST, COUNT, UNIT, ORDINAL, ROW, WAITS = range(6)
#: Columns of `Plan.steps`.
CYCLES, READS, WRITES, DRAINS = range(4)
#: Places in `State.counters`.
AGENDA, WAITING, NOW, DISPATCHED, INSIDE, FREE, BEGUN_AT, FULL, HELD_BY, FETCHED, LOADED, LOADING = range(12)
HALTED, HALT_UNIT, HALT_NUMBER = range(12, 15)
#: Columns of `State.groups`.
GROUP_FREE, START, END, STOLEN, RUNS, OLDEST, NEWEST = range(7)
#: Columns of `State.queues`.
TAKEN, CALLED, OWNED = range(3)
#: Columns of `State.pipelines`; the three from CURRENT_READY on and the last of a piece are alike.
CURRENT, STEP, AHEAD, PIPELINE_FREE, BEGIN, BUSY, LAST_WRITE, HEAD, TAIL, WRITTEN, TURN, OPENS, OPENING, CLOSED = range(14)
CURRENT_READY, CURRENT_UNIT, CURRENT_NUMBER, ENDED, PIPELINE_COLUMNS = range(14, 19)
#: Steps of POST and UPDATE that may take words from a group before its COMPUTE ends; they are at most two tiles behind or ahead.
DRAINS_KEPT = 4096


class Plan(NamedTuple):
    """What is to be run. B blocks, C COMPUTEs, G groups; queue 0 is POST's, 1 + g that of UPDATE of group g; pipeline 0 is POST,
    1 + l lane l of UPDATE.

    Attributes:
        blocks: first instruction, instructions, unit, number among its unit's, row of the result, and waits, [B, 9].
        load_blocks, compute_blocks: numbers of the blocks of LOAD and COMPUTE.
        loads: what each block of LOAD asks for, as `Asked`, [loads, 3].
        leads: cycles in which LOAD's bus rests before each of them.
        cycles: of each COMPUTE in each group, [C, G]; holds: `Work.holds`, [C, 3].
        alone: whether each block of POST may not overlap with others of POST; before them one that may.
        queues: first queue of each pipeline, and one more.
        items: blocks of all queues, one queue behind the other, item_queues: whose, and item_counts: how many instructions each is.
        item_first: first item of each queue, and one more.
        setups: cycles from the begin of each item until it asks for its first data.
        item_steps: first step of each item, and one more.
        steps: of each step, cycles, first of its reads, writes and drains; and one more, [steps + 1, 4].
        reads, writes: as `Asked`, [n, 3].
        drains: (group, words), [n, 2].
        update_counts: instructions of each block of UPDATEs in each group, [UPDATE blocks, G].
        fetches: of each page of the program, as `Asked`, [pages, 3].
        halt: number of the block of HALT.
        page: instructions of a page; fetch_bursts: pages that are asked for ahead; beats: cycles in which an instruction comes.
        depth: of queues; ahead: steps read ahead.
        dispatch, completion, post, update: latencies.
    """

    blocks: Integers
    load_blocks: Integers
    compute_blocks: Integers
    loads: Integers
    leads: Integers
    cycles: Integers
    holds: Integers
    queues: Integers
    alone: Integers
    items: Integers
    item_queues: Integers
    item_counts: Integers
    item_first: Integers
    setups: Integers
    item_steps: Integers
    steps: Integers
    reads: Integers
    writes: Integers
    drains: Integers
    update_counts: Integers
    fetches: Integers
    halt: int
    page: int
    fetch_bursts: int
    beats: int
    depth: int
    ahead: int
    dispatch: int
    completion: int
    post: int
    update: int


class State(NamedTuple):
    """What the units know, and what they have done.

    Attributes:
        counters: see their places.
        agenda: (cycle, action), the next one last; waiting: (unit or CONTROL for dispatch, count, action), oldest first.
        times: when the first instruction of each block may begin, and the last one; number of the POST that dispatch had waited for
            last before it, or -1, [B, 3].
        fetched: when each page is on chip.
        room: places free in the queue of each unit, and, behind them, of each group's UPDATE.
        done: when each instruction of LOAD, COMPUTE, POST, UPDATE completes, from done_first[unit] on; known: how many have.
        arrived: (groups, latest time, group that was last) of each COMPUTE and of each UPDATE behind them.
        begun: groups that have begun each COMPUTE.
        groups: see their columns; group_drains: (begin, end, words, kind of hold) of what POST and UPDATE take from each.
        runs: (start, end, stolen, unit and number waited for last) of each COMPUTE in each group, [C, G, 5].
        queues, pipelines: see their columns; written: when the last steps of each were; pieces: (item, step or -1, begin, end, ready,
            unit and number waited for last) of what each has read.
        load_records: (unit and number waited for last, ready, asked, first, end, bus) of each block of LOAD.
        step_records: (unit and number waited for last, ready, begin, drained, end, busy) of each item.
        order: the items of each pipeline in the order in which they ended, and places: where each is among them.
    """

    counters: Integers
    agenda: Integers
    waiting: Integers
    times: Integers
    fetched: Integers
    room: Integers
    done: Integers
    done_first: Integers
    known: Integers
    arrived: Integers
    begun: Integers
    groups: Integers
    group_drains: Integers
    runs: Integers
    queues: Integers
    pipelines: Integers
    written: Integers
    pieces: Integers
    load_records: Integers
    step_records: Integers
    order: Integers
    places: Integers


def new_state(plan: Plan) -> State:
    """All units before the first instruction."""
    (computes, groups), pipelines, queues = plan.cycles.shape, len(plan.queues) - 1, len(plan.item_first) - 1
    units, counts = plan.blocks[:, UNIT], plan.blocks[:, COUNT]
    instructions = [int(counts[units == unit].sum()) for unit in (LOAD, COMPUTE, POST)]
    updates = int(plan.update_counts[:, 0].sum()) if len(plan.update_counts) else 0
    # Every unit waits for one thing at a time; a pipeline for one of each queue, for an item to open, and for writes of steps ahead.
    actions = groups + 1 + queues + pipelines * (1 + plan.ahead) + plan.fetch_bursts + 8
    counters, state = np.zeros(HALT_NUMBER + 1, np.int64), np.zeros((groups, NEWEST + 1), np.int64)
    counters[[FULL, HELD_BY]], state[:, START] = -1, -1
    pipeline = np.zeros((pipelines, PIPELINE_COLUMNS), np.int64)
    pipeline[:, [CURRENT, BEGIN]] = -1
    empty = np.diff(plan.item_steps) == 0
    longest = int(np.diff(np.flatnonzero(np.concatenate([[True], ~empty, [True]]))).max())  # items without a step in a row, and 1
    return State(
        counters=counters,
        agenda=np.zeros((actions, 2), np.int64),
        waiting=np.zeros((actions, 3), np.int64),
        times=np.zeros((len(plan.blocks), 3), np.int64),
        fetched=np.zeros(len(plan.fetches), np.int64),
        room=np.full(CONTROL + 1 + groups, plan.depth),
        done=np.zeros(sum(instructions) + updates, np.int64),
        done_first=np.cumsum([0, *instructions]),
        known=np.zeros(CONTROL, np.int64),
        arrived=np.zeros((computes + updates, 3), np.int64),
        begun=np.zeros(computes, np.int64),
        groups=state,
        group_drains=np.zeros((groups, DRAINS_KEPT, 4), np.int64),
        runs=np.zeros((computes, groups, 5), np.int64),
        queues=np.zeros((queues, OWNED + 1), np.int64),
        pipelines=pipeline,
        written=np.zeros((pipelines, plan.ahead), np.int64),
        pieces=np.zeros((pipelines, (plan.ahead + 1) * (longest + 1), 7), np.int64),
        load_records=np.zeros((len(plan.loads), 7), np.int64),
        step_records=np.zeros((len(plan.items), 7), np.int64),
        order=np.zeros(len(plan.items), np.int64),
        places=np.zeros(len(plan.items), np.int64),
    )
