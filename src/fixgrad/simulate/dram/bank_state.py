"""The state of a channel as the scheduler sees it: arrays and tuples that numba takes as they are."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fixgrad.simulate.dram.standard import DramStandard

Integers = npt.NDArray[np.int64]

READ, WRITE, ACTIVATE, PRECHARGE, PRECHARGE_ALL, REFRESH = range(6)
COMMAND_NAMES = ("RD", "WR", "ACT", "PRE", "PREA", "REF")

CLOSED = -1
FAR = 1 << 62
FAW_ACTIVATES = 4

# Slots of State.scalars
CLOCK, COLUMN_SLOT, ROW_SLOT, MODE, LOGGED = range(5)
# Slots of State.counters
READS, WRITES, ROW_HITS, ACTIVATES, PRECHARGES, REFRESHES, TURNAROUNDS = range(7)
# Columns of State.queue
ID, BANK, ROW, ADMITTED, OPENED = range(5)


class Shape(NamedTuple):
    """What the scheduler must know of a standard besides its timing."""

    bank_groups: int
    banks_per_group: int
    ranks: int
    dual_command_bus: int
    queue_depth: int
    write_high: int
    write_low: int
    starvation_clocks: int


class State(NamedTuple):
    """Everything that a channel remembers. All arrays int64; times in clocks: the earliest clock of that command."""

    open_row: Integers  # [bank], CLOSED if precharged
    activate_at: Integers  # [bank] tRP, tRC, tRFC
    precharge_at: Integers  # [bank] tRAS, tRTP, tWR
    column_at: Integers  # [bank] tRCD
    group_activate_at: Integers  # [rank * groups + group] tRRD_L
    group_column_at: Integers  # [direction, rank * groups + group] tCCD_L, tWTR_L
    rank_activate_at: Integers  # [rank] tRRD_S
    rank_column_at: Integers  # [direction, rank] tCCD_S, tWTR_S, data bus
    last_activates: Integers  # [rank, 4] for tFAW, oldest first
    refresh_at: Integers  # [rank] when the next refresh falls due
    queue: Integers  # [direction, entry, field], oldest first
    queued: Integers  # [direction]
    scalars: Integers
    counters: Integers


class Requests(NamedTuple):
    """A batch of bursts in order of arrival, and where their outcome is written. All arrays int64 of one length."""

    arrival: Integers
    bank: Integers
    row: Integers
    write: Integers
    data_end: Integers
    """Out: clock after the last data of the burst."""
    opened: Integers
    """Out: 1 if an activate was issued for this burst, 0 if it hit an open row."""


def _zeros(*shape: int) -> Integers:
    return np.zeros(shape, dtype=np.int64)


def new_state(standard: DramStandard) -> State:
    """A channel with all banks precharged and the first refresh one interval away (ranks staggered)."""
    ranks, groups = standard.ranks, standard.ranks * standard.bank_groups
    stagger = np.arange(1, ranks + 1, dtype=np.int64) * standard.timing.t_refi // ranks
    return State(
        open_row=np.full(standard.banks, CLOSED, dtype=np.int64),
        activate_at=_zeros(standard.banks),
        precharge_at=_zeros(standard.banks),
        column_at=_zeros(standard.banks),
        group_activate_at=_zeros(groups),
        group_column_at=_zeros(2, groups),
        rank_activate_at=_zeros(ranks),
        rank_column_at=_zeros(2, ranks),
        last_activates=np.full((ranks, FAW_ACTIVATES), -FAR // 2, dtype=np.int64),
        refresh_at=stagger,
        queue=_zeros(2, standard.controller.queue_depth, 5),
        queued=_zeros(2),
        scalars=_zeros(5),
        counters=_zeros(7),
    )


def copy_state(state: State) -> State:
    """An independent copy, to look ahead without changing the channel."""
    return State(*(array.copy() for array in state))


def shape_of(standard: DramStandard) -> Shape:
    c = standard.controller
    return Shape(
        standard.bank_groups,
        standard.banks_per_group,
        standard.ranks,
        int(standard.command_buses == 2),
        c.queue_depth,
        c.write_high,
        c.write_low,
        c.starvation_clocks,
    )
