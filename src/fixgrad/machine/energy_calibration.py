"""What one known power says about a board's coefficients.

The step's energy is a sum of quantities times unknowns, so one known sum fixes one number. It is spent on the unknown of
which least is known and most is spent, the dynamic energy of the logic and its clock. Every other unknown keeps its
bounds, narrowed only where the sum would not fit otherwise. For another step the energy is then bounded by a linear
program: all unknowns within their bounds, and the known sum met.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fixgrad.errors import DataError
from fixgrad.machine.energy_data import Interval


@dataclass(frozen=True, slots=True)
class Unknown:
    """An unknown of the sum: what it costs per unit (`prior`) and how many units the known step had (`quantity`)."""

    prior: Interval
    quantity: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Unknowns after the known sum.

    Attributes:
        joules: the known sum.
        unknowns: with the bounds before.
        left: the intervals after; their values meet the sum exactly.
        fixed: the unknowns whose values the sum decided; the others kept theirs.
    """

    joules: float
    unknowns: Mapping[str, Unknown]
    left: Mapping[str, Interval]
    fixed: tuple[str, ...]

    def bounds(self, quantities: Mapping[str, float]) -> Interval:
        """Energy of another step with `quantities` units of each unknown (0 if not named)."""
        value = sum(quantities.get(name, 0.0) * interval.value for name, interval in self.left.items())
        low, high = self._extreme(quantities, dearest=False), self._extreme(quantities, dearest=True)
        return Interval(value, min(low, value), max(high, value))

    def _extreme(self, quantities: Mapping[str, float], dearest: bool) -> float:
        """The linear program has one equation, so filling up in order of cost solves it (a fractional knapsack)."""
        spent = {name: u.quantity * self.left[name].low for name, u in self.unknowns.items()}
        rest = self.joules - sum(spent.values())
        cost = {name: quantities.get(name, 0.0) / u.quantity for name, u in self.unknowns.items()}
        for name in sorted(cost, key=lambda n: cost[n], reverse=dearest):
            interval = self.left[name]
            more = min(rest, self.unknowns[name].quantity * (interval.high - interval.low))
            spent[name] += more
            rest -= more
        return sum(cost[name] * spent[name] for name in spent)


def calibrate(joules: float, known: Mapping[str, Unknown], rest: Mapping[str, tuple[Interval, float]]) -> Calibration:
    """Split what `known` leaves of `joules` over `rest`: for each its share of the remainder and its quantity.

    The values of the shares must add up to 1. Raises DataError if the known part alone exceeds the sum.
    """
    spent = [u.prior * u.quantity for u in known.values()]
    value = joules - sum(s.value for s in spent)
    least, most = joules - sum(s.high for s in spent), joules - sum(s.low for s in spent)
    if value <= 0:
        raise DataError(
            f"calibration: the known part takes {joules - value:.3f} J, the whole is {joules:.3f} J; lower its coefficients"
        )
    unknowns = dict(known)
    for name, (share, quantity) in rest.items():
        low, high = share.low * max(0.0, least) / quantity, share.high * most / quantity
        unknowns[name] = Unknown(Interval(share.value * value / quantity, low, high), quantity)
    left = {name: _narrowed(name, unknowns, joules) for name in unknowns}
    return Calibration(joules, unknowns, left, fixed=tuple(rest))


def _narrowed(name: str, unknowns: Mapping[str, Unknown], joules: float) -> Interval:
    """The bounds of one unknown that some choice of the others can still meet."""
    others = [u for n, u in unknowns.items() if n != name]
    prior, quantity = unknowns[name].prior, unknowns[name].quantity
    low = (joules - sum(u.quantity * u.prior.high for u in others)) / quantity
    high = (joules - sum(u.quantity * u.prior.low for u in others)) / quantity
    return Interval(prior.value, max(prior.low, low), min(prior.high, high))
