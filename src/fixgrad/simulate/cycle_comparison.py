"""Cycles of a device against the timing simulator, by layer and phase.

A layer's phase is given the time from the completion of the COMPUTE before its first one until that of its last one, in the
slowest group. So the rows add up to the step, and mean the same for both; what LOAD, POST and UPDATE take shows where COMPUTE
has to wait for them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

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


@dataclass(frozen=True, slots=True)
class StepRate:
    """A step at the machine's clock.

    Attributes:
        cycles: of the step.
        clock_mhz: of the machine.
        gop: of the step's dense passes, one for each phase (FF, NG, WG), padding included: what equivalent GOP/s count as done.
    """

    cycles: int
    clock_mhz: float
    gop: float

    @property
    def us(self) -> float:
        """Its time."""
        return self.cycles / self.clock_mhz

    @property
    def gops(self) -> float:
        """Equivalent GOP/s."""
        return self.gop / self.us * 1e6

    def to_dict(self) -> dict[str, float]:
        """A dictionary of JSON values."""
        return {"cycles": self.cycles, "us": self.us, "gops": self.gops}


class CycleComparison(NamedTuple):
    """The rows, in the order of the step, the whole step last; and the step on the device and in the simulator."""

    rows: list[PhaseCycles]
    device: StepRate
    simulated: StepRate

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "cycles": [asdict(row) for row in self.rows],
            "step": {"rtl": self.device.to_dict(), "simulated": self.simulated.to_dict()},
        }


def compare_cycles(program: Program, outcome: Outcome, simulation: Simulation) -> CycleComparison:
    """A step on a device beside the simulated one.

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
    simulated = _spans(ends.max(axis=0), lasts, simulation.cycles)
    names = [(labels[last].layer, labels[last].phase) for last in lasts] + [(END, "")]
    rows = [PhaseCycles(*name, *cycles) for name, *cycles in zip(names, measured, simulated, strict=True)]
    rows.append(PhaseCycles("step", "", outcome.cycles, simulation.cycles))
    dense = sum(layer.macs(program.network.shapes[layer.name]) for layer in program.network.mac_layers)
    gop = 2 * dense * program.batch / 1e9 * len({row.phase for row in simulation.work.rows})
    rates = (StepRate(cycles, program.machine.clock_mhz, gop) for cycles in (outcome.cycles, simulation.cycles))
    return CycleComparison(rows, *rates)


def _spans(times: NDArray[np.int64], lasts: Sequence[int], end: int) -> list[int]:
    """Cycles between the completions of these COMPUTEs, and from the last one to the end."""
    return [int(span) for span in np.diff([0, *(int(times[last]) for last in lasts), end])]


def table(rows: Sequence[PhaseCycles]) -> str:
    """The rows as Markdown."""
    lines = ["| layer | phase | RTL, cycles | simulated | difference |", "|---|---|---|---|---|"]
    lines += [f"| {r.layer} | {r.phase.upper()} | {r.device:,} | {r.simulated:,} | {100 * r.error:+.1f} % |" for r in rows]
    return "\n".join(lines)


def rate_lines(comparison: CycleComparison) -> list[str]:
    """The step's time and rate, on the device and in the simulator."""
    found = []
    for name, rate in (("rtl", comparison.device), ("simulated", comparison.simulated)):
        time = f"{rate.cycles:,} cycles = {rate.us / 1000:,.2f} ms at {rate.clock_mhz:g} MHz"
        found.append(f"{name}: {time} = {rate.gops:,.0f} equivalent GOP/s")
    return found
