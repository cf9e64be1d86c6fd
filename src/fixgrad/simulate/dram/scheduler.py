"""The bank-level scheduler, compiled by numba: FR-FCFS over bounded queues, open pages, refresh, write draining.

It moves from event to event, not from clock to clock: at each step it finds the command that can go out first, and the
clock jumps there. Reads and writes wait in a queue each. Column commands go to one direction at a time; the banks
that the other direction needs are prepared while the command bus is free. Order of preference among the commands of one
clock: refresh, the oldest ready column command (first ready), then row commands by age (first come, first served).

Only this module imports numba, and it is imported on first use. numba's cache looks at the time stamp of this file alone:
after a change of `bank_state`, touch it.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

from fixgrad.simulate.dram.bank_state import (
    ACTIVATE,
    ACTIVATES,
    ADMITTED,
    BANK,
    CLOCK,
    CLOSED,
    COLUMN_SLOT,
    FAR,
    FAW_ACTIVATES,
    ID,
    LOGGED,
    MODE,
    OPENED,
    PRECHARGE,
    PRECHARGE_ALL,
    PRECHARGES,
    READ,
    READS,
    REFRESH,
    REFRESHES,
    ROW,
    ROW_HITS,
    ROW_SLOT,
    TURNAROUNDS,
    WRITE,
    WRITES,
    Integers,
    Requests,
    Shape,
    State,
)
from fixgrad.simulate.dram.standard import DramTiming

F = TypeVar("F", bound=Callable[..., object])


def _compiled(function: F) -> F:
    return cast(F, numba.njit(cache=True)(function))


@_compiled
def _column_ready(shape: Shape, state: State, direction: int, bank: int) -> int:
    """Earliest clock of a column command to the open row of `bank`."""
    group = bank // shape.banks_per_group
    rank = group // shape.bank_groups
    at = max(state.column_at[bank], state.group_column_at[direction, group])
    at = max(at, state.rank_column_at[direction, rank])
    return int(max(at, state.scalars[COLUMN_SLOT]))


@_compiled
def _activate_ready(t: DramTiming, shape: Shape, state: State, bank: int) -> int:
    group = bank // shape.banks_per_group
    rank = group // shape.bank_groups
    at = max(state.activate_at[bank], state.group_activate_at[group])
    at = max(at, state.rank_activate_at[rank], state.last_activates[rank, 0] + t.t_faw)
    return int(max(at, state.scalars[ROW_SLOT]))


@_compiled
def _take_slot(shape: Shape, state: State, clock: int, column: bool) -> None:
    """Occupy the command bus for one clock (HBM has one bus for rows and one for columns)."""
    state.scalars[CLOCK] = clock
    if column or not shape.dual_command_bus:
        state.scalars[COLUMN_SLOT] = clock + 1
    if not column or not shape.dual_command_bus:
        state.scalars[ROW_SLOT] = clock + 1


@_compiled
def _raise_to(array: Integers, index: int, clock: int) -> None:
    array[index] = max(array[index], clock)


@_compiled
def _log(state: State, log: Integers, clock: int, command: int, bank: int, row: int) -> None:
    at = state.scalars[LOGGED]
    if at < log.shape[0]:
        log[at, 0], log[at, 1], log[at, 2], log[at, 3] = clock, command, bank, row
        state.scalars[LOGGED] = at + 1


@_compiled
def _issue_activate(t: DramTiming, shape: Shape, state: State, clock: int, bank: int, row: int) -> None:
    group = bank // shape.banks_per_group
    rank = group // shape.bank_groups
    state.open_row[bank] = row
    state.column_at[bank] = clock + t.t_rcd
    _raise_to(state.precharge_at, bank, clock + t.t_ras)
    _raise_to(state.activate_at, bank, clock + t.t_ras + t.t_rp)
    _raise_to(state.group_activate_at, group, clock + t.t_rrd_l)
    _raise_to(state.rank_activate_at, rank, clock + t.t_rrd_s)
    for k in range(3):
        state.last_activates[rank, k] = state.last_activates[rank, k + 1]
    state.last_activates[rank, 3] = clock
    state.counters[ACTIVATES] += 1
    _take_slot(shape, state, clock, False)


@_compiled
def _issue_precharge(t: DramTiming, shape: Shape, state: State, clock: int, bank: int) -> None:
    state.open_row[bank] = CLOSED
    _raise_to(state.activate_at, bank, clock + t.t_rp)
    state.counters[PRECHARGES] += 1
    _take_slot(shape, state, clock, False)


@_compiled
def _issue_column(t: DramTiming, shape: Shape, state: State, clock: int, bank: int, direction: int) -> int:
    """Issue a read or write; returns the clock after its last data."""
    group = bank // shape.banks_per_group
    rank = group // shape.bank_groups
    other = 1 - direction
    latency = t.cwl if direction == WRITE else t.cl
    _raise_to(state.group_column_at[direction], group, clock + t.t_ccd_l)
    _raise_to(state.rank_column_at[direction], rank, clock + t.t_ccd_s)
    if direction == READ:
        _raise_to(state.precharge_at, bank, clock + t.t_rtp)
        _raise_to(state.rank_column_at[other], rank, clock + t.cl + t.burst + t.t_rtrs - t.cwl)
        state.counters[READS] += 1
    else:
        _raise_to(state.precharge_at, bank, clock + t.cwl + t.burst + t.t_wr)
        _raise_to(state.rank_column_at[other], rank, clock + t.cwl + t.burst + t.t_wtr_s)
        _raise_to(state.group_column_at[other], group, clock + t.cwl + t.burst + t.t_wtr_l)
        state.counters[WRITES] += 1
    for foreign in range(shape.ranks):
        if foreign != rank:  # the data of two ranks are t_rtrs apart on the shared bus
            free = clock + latency + t.burst + t.t_rtrs
            _raise_to(state.rank_column_at[READ], foreign, free - t.cl)
            _raise_to(state.rank_column_at[WRITE], foreign, free - t.cwl)
    _take_slot(shape, state, clock, True)
    return clock + latency + t.burst


@_compiled
def _refresh_command(t: DramTiming, shape: Shape, state: State, rank: int) -> tuple[int, bool]:
    """Earliest clock of the next command towards a refresh of `rank`, and whether it is the refresh itself."""
    first = rank * shape.bank_groups * shape.banks_per_group
    any_open = False
    precharge, refresh = state.scalars[ROW_SLOT], state.scalars[ROW_SLOT]
    for bank in range(first, first + shape.bank_groups * shape.banks_per_group):
        refresh = max(refresh, state.activate_at[bank])
        if state.open_row[bank] != CLOSED:
            any_open = True
            precharge = max(precharge, state.precharge_at[bank])
    return (precharge, False) if any_open else (refresh, True)


@_compiled
def _issue_refresh_step(t: DramTiming, shape: Shape, state: State, clock: int, rank: int, is_refresh: bool) -> None:
    first = rank * shape.bank_groups * shape.banks_per_group
    for bank in range(first, first + shape.bank_groups * shape.banks_per_group):
        if is_refresh:
            state.activate_at[bank] = clock + t.t_rfc
        elif state.open_row[bank] != CLOSED:
            state.open_row[bank] = CLOSED
            _raise_to(state.activate_at, bank, clock + t.t_rp)
            state.counters[PRECHARGES] += 1
    if is_refresh:
        state.refresh_at[rank] += t.t_refi
        state.counters[REFRESHES] += 1
    _take_slot(shape, state, clock, False)


@_compiled
def _refreshing(shape: Shape, state: State, bank: int, clock: int) -> bool:
    """Whether the rank of `bank` waits for its refresh: then it takes no other command."""
    return bool(state.refresh_at[bank // (shape.banks_per_group * shape.bank_groups)] <= clock)


@_compiled
def _best_column(shape: Shape, state: State, clock: int) -> tuple[int, int]:
    """(clock, queue entry) of the column command that can go first in the present direction; entry -1 if none.

    A request older than the starvation limit keeps younger hits from its bank.
    """
    direction = state.scalars[MODE]
    best, entry, withheld = FAR, -1, 0
    for i in range(state.queued[direction]):
        bank = state.queue[direction, i, BANK]
        if _refreshing(shape, state, bank, clock) or (withheld >> bank) & 1:
            continue
        if state.open_row[bank] != state.queue[direction, i, ROW]:
            if clock - state.queue[direction, i, ADMITTED] > shape.starvation_clocks:
                withheld |= 1 << bank
            continue
        at = max(clock, _column_ready(shape, state, direction, bank))
        if at < best:
            best, entry = at, i
    return best, entry


@_compiled
def _banks_in_use(shape: Shape, state: State, direction: int, clock: int) -> int:
    """Bit mask of the banks whose open row is still wanted by a request that may be served."""
    wanted, withheld = 0, 0
    for i in range(state.queued[direction]):
        bank = state.queue[direction, i, BANK]
        if state.open_row[bank] == state.queue[direction, i, ROW]:
            if not (withheld >> bank) & 1:
                wanted |= 1 << bank
        elif clock - state.queue[direction, i, ADMITTED] > shape.starvation_clocks:
            withheld |= 1 << bank
    return wanted


@_compiled
def _best_row(t: DramTiming, shape: Shape, state: State, direction: int, clock: int, kept: int) -> tuple[int, int, int]:
    """(clock, queue entry, banks claimed) of the first activate or precharge that the queue of `direction` asks for.

    `kept`: banks that must stay as they are.
    """
    best, entry = FAR, -1
    for i in range(state.queued[direction]):
        bank, row = state.queue[direction, i, BANK], state.queue[direction, i, ROW]
        if state.open_row[bank] == row or (kept >> bank) & 1 or _refreshing(shape, state, bank, clock):
            continue
        kept |= 1 << bank  # the oldest request of a bank decides its next row
        if state.open_row[bank] == CLOSED:
            at = max(clock, _activate_ready(t, shape, state, bank))
        else:
            at = max(clock, state.precharge_at[bank], state.scalars[ROW_SLOT])
        if at < best:
            best, entry = at, i
    return best, entry, kept


@_compiled
def _rows_lost(state: State) -> int:
    """Open rows that queued reads still want and queued writes would close."""
    wanted, lost, count = 0, 0, 0
    for i in range(state.queued[READ]):
        bank = state.queue[READ, i, BANK]
        if state.open_row[bank] == state.queue[READ, i, ROW]:
            wanted |= 1 << bank
    for i in range(state.queued[WRITE]):
        bank = state.queue[WRITE, i, BANK]
        if ((wanted & ~lost) >> bank) & 1 and state.open_row[bank] != state.queue[WRITE, i, ROW]:
            lost |= 1 << bank
            count += 1
    return count


@_compiled
def _choose_direction(shape: Shape, state: State) -> None:
    """Drain writes when their queue is full or nothing else waits; go back when it is low and reads wait.

    A full write queue waits for reads whose rows it would close, if they are more than one tFAW window can open again,
    but not past the starvation limit.
    """
    reads, writes = state.queued[READ], state.queued[WRITE]
    mode = state.scalars[MODE]
    if mode == READ and writes > 0:
        starved = state.scalars[CLOCK] - state.queue[WRITE, 0, ADMITTED] > shape.starvation_clocks
        full = writes >= shape.write_high and _rows_lost(state) <= FAW_ACTIVATES
        if reads == 0 or full or starved:
            state.scalars[MODE] = WRITE
            state.counters[TURNAROUNDS] += min(1, state.counters[READS])
    elif mode == WRITE and reads > 0 and writes <= shape.write_low:
        state.scalars[MODE] = READ
        state.counters[TURNAROUNDS] += min(1, state.counters[WRITES])


@_compiled
def _admit(shape: Shape, state: State, requests: Requests, first_id: int, index: int) -> int:
    """Move requests that have arrived into the queues, in order, while there is room; returns the next index."""
    while index < requests.arrival.size and requests.arrival[index] <= state.scalars[CLOCK]:
        direction = requests.write[index]
        at = state.queued[direction]
        if at >= shape.queue_depth:
            break
        state.queue[direction, at, ID] = first_id + index
        state.queue[direction, at, BANK] = requests.bank[index]
        state.queue[direction, at, ROW] = requests.row[index]
        state.queue[direction, at, ADMITTED] = state.scalars[CLOCK]
        state.queue[direction, at, OPENED] = 0
        state.queued[direction] = at + 1
        index += 1
    return index


@_compiled
def _remove(state: State, direction: int, entry: int) -> None:
    for i in range(entry, state.queued[direction] - 1):
        for field in range(5):
            state.queue[direction, i, field] = state.queue[direction, i + 1, field]
    state.queued[direction] -= 1


@_compiled
def _serve_column(
    t: DramTiming, shape: Shape, state: State, requests: Requests, first_id: int, log: Integers, clock: int, entry: int
) -> None:
    direction = state.scalars[MODE]
    bank, row = state.queue[direction, entry, BANK], state.queue[direction, entry, ROW]
    opened = state.queue[direction, entry, OPENED]
    end = _issue_column(t, shape, state, clock, bank, direction)
    _log(state, log, clock, direction, bank, row)
    state.counters[ROW_HITS] += 1 - opened
    index = state.queue[direction, entry, ID] - first_id
    if index >= 0:  # entries of an earlier batch have been reported already
        requests.data_end[index] = end
        requests.opened[index] = opened
    _remove(state, direction, entry)


@_compiled
def _serve_row(t: DramTiming, shape: Shape, state: State, log: Integers, clock: int, direction: int, entry: int) -> None:
    bank, row = state.queue[direction, entry, BANK], state.queue[direction, entry, ROW]
    if state.open_row[bank] == CLOSED:
        _issue_activate(t, shape, state, clock, bank, row)
        state.queue[direction, entry, OPENED] = 1
        _log(state, log, clock, ACTIVATE, bank, row)
    else:
        _log(state, log, clock, PRECHARGE, bank, state.open_row[bank])
        _issue_precharge(t, shape, state, clock, bank)


@_compiled
def _next_refresh(t: DramTiming, shape: Shape, state: State, clock: int) -> tuple[int, int, bool, int]:
    """(clock, rank, is refresh) of the first refresh step that is due, and the clock at which another falls due."""
    best, rank, is_refresh, due = FAR, -1, False, FAR
    for r in range(shape.ranks):
        if state.refresh_at[r] > clock:
            due = min(due, state.refresh_at[r])
            continue
        at, last = _refresh_command(t, shape, state, r)
        at = max(at, clock)
        if at < best:
            best, rank, is_refresh = at, r, last
    return best, rank, is_refresh, due


@_compiled
def run(
    t: DramTiming,
    shape: Shape,
    state: State,
    requests: Requests,
    first_id: int,
    begin: int,
    until: int,
    drain: bool,
    log: Integers,
) -> None:
    """Serve `requests` from index `begin` on (ids `first_id`, `first_id` + 1, ...) on top of what the queues hold.

    Stops when all have entered a queue (`drain` false) or have been served (`drain` true), but not before clock `until`.
    Commands go to `log` ([n, 4]: clock, command, bank or rank, row) as long as it has room.
    """
    index = begin
    while True:
        index = _admit(shape, state, requests, first_id, index)
        _choose_direction(shape, state)
        clock = state.scalars[CLOCK]
        waiting = state.queued[READ] + state.queued[WRITE]
        done = index == requests.arrival.size and (not drain or waiting == 0)
        if done and clock >= until:
            return
        mode = state.scalars[MODE]
        column, column_entry = _best_column(shape, state, clock)
        kept = _banks_in_use(shape, state, mode, clock)
        row, row_entry, kept = _best_row(t, shape, state, mode, clock, kept)
        other, other_entry, _ = _best_row(t, shape, state, 1 - mode, clock, kept)
        refresh, rank, is_refresh, due = _next_refresh(t, shape, state, clock)
        # Something may happen before any command can go: an arrival, a refresh that falls due, the end of the call.
        event = due
        if index < requests.arrival.size and state.queued[requests.write[index]] < shape.queue_depth:
            event = min(event, requests.arrival[index])
        if done:
            event = min(event, until)
        first = min(min(column, row), min(other, refresh))
        if event <= first:
            state.scalars[CLOCK] = max(clock, event)
        elif refresh == first:
            _log(state, log, refresh, REFRESH if is_refresh else PRECHARGE_ALL, rank, CLOSED)
            _issue_refresh_step(t, shape, state, refresh, rank, is_refresh)
        elif column == first:
            _serve_column(t, shape, state, requests, first_id, log, column, column_entry)
        elif row == first:
            _serve_row(t, shape, state, log, row, mode, row_entry)
        else:
            _serve_row(t, shape, state, log, other, 1 - mode, other_entry)
