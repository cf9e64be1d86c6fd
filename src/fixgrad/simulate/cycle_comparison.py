"""Cycles of a device against the timing simulator, by layer and phase.

A layer's phase is given the time from the completion of the COMPUTE before its first one until that of its last one, in the
slowest group. So the rows add up to the step, and mean the same for both; what LOAD, POST and UPDATE take shows where COMPUTE
has to wait for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler import Program
from fixgrad.errors import UsageError
from fixgrad.machine.device import Outcome
from fixgrad.machine.instructions import Unit
from fixgrad.simulate.timing.run import Simulation

#: What follows the last COMPUTE: its updates, the range registers, HALT.
END = "end of the step"


@dataclass(frozen=True, slots=True)
class PhaseCycles:
    """Cycles of a layer's phase on the device and in the simulator."""

    layer: str
    phase: str
    device: int
    simulated: int

    @property
    def error(self) -> float:
        """Of the simulator, as a share of the device's cycles."""
        return self.simulated / self.device - 1 if self.device else 0.0


def compare_cycles(program: Program, outcome: Outcome, simulation: Simulation) -> list[PhaseCycles]:
    """The rows, in the order of the step; the last one is the whole step.

    Args:
        outcome: of the device, which must tell when instructions completed.

    Raises:
        UsageError: it does not.
    """
    if Unit.COMPUTE not in outcome.completed:
        raise UsageError("the device does not tell when instructions complete: compare the cycles of the RTL")
    labels = [program.labels[position] for position in program.positions["COMPUTE"]]
    lasts = [index for index in range(len(labels)) if index + 1 == len(labels) or labels[index] != labels[index + 1]]
    measured = _spans(outcome.completed[Unit.COMPUTE], lasts, outcome.cycles)
    ends = np.array([[run.end for run in group.runs] for group in simulation.groups], np.int64)
    simulated = _spans(ends.max(axis=0) + program.machine.latencies.compute, lasts, simulation.cycles)
    names = [(labels[last].layer, labels[last].phase) for last in lasts] + [(END, "")]
    rows = [PhaseCycles(*name, *cycles) for name, *cycles in zip(names, measured, simulated, strict=True)]
    return [*rows, PhaseCycles("step", "", outcome.cycles, simulation.cycles)]


def _spans(times: NDArray[np.int64], lasts: Sequence[int], end: int) -> list[int]:
    """Cycles between the completions of these COMPUTEs, and from the last one to the end."""
    return [int(span) for span in np.diff([0, *(int(times[last]) for last in lasts), end])]


def table(rows: Sequence[PhaseCycles]) -> str:
    """The rows as Markdown."""
    lines = ["| layer | phase | RTL, cycles | simulated | difference |", "|---|---|---|---|---|"]
    lines += [f"| {r.layer} | {r.phase.upper()} | {r.device:,} | {r.simulated:,} | {100 * r.error:+.1f} % |" for r in rows]
    return "\n".join(lines)
