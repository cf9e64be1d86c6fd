"""In which order units that run side by side may get their turn.

The machine promises nothing about the pace of its units but what the waits say. A program whose waits are complete gives the
same bits in every order; one that lacks a wait shows it in some order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from fixgrad.machine.instructions import Unit

#: A unit, and the group for those that have a queue in each.
Agent = tuple[Unit, int]


@dataclass(frozen=True)
class Order:
    """Who goes first among the units that may go on.

    Attributes:
        units: from the most to the least urgent.
        groups: ``first``: group 0 runs ahead of the others as far as it can; ``last``: it lags behind.
        seed: if given, everyone's turn comes at random instead.
    """

    units: Sequence[Unit] = (Unit.LOAD, Unit.COMPUTE, Unit.POST, Unit.UPDATE)
    groups: str = "first"
    seed: int | None = None
    _random: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_random", np.random.default_rng(self.seed))

    def choose(self, ready: Sequence[Agent]) -> Agent:
        """One of the agents that may go on."""
        if self.seed is not None:
            return ready[int(self._random.integers(len(ready)))]
        sign = 1 if self.groups == "first" else -1
        return min(ready, key=lambda agent: (self._urgency(agent[0]), sign * agent[1]))

    def _urgency(self, unit: Unit) -> int:
        return self.units.index(unit) if unit in self.units else len(self.units)


def extreme_orders() -> Iterator[Order]:
    """Every order of the units, with group 0 running ahead and lagging behind."""
    for units in permutations((Unit.LOAD, Unit.COMPUTE, Unit.POST, Unit.UPDATE)):
        for groups in ("first", "last"):
            yield Order(units, groups)
