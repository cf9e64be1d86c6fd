"""The schedule as a table: the tiling of every layer and phase, what it is predicted to cost, and how far that is from the bound."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fixgrad.compiler.search import Choice, LayerChoice
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.tiling import LayerTiling, Split, Tiling


@dataclass(frozen=True, slots=True)
class ScheduledPhase:
    """One phase of one layer.

    Attributes:
        layer, phase: which.
        tiling: the best under the cost model (docs/compiler.md).
        cycles, dram_bytes: what the model predicts for it.
        lower_bound: cycles that no tiling beats: MACs over all PEs, or bytes over memory's rate.
        gap: share by which `cycles` exceeds that bound: what is left to gain at most.
        branches, visited: ways to split the pixels, and those that the search had to look into to prove its optimum.
    """

    layer: str
    phase: str
    tiling: Tiling
    cycles: float
    dram_bytes: float
    lower_bound: float
    gap: float
    branches: int
    visited: int

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ScheduledPhase":
        """What `to_dict` wrote."""
        tiling = dict(values["tiling"])
        return cls(**{**values, "tiling": Tiling(**{**tiling, "split": Split(**tiling["split"])})})


@dataclass(frozen=True, slots=True)
class Schedule:
    """Tilings of all layers, and the table of phases in the order FF, NG, WG, layer by layer."""

    tilings: tuple[LayerTiling, ...]
    phases: tuple[ScheduledPhase, ...]

    @property
    def cycles(self) -> float:
        """Predicted cycles of the step."""
        return sum(phase.cycles for phase in self.phases)

    @property
    def lower_bound(self) -> float:
        """Sum of the phases' bounds."""
        return sum(phase.lower_bound for phase in self.phases)


def schedule(stages: Sequence[Stage], choices: Sequence[LayerChoice]) -> Schedule:
    """The table of what the search has chosen."""
    rows = [
        _row(stage.name, phase, choice.phases[phase])
        for phase in ("ff", "ng", "wg")
        for stage, choice in zip(stages, choices, strict=True)
        if phase in choice.phases
    ]
    return Schedule(tuple(choice.tiling for choice in choices), tuple(rows))


def _row(layer: str, phase: str, choice: Choice) -> ScheduledPhase:
    return ScheduledPhase(
        layer,
        phase,
        choice.tiling,
        choice.cycles,
        choice.bytes,
        choice.lower_bound,
        choice.gap,
        choice.branches,
        choice.visited,
    )
