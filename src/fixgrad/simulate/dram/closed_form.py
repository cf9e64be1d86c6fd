"""Closed forms of the time that one transfer occupies a channel.

A transfer asks for bursts in *stretches*: the bursts served from one set of open rows. For each stretch four limits are
known, and the largest rules:

- the data bus: one burst every BL/2;
- the bank group: column commands to one group are tCCD_L apart, so a stretch inside one group is slower, except for the
  bursts that the controller's queue lets overlap with a neighbouring stretch in another group;
- activates: at most four in tFAW, and tRRD apart;
- the bank: a bank that must change its row is busy for tRC, or for tRCD, its bursts, the recovery and tRP, if longer.

Refresh takes tRFC, and tRP + tRCD to close and open rows around it, out of every tREFI. `docs/dram.md` derives the terms
and puts them beside the bank-level model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fixgrad.simulate.dram.address import AddressMap
from fixgrad.simulate.dram.standard import DramStandard
from fixgrad.simulate.dram.transfer import Transfer, burst_count


class Service(NamedTuple):
    """What a transfer costs its channel once its data flow."""

    busy_ns: float
    """Time that the channel is taken, refresh included, first-access latency not."""
    bursts: int
    row_misses: int
    """Rows opened, those that a refresh closed not counted."""
    bound: str
    """The limit that rules: bus, bank group, activates or bank."""


class Pattern(NamedTuple):
    """A transfer counted in bursts."""

    total: int
    """Bursts of the transfer."""
    run: float
    """Bursts of a run."""
    stride: float | None
    """Bursts between the starts of two runs; `run` if contiguous, None if scattered."""
    write: bool
    joined: bool
    """The queue still holds the end of a stream in another bank group when this transfer begins."""
    open: bool
    """The rows where it begins are open."""


class Limits(NamedTuple):
    """Clocks that each limit asks for, for a whole transfer, and the rows it opens."""

    bus: float
    group: float
    activates: float
    bank: float
    rows: float


def refresh_share(standard: DramStandard) -> float:
    """Share of the time lost to refresh: all banks are closed before (tRP) and opened again after it (tRCD)."""
    t = standard.timing
    return (t.t_rfc + t.t_rp + t.t_rcd) / t.t_refi


def activate_spacing(standard: DramStandard, one_group: bool = False) -> float:
    """Clocks per activate that tFAW and tRRD allow in the long run."""
    t = standard.timing
    return max(t.t_faw / 4, t.t_rrd_l if one_group else t.t_rrd_s)


def _recovery(standard: DramStandard, write: bool) -> int:
    """Clocks from the last column command of a row to its precharge."""
    return standard.timing.write_to_precharge if write else standard.timing.read_to_precharge


def row_cycle(standard: DramStandard, hits: float, write: bool) -> float:
    """Clocks from the activate of a row that serves `hits` bursts to the next activate of its bank."""
    t = standard.timing
    return max(t.t_rc, t.t_rcd + (hits - 1) * t.t_ccd_l + _recovery(standard, write) + t.t_rp)


def _distinct(step: float, count: int) -> int:
    """How many residues modulo `count` the multiples of `step` visit (all, if the step is no whole number)."""
    return count // gcd(int(step), count) if float(step).is_integer() else count


class Visits(NamedTuple):
    """How a pattern walks over pages when the column bits are lowest."""

    piece: float
    """Bursts that lie together: of a run, or of all runs inside a page."""
    straddling: float
    """Probability that a piece begins in one page and ends in the next, which is in another bank group."""
    step: float
    """Pages from one piece to the next; 1 if anywhere."""
    same_group: float
    """Probability that the next piece begins in the bank group where this one ends."""


def _page_visits(pattern: Pattern, page: int, groups: int) -> Visits:
    alone = float(groups == 1)
    if pattern.stride is None:
        straddling = 0.0 if page % pattern.run == 0 else min(1.0, (pattern.run - 1) / page)
        return Visits(min(pattern.run, page), straddling, 1.0, 1 / groups)
    if pattern.stride <= page:
        return Visits(min(pattern.total, page * pattern.run / pattern.stride), 0.0, 1.0, alone)
    if pattern.run > page:
        return Visits(page, 0.0, 1.0, alone)
    step = pattern.stride / page
    if step.is_integer():
        return Visits(pattern.run, 0.0, step, float(_distinct(step, groups) == 1))
    missed_by = min(step % groups, groups - step % groups)  # pages by which the next run misses the same group
    return Visits(pattern.run, min(1.0, (pattern.run - 1) / page), step, max(alone, 1 - missed_by))


def _alternating(visits: Visits, reach: float, same_group: float) -> float:
    """Share of the bursts that alternate with bursts of a neighbouring piece in another group.

    A piece of h bursts alternates with as many of each neighbour as that has, at most `reach`. A piece that straddles two
    pages is split at a place that is equally likely anywhere: three places stand for all.
    """
    whole = visits.piece
    other = 1 - same_group

    def served(part: float, inner: float, outer: float) -> float:
        return min(part, min(reach, inner) + min(reach, outer) * other)

    neighbour = whole * (1 - visits.straddling / 2)
    together = min(whole, 2 * min(reach, neighbour)) * other
    if visits.straddling == 0:
        return together / whole
    split = 0.0
    for place in (1 / 6, 1 / 2, 5 / 6):
        part, rest = whole * place, whole * (1 - place)
        split += (served(part, rest, neighbour) + served(rest, part, neighbour)) / 3
    return (together * (1 - visits.straddling) + split * visits.straddling) / whole


def _reach(standard: DramStandard) -> float:
    """Bursts of a piece that alternate with bursts of one neighbour in another group.

    Once the neighbour enters the queue, what the queue still holds of the old piece goes out alternately with as many
    bursts of the new one, less those that pass while the new row is opened.
    """
    t = standard.timing
    return max(0.0, standard.controller.queue_depth - (t.t_rp + t.t_rcd) / t.t_ccd_l / 2)


def _column_lowest(standard: DramStandard, pattern: Pattern) -> Limits:
    t, total = standard.timing, pattern.total
    visits = _page_visits(pattern, standard.bursts_per_page, standard.bank_groups)
    pieces = total / visits.piece
    scattered = pattern.stride is None
    in_queue = standard.controller.queue_depth / visits.piece
    alternating = _alternating(visits, _reach(standard), visits.same_group ** max(1.0, in_queue))
    if not scattered:  # the first and the last piece have one neighbour only
        alternating *= (pieces - 1 + pattern.joined) / pieces
    group = total * (t.t_ccd_l - (t.t_ccd_l - t.burst) * alternating)
    banks = standard.banks if scattered else _distinct(visits.step, standard.banks)
    together = 1.0 if banks == 1 else min(banks, max(2.0, in_queue + 1))
    bank = pieces * row_cycle(standard, visits.piece, pattern.write) / together
    if scattered:  # now and then a run falls into the bank of the one before
        conflict = _recovery(standard, pattern.write) + t.t_rp + t.t_rcd
        group += pieces * conflict / banks * min(1.0, 1 / in_queue)
    rows = max(0.0, pieces * (1 + visits.straddling) - pattern.open)
    spacing = activate_spacing(standard, visits.same_group == 1)
    return Limits(total * t.burst, group, rows * spacing, bank, rows)


def _bank_group_lowest(standard: DramStandard, pattern: Pattern) -> Limits:
    t, total = standard.timing, pattern.total
    banks_all, groups_all = standard.banks // standard.ranks, standard.bank_groups
    rows_all = banks_all * standard.bursts_per_page  # bursts that all open rows hold together
    if pattern.stride is None:
        bursts = min(pattern.run, rows_all)
        reachable, groups = float(banks_all), groups_all
        banks = min(bursts, banks_all)
    else:
        bursts = pattern.run if pattern.stride > rows_all else rows_all * pattern.run / pattern.stride
        bursts = min(total, bursts, rows_all)
        reachable = _touched(pattern, banks_all)
        groups = int(_touched(pattern, groups_all))
        banks = min(bursts, reachable)
    stretches = total / bursts
    per_burst = t.t_ccd_l if groups == 1 else t.burst
    in_queue = standard.controller.queue_depth / bursts
    together = max(1.0, min(reachable / banks, in_queue + 1))
    # A bank closes its row while the other banks of the stretch still deliver; what they do not cover is lost.
    change = _recovery(standard, pattern.write) + t.t_rp + t.t_rcd - per_burst
    uncovered = max(0.0, change - (banks - 1) * per_burst)
    rows = max(0.0, stretches - pattern.open) * banks
    bank = max(
        total * per_burst + stretches * uncovered / together,
        stretches * row_cycle(standard, bursts / banks, pattern.write) / together,
    )
    if pattern.stride is None and banks < banks_all:  # the runs in the queue use other banks meanwhile
        bank = 0.0
    if pattern.open:
        bank *= max(0.0, 1 - 1 / stretches)
    return Limits(total * t.burst, total * per_burst, rows * activate_spacing(standard, groups == 1), bank, rows)


def _touched(pattern: Pattern, count: int) -> float:
    """How many of `count` banks (or groups), chosen by the lowest bits, the runs of a pattern touch."""
    assert pattern.stride is not None
    if not float(pattern.stride).is_integer():
        return float(count)
    common = gcd(int(pattern.stride), count)
    return min(float(count), count // common * min(pattern.run, common))


def _runs_in_bursts(transfer: Transfer, total: int, size: int) -> tuple[float, float | None]:
    """(bursts of a run, bursts between the starts of two runs); an average where runs are aligned differently."""
    if transfer.contiguous or transfer.run is None:
        return float(total), float(total)
    if transfer.stride is None:
        return float(-(-transfer.run // size)), None
    aligned = transfer.stride % size == 0
    run = (transfer.address % size + transfer.run - 1) // size + 1 if aligned else max(1.0, total / transfer.runs)
    return float(run), max(float(run), transfer.stride / size)


_LIMITS = {AddressMap.COLUMN_LOWEST: _column_lowest, AddressMap.BANK_GROUP_LOWEST: _bank_group_lowest}
_BOUNDS = ("bus", "bank group", "activates", "bank")


@dataclass(frozen=True, slots=True)
class Latency:
    """From a request to its first data on an idle channel, in ns."""

    open_row: float
    closed_bank: float
    row_conflict: float


class ClosedForm:
    """Closed-form service times of one channel of `standard` under `address_map`. Results are remembered per shape."""

    def __init__(self, standard: DramStandard, address_map: AddressMap) -> None:
        self.standard = standard
        self.address_map = address_map
        self._limits = _LIMITS[address_map]
        self._ns_per_clock = standard.clock_ns / (1 - refresh_share(standard))
        self._known: dict[tuple[object, ...], Service] = {}

    def latency(self, write: bool) -> Latency:
        """First-access latency by the state of the bank: the front end, then tRP and tRCD as far as needed, CL or CWL, BL/2."""
        s, t = self.standard, self.standard.timing
        hit = (t.cwl if write else t.cl) + t.burst
        front = s.controller.front_end_ns
        return Latency(
            front + hit * s.clock_ns,
            front + (t.t_rcd + hit) * s.clock_ns,
            front + (t.t_rp + t.t_rcd + hit) * s.clock_ns,
        )

    def turnaround_ns(self, to_write: bool) -> float:
        """Idle time of the data bus between the last data of one direction and the first of the other."""
        t = self.standard.timing
        if to_write:
            return max(0, t.t_rtrs) * self.standard.clock_ns
        same_group = self.address_map is AddressMap.COLUMN_LOWEST
        return (t.write_to_read(same_group) + t.cl - t.cwl - t.burst) * self.standard.clock_ns

    def service(self, transfer: Transfer, joined: bool = False, open_rows: bool = False) -> Service:
        """Cost of a transfer in the middle of other traffic.

        `joined`: the queue still holds a stream of the same direction that ends in another bank group.
        `open_rows`: the rows where the transfer begins are open already.
        """
        offset = transfer.address % self.standard.burst_bytes
        key = (transfer.bytes, transfer.write, transfer.run, transfer.stride, offset, joined, open_rows)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._compute(transfer, joined, open_rows)
        return known

    def _compute(self, transfer: Transfer, joined: bool, open_rows: bool) -> Service:
        total = burst_count(transfer, self.standard)
        run, stride = _runs_in_bursts(transfer, total, self.standard.burst_bytes)
        pattern = Pattern(total, run, stride, transfer.write, joined, open_rows)
        limits = self._limits(self.standard, pattern)
        clocks = max(limits[:4])
        bound = _BOUNDS[limits.index(clocks)]
        return Service(clocks * self._ns_per_clock, total, max(1 - open_rows, round(limits.rows)), bound)

    def service_ns(
        self,
        sizes: Sequence[int] | npt.NDArray[np.int64],
        runs: Sequence[int] | npt.NDArray[np.int64],
        strides: Sequence[int] | npt.NDArray[np.int64],
        writes: Sequence[bool] | npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float64]:
        """`service(...).busy_ns` of many transfers ([n], ns). A run of 0 means contiguous, a stride of 0 scattered.

        Each distinct shape is computed once.
        """
        table = np.stack([np.asarray(column, dtype=np.int64) for column in (sizes, runs, strides, writes)], axis=1)
        shapes, where = np.unique(table, axis=0, return_inverse=True)
        times = [
            self.service(Transfer(int(n), bool(w), 0, int(r) or None, (int(s) or None) if r else None)).busy_ns
            for n, r, s, w in shapes
        ]
        return np.asarray(times, dtype=np.float64)[where.reshape(-1)]
