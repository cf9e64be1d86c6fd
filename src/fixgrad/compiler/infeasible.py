"""Why a network does not fit a machine, as objects that a program can read and messages that a person can."""

from collections.abc import Iterable
from dataclasses import dataclass

from fixgrad.errors import FixgradError


@dataclass(frozen=True, slots=True)
class Infeasible:
    """One demand that the machine cannot meet.

    Attributes:
        layer: name of the layer, or of the network where the whole of it is meant.
        phase: ``ff``, ``ng``, ``wg``, ``update``, ``loss``, ``memory`` or ``program``.
        what: the scarce thing, with its unit: ``bytes of memory``, ``accumulators of a PE``.
        needed, available: demand and limit, in that unit.
        remedies: changes that would make it fit, the mildest first.
    """

    layer: str
    phase: str
    what: str
    needed: int
    available: int
    remedies: tuple[str, ...]

    def __str__(self) -> str:
        """One line: what is short, by how much, and what to do."""
        hint = f": {', or '.join(self.remedies)}" if self.remedies else ""
        return f"{self.layer} ({self.phase}) needs {self.needed:,} {self.what}, available are {self.available:,}{hint}"


class InfeasibleError(FixgradError):
    """The network does not fit the machine; `reasons` says why, one `Infeasible` each."""

    def __init__(self, reasons: Iterable[Infeasible]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("; ".join(map(str, self.reasons)))
