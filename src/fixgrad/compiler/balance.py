"""The order of channels in memory, chosen so that live kernels balance over the groups.

One order serves three phases: the layer that writes the map takes its output channels from it in FF and WG, and the layer that
reads it takes its input channels from it in NG. Each phase deals the channels to *cells*: the channels of one queue in one tile.
A tile takes as long as its fullest cell, so the cells of a tile should be equal. The channels are dealt out in snake order
of their load first, and then swapped in pairs as long as the squared deviations, summed over all phases, fall.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Values = NDArray[np.float64]
#: Rounds of swaps; each takes as many pairs as do not touch the same cells.
ROUNDS = 60
#: Places that a round tries to swap with any other: those of the cells that stray furthest.
CANDIDATES = 48
#: Changes below this are rounding.
_NOTHING = 1e-9


@dataclass(frozen=True)
class Deal:
    """How one phase deals the channels of a map.

    Attributes:
        loads: cycles that each channel costs, by logical channel.
        channels: of a cell: consecutive places in memory.
        queues: cells of a tile.
    """

    loads: Values
    channels: int
    queues: int

    def cells(self) -> Ints:
        """Cell of each place in memory."""
        return np.arange(len(self.loads)) // self.channels


def balanced_order(deals: Sequence[Deal]) -> Ints:
    """The logical channel of each place in memory."""
    first = deals[0]
    count = len(first.loads)
    order = _snake(first)
    live = [deal for deal in deals if -(-count // deal.channels) > 1 and np.ptp(deal.loads)]
    if live:
        order = _improve(order, live)
    return order


def _snake(deal: Deal) -> Ints:
    """Channels dealt to the cells from the heaviest to the lightest, forth and back."""
    count = len(deal.loads)
    cells = -(-count // deal.channels)
    heaviest = np.argsort(-deal.loads, kind="stable")
    turn = np.arange(count) // cells
    seat = np.where(turn % 2 == 0, np.arange(count) % cells, cells - 1 - np.arange(count) % cells)
    # Seats beyond a ragged last cell do not exist: fill what there is, in the order of the seats.
    return heaviest[np.argsort(seat * (deal.channels + 1) + turn, kind="stable")]


class _Cells:
    """Loads of the cells of one deal under the current order."""

    def __init__(self, deal: Deal, order: Ints) -> None:
        self.deal = deal
        self.cell = deal.cells()
        self.tile = self.cell // deal.queues
        self.scale = 1 / max(float(deal.loads.mean()), 1e-9) / deal.channels
        self.refresh(order)

    def refresh(self, order: Ints) -> None:
        """Work out the loads anew."""
        self.load = self.deal.loads[order] * self.scale
        self.cells = np.bincount(self.cell, self.load)
        self.tiles = np.bincount(self.tile, self.load)

    def deviation(self) -> Values:
        """How far the cell of each place strays from the mean of its tile."""
        members = np.bincount(np.unique(self.cell * len(self.tiles) + self.tile) % len(self.tiles))
        return np.abs(self.cells[self.cell] - (self.tiles / members)[self.tile])

    def squares(self) -> float:
        """The squared deviations, summed over all cells."""
        return float((self.cells**2).sum() - (self.tiles**2).sum() / self.deal.queues)

    def changes(self, places: Ints) -> Values:
        """Change of the squared deviations for every swap of one of `places` with any place: [places, all].

        The sum over the cells of a tile of (load - mean)^2 is the sum of squares less the square of the sum over the queues.
        """
        moved = self.load[None, :] - self.load[places, None]
        cells, tiles = self.cells[self.cell], self.tiles[self.tile]
        change = moved * (cells[places, None] - cells[None, :] + moved)
        apart = self.tile[places, None] != self.tile[None, :]
        if apart.any():
            change -= apart * moved * (tiles[places, None] - tiles[None, :] + moved) / self.deal.queues
        change *= 2 * (self.cell[places, None] != self.cell[None, :])
        return change


def _improve(order: Ints, deals: Sequence[Deal]) -> Ints:
    order, states = order.copy(), [_Cells(deal, order) for deal in deals]
    for _ in range(ROUNDS):
        strays = np.sum([state.deviation() for state in states], axis=0)
        places = np.argsort(-strays, kind="stable")[:CANDIDATES]
        swaps = _disjoint(places, np.sum([state.changes(places) for state in states], axis=0), states)
        if not swaps:
            break
        before = sum(state.squares() for state in states)
        _swap(order, swaps, states)
        if sum(state.squares() for state in states) > before - _NOTHING:
            # Swaps of different cells may still move load between the same tiles, and undo each other: the best one alone.
            _swap(order, swaps[1:], states)
    return order


def _swap(order: Ints, swaps: Sequence[tuple[int, int]], states: Sequence[_Cells]) -> None:
    """Make swaps of different places, or take them back."""
    for a, b in swaps:
        order[[a, b]] = order[[b, a]]
    for state in states:
        state.refresh(order)


def _disjoint(places: Ints, change: Values, states: Sequence[_Cells]) -> list[tuple[int, int]]:
    """The best swaps of `places` that do not touch the same cells."""
    best = change.argmin(axis=1)
    value = change[np.arange(len(change)), best]
    touched = [np.zeros(len(state.cells), np.bool_) for state in states]
    swaps = []
    for number in np.argsort(value, kind="stable").tolist():
        if value[number] > -_NOTHING:
            break
        a, b = int(places[number]), int(best[number])
        cells = [(used, state.cell[[a, b]]) for used, state in zip(touched, states, strict=True)]
        if any(used[pair].any() for used, pair in cells):
            continue
        for used, pair in cells:
            used[pair] = True
        swaps.append((a, b))
    return swaps
