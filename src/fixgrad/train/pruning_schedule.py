"""When masks change in a run, and by how much: at once, gradually, and by exchange."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import pi
from typing import Any

from fixgrad.errors import UsageError

#: Terms of the series of the cosine: exact to a double up to pi.
_COSINE_TERMS = 16


@dataclass(frozen=True, slots=True)
class Budget:
    """A share of what all kernels of a network cost, to be spent where it keeps the most (see `fixgrad.sparse.allocate`).

    Attributes:
        share: of the cost of the dense network, above 0, up to 1.
        unit: of the costs, for people: ``weights``, ``MACs`` or ``cycles/1024 on kcu1500``.
        costs: of one kernel (convolutions) or element (linear layers), by layer.
        dense: cost of all of them.
    """

    share: float
    unit: str
    costs: Mapping[str, int]
    dense: int

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"a budget of {self.share:g} of the {self.unit}: choose a number above 0, up to 1")
        least = sum(self.costs.values())
        if self.at(self.share) < least:
            raise UsageError(
                f"a budget of {self.share:g} of the {self.unit} is too small for one kernel in each layer: choose at least "
                f"{least / self.dense:.2g}"
            )

    def at(self, share: float) -> int:
        """The budget for a share of the dense cost."""
        return int(share * self.dense)


@dataclass(frozen=True, slots=True)
class PruningOptions:
    """What a run does beyond pruning each layer to its density at once.

    Attributes:
        budget: for all layers together, in place of densities.
        until: epochs after which the densities are reached, gradually from the prune epoch on; None: at once.
        every: steps between two changes of the masks, of a gradual schedule and of exchanges.
        exchange: share of the live kernels that the first exchange drops and grows; 0: none.
        exchange_until: epochs after which nothing is exchanged any more.
        balance: scores within this share of the threshold count as equal, and what balances rows and columns is kept; 0: no.

    Raises:
        UsageError: a number out of range.
    """

    budget: Budget | None = None
    until: int | None = None
    every: int = 100
    exchange: float = 0.0
    exchange_until: int = 0
    balance: float = 0.0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"masks change every {self.every} steps: choose at least 1")
        if not 0 <= self.exchange <= 1:
            raise UsageError(f"regrowth exchanges {self.exchange:g} of the kernels: choose 0 to 1")
        if not 0 <= self.balance < 1:
            raise UsageError(f"balance tolerance is {self.balance:g}: choose 0 to below 1")

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        values = asdict(self)
        if self.budget is not None:
            values["budget"]["costs"] = dict(self.budget.costs)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PruningOptions":
        """The options that `to_dict` wrote; raises TypeError for other keys."""
        budget = values["budget"]
        return cls(**{**values, "budget": None if budget is None else Budget(**budget)})


@dataclass(frozen=True, slots=True)
class PruningSchedule:
    """Which step changes masks. A step's number is the number of updates done before it.

    Attributes:
        begin: the step before which pruning begins.
        end: the step before which the target is reached; `begin` for all at once.
        every: steps between two changes.
        exchange: share of the first exchange.
        exchange_end: step after which nothing is exchanged.
    """

    begin: int
    end: int
    every: int
    exchange: float = 0.0
    exchange_end: int = 0

    def progress_before(self, step: int) -> float | None:
        """How far the masks are to be pruned before `step`, above 0, up to 1 (the target); None: they stay.

        Cubic: after the share x of the time, 1 - (1 - x)^3 of what is to go is gone. Source: Zhu and Gupta, To Prune, or Not to
        Prune (2017), equation 1.
        """
        if step == self.end:
            return 1.0
        if not self.begin < step < self.end or (step - self.begin) % self.every:
            return None
        left = (self.end - step) / (self.end - self.begin)
        return 1.0 - left * left * left

    def exchanged_after(self, step: int) -> float:
        """Share of the live kernels that is exchanged after `step`, by its gradients; 0: none.

        Falls like a cosine from half a wave's top to 0. Source: Evci et al., Rigging the Lottery (ICML 2020), section 3; its
        time runs from the moment at which the masks are complete.
        """
        done, length = step + 1 - self.end, self.exchange_end - self.end
        if not self.exchange or not 0 < done < length or done % self.every:
            return 0.0
        return self.exchange / 2 * (1 + _cosine(pi * (done / length)))


def _cosine(angle: float) -> float:
    """cos(angle) for 0..pi from additions, multiplications and divisions alone: the same double on every machine."""
    square, term, total = angle * angle, 1.0, 1.0
    for number in range(1, _COSINE_TERMS):
        term = -term * square / ((2 * number - 1) * (2 * number))
        total += term
    return total
