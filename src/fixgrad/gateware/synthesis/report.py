"""What a machine takes by synthesis, part by part, beside its limits and the estimate by rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fixgrad.gateware.machine import Accelerator
from fixgrad.gateware.simulation.emit import netlist
from fixgrad.gateware.synthesis.parts import Part, parts_of
from fixgrad.gateware.synthesis.run import Mapped, Progress, synthesise
from fixgrad.gateware.synthesis.technology import Counts, Technology, technology_of
from fixgrad.machine import Machine, talk
from fixgrad.machine.presets import KCU1500
from fixgrad.machine.resources import resources_of

#: The part of the estimate that is no part of the RTL: it comes with the board.
_CONTROLLER = "memory controller"


@dataclass(frozen=True, slots=True)
class Limit:
    """What a resource may take at most."""

    resource: str
    used: float
    available: int

    @property
    def exceeded(self) -> bool:
        """Whether more is used than there is."""
        return self.used > self.available

    def __str__(self) -> str:
        return f"{self.used:,g} {self.resource} of {self.available:,}"


@dataclass(frozen=True, slots=True)
class Row:
    """A part: what one takes, and how many there are."""

    name: str
    count: int
    one: Counts


@dataclass(frozen=True, slots=True)
class SynthesisReport:
    """What a machine takes by Yosys.

    Attributes:
        machine, technology: whose, and of which family of chips.
        rows: part by part; each module of the design is in exactly one.
        limits: the talk's row for its own machine, else what the device has; empty for a machine without a device.
        limits_of: whose limits.
        estimate: the same by the rules of `fixgrad.machine.resources`, without memory controllers.
    """

    machine: Machine
    technology: Technology
    rows: tuple[Row, ...]

    @property
    def total(self) -> Counts:
        """Of the whole machine."""
        return sum((row.one.times(row.count) for row in self.rows), Counts())

    @property
    def limits_of(self) -> str:
        """Whose limits hold."""
        if not self.machine.device.blocks:
            return "none"
        return "the talk's machine" if _is_the_talks(self.machine) else self.machine.device.part

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Used and available, resource by resource."""
        device, total = self.machine.device, self.total
        if not device.blocks:
            return ()
        most = talk.LIMITS if _is_the_talks(self.machine) else talk.Used(device.lut, device.ff, device.blocks, device.dsp)
        return (
            Limit("LUT", total.luts, most.lut),
            Limit("FF", total.ff, most.ff),
            Limit(self.technology.block_kind, total.blocks, most.blocks),
            Limit("DSP", total.dsp, most.dsp),
        )

    @property
    def estimate(self) -> Counts:
        """By rules, LUT RAM within the LUTs."""
        parts = [part for part in resources_of(self.machine).parts if part.name != _CONTROLLER]
        return Counts(
            sum(part.lut for part in parts),
            0,
            sum(part.ff for part in parts),
            sum(part.dsp for part in parts),
            sum(part.blocks for part in parts),
        )

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "machine": self.machine.name,
            "kind": f"estimate: {self.technology.note}",
            "block_kind": self.technology.block_kind,
            "parts": [{"name": row.name, "count": row.count, "one": _values(row.one)} for row in self.rows],
            "total": _values(self.total),
            "limits_of": self.limits_of,
            "limits": {limit.resource: {"used": limit.used, "available": limit.available} for limit in self.limits},
            "within_limits": not any(limit.exceeded for limit in self.limits),
            "talk": talk.USED._asdict() if _is_the_talks(self.machine) else None,
            "estimate_by_rules": _values(self.estimate),
        }


def parts_of_machine(machine: Machine) -> tuple[Part, ...]:
    """The parts of a machine's RTL."""
    return parts_of(netlist(Accelerator(machine), machine.device.block_kind))


def report_of(machine: Machine, parts: Sequence[Part], progress: Progress | None = None) -> tuple[SynthesisReport, tuple[Mapped, ...]]:
    """Synthesises the parts of a machine and counts.

    Raises:
        ToolError: Yosys failed or is missing.
        UsageError: the machine's device is of no family that is known.
    """
    technology = technology_of(machine)
    mapped = synthesise(parts, technology, progress)
    rows = tuple(Row(each.part.title, each.part.count, technology.counts(each.cells)) for each in mapped)
    return SynthesisReport(machine, technology, rows), mapped


def _is_the_talks(machine: Machine) -> bool:
    return machine.device == KCU1500.device


def _values(counts: Counts) -> Mapping[str, float]:
    return {"lut": counts.lut, "lut_ram": counts.lut_ram, "ff": counts.ff, "dsp": counts.dsp, "blocks": counts.blocks}
