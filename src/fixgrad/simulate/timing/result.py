"""What a simulated step took: by layer and phase, by cause, and in all."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fixgrad.machine.energy import StepEnergy
from fixgrad.simulate.bounds import Phase
from fixgrad.simulate.timing.attribution import Cause


@dataclass(frozen=True, slots=True)
class LayerTiming:
    """One layer and phase.

    Attributes:
        us: its share of the step's time; the shares of all rows add up to the step. See `fixgrad.simulate.timing.attribution`.
        gops: equivalent GOP/s: 2 operations for every MAC of the unpruned layer, padding included, over `us`.
        bound: the cause that most of its time went into.
        utilisation: MACs of real images over what all multipliers could do in `us`; padding counts where it takes cycles.
        macs: those MACs.
        dram_bytes: bytes that DRAM moved, whole bursts.
        dram_bytes_lower_bound: bytes that no schedule can avoid (`fixgrad.simulate.lower_bound`).
        causes: microseconds by cause; they add up to `us`.
    """

    name: str
    phase: Phase
    us: float
    gops: float
    bound: Cause
    utilisation: float
    macs: int
    dram_bytes: int
    dram_bytes_lower_bound: int
    causes: dict[Cause, float]

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "name": self.name,
            "phase": str(self.phase),
            "us": self.us,
            "gops": self.gops,
            "bound": str(self.bound),
            "utilisation": self.utilisation,
            "macs": self.macs,
            "dram_bytes": self.dram_bytes,
            "dram_bytes_lower_bound": self.dram_bytes_lower_bound,
            "causes_us": {str(cause): us for cause, us in self.causes.items()},
        }


class PhaseTiming(NamedTuple):
    """All layers of a phase. `gops` counts one dense pass over all layers, as the talk does, also in NG."""

    us: float
    gops: float
    macs: int
    dram_bytes: int


class WaterfallStep(NamedTuple):
    """A cause, the time that went into it, and the time of the step up to and with it."""

    cause: Cause
    us: float
    until_us: float


class Seconds(NamedTuple):
    """Time of the tools themselves, in seconds."""

    compile: float
    simulate: float


@dataclass(frozen=True, slots=True)
class StepTiming:
    """A training step (or forward pass) of one batch, simulated.

    Attributes:
        network, machine: names.
        batch: images.
        mode: ``train`` or ``forward``.
        count_padding: whether taps in the zero padding took a cycle.
        dram: fidelity of the DRAM model.
        cycles: of the whole step.
        clock_mhz, macs_per_cycle: of the machine.
        pass_gop: operations of one dense pass over the batch, padding included, in GOP.
        layers: phase by phase in the order of the layers.
        energy: of the step; None where there are no coefficients for the chip.
        resources: what the machine takes of the chip: `dsp`, `bram36` and more.
        seconds: how long compiler and simulator took.
        instructions: of the program.
    """

    network: str
    machine: str
    batch: int
    mode: str
    count_padding: bool
    dram: str
    cycles: int
    clock_mhz: float
    macs_per_cycle: int
    pass_gop: float
    layers: tuple[LayerTiming, ...]
    energy: StepEnergy | None
    resources: dict[str, Any]
    seconds: Seconds
    instructions: int

    def with_seconds(self, seconds: Seconds) -> "StepTiming":
        """The same with another `seconds`."""
        return replace(self, seconds=seconds)

    @property
    def us(self) -> float:
        """Time of the step."""
        return self.cycles / self.clock_mhz

    @property
    def gops(self) -> float:
        """Equivalent GOP/s: a dense pass for each phase over the time, as the talk counts."""
        return len(self.phases) * self.pass_gop / self.us * 1e6

    @property
    def dram_bytes(self) -> int:
        """Bytes that DRAM moved, whole bursts."""
        return sum(row.dram_bytes for row in self.layers)

    @property
    def macs(self) -> int:
        """MACs of real images."""
        return sum(row.macs for row in self.layers)

    @property
    def phases(self) -> dict[Phase, PhaseTiming]:
        """Sums by phase; those that ran."""
        return {phase: self._sum(phase) for phase in Phase if any(row.phase is phase for row in self.layers)}

    def _sum(self, phase: Phase) -> PhaseTiming:
        rows = [row for row in self.layers if row.phase is phase]
        us = sum(row.us for row in rows)
        return PhaseTiming(us, self.pass_gop / us * 1e6, sum(row.macs for row in rows), sum(row.dram_bytes for row in rows))

    @property
    def waterfall(self) -> tuple[WaterfallStep, ...]:
        """Where the time goes: from the MACs alone to the whole step."""
        steps, until = [], 0.0
        for cause in Cause:
            us = sum(row.causes[cause] for row in self.layers)
            until += us
            steps.append(WaterfallStep(cause, us, until))
        return tuple(steps)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "network": self.network,
            "machine": self.machine,
            "batch": self.batch,
            "mode": self.mode,
            "count_padding": self.count_padding,
            "dram": self.dram,
            "kind": "simulated",
            "phases": {str(phase): timing._asdict() for phase, timing in self.phases.items()},
            "total": {
                "us": self.us, "gops": self.gops, "cycles": self.cycles, "macs": self.macs,
                "dram_bytes": self.dram_bytes, "instructions": self.instructions,
            },
            "layers": [row.to_dict() for row in self.layers],
            "waterfall": [{"cause": str(step.cause), "us": step.us, "until_us": step.until_us} for step in self.waterfall],
            "energy": None if self.energy is None else _energy_dict(self.energy, self.batch),
            "resources": self.resources,
            "seconds": self.seconds._asdict(),
        }  # fmt: skip


def _energy_dict(energy: StepEnergy, batch: int) -> dict[str, Any]:
    """Joules of a step, each with its bounds."""
    parts = {name: getattr(energy, name) for name in ("mac", "buffers", "dram", "logic", "static", "total")}
    parts["per_image"] = energy.per_image(batch)
    found: dict[str, Any] = {name: {"value": x.value, "low": x.low, "high": x.high} for name, x in parts.items()}
    watts = energy.watts
    return {"joules": found, "watts": {"value": watts.value, "low": watts.low, "high": watts.high}}
