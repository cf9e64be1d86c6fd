"""What a machine takes of its chip: DSP slices, memory blocks, LUTs and registers, block by block, each with its formula.

Memories are exact: `fixgrad.machine.memory_blocks` covers each with blocks in their real shapes. Multipliers are exact too: one
for each MAC, and those of the update and loss units by the width of a slice. LUTs and registers are estimates by the rules
of `fixgrad.machine.resource_estimate` (an adder takes a LUT a bit, and so on), good for comparing machines and for seeing that
one is far too large; only a synthesis tool knows.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

from fixgrad.errors import UsageError
from fixgrad.machine.parameters import Machine
from fixgrad.machine.resource_estimate import ACCUMULATOR_BITS, OPERAND_BITS, Estimate, Part


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A resource of which the chip has too little; `largest` are the parts that take most of it, with their share."""

    resource: str
    needed: float
    available: int
    largest: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        most = ", ".join(f"{name} {taken:g}" for name, taken in self.largest)
        return f"{self.needed:g} {self.resource} needed, {self.available:,} available; most of it: {most}"


@dataclass(frozen=True, slots=True)
class Resources:
    """What a machine takes.

    Attributes:
        machine: whose.
        parts: block by block.
    """

    machine: Machine
    parts: tuple[Part, ...]

    @property
    def dsp(self) -> int:
        """Multiplier slices."""
        return sum(part.dsp for part in self.parts)

    @property
    def blocks(self) -> float:
        """Memory blocks of the device's kind; two halves of a BRAM36 make one."""
        return ceil(sum(part.blocks for part in self.parts))

    @property
    def bram36(self) -> float:
        """Memory in BRAM36: `blocks` where the device has these, and the same bits otherwise (a DP16KD is half of one)."""
        return self.blocks if self.machine.device.block_kind == "BRAM36" else self.blocks / 2

    @property
    def lut(self) -> int:
        """LUTs, an estimate."""
        return sum(part.lut for part in self.parts)

    @property
    def ff(self) -> int:
        """Registers, an estimate."""
        return sum(part.ff for part in self.parts)

    @property
    def shortfalls(self) -> tuple[Shortfall, ...]:
        """What the device lacks. A machine without a device (`blocks` 0) lacks nothing."""
        device = self.machine.device
        if not device.blocks:
            return ()
        needed = (
            ("DSP", "dsp", self.dsp, device.dsp),
            (device.block_kind, "blocks", self.blocks, device.blocks),
            ("LUT", "lut", self.lut, device.lut),
            ("registers", "ff", self.ff, device.ff),
        )
        return tuple(
            Shortfall(name, taken, available, self._largest(attribute))
            for name, attribute, taken, available in needed
            if taken > available
        )

    def _largest(self, attribute: str) -> tuple[tuple[str, float], ...]:
        shares = sorted(((part.name, float(getattr(part, attribute))) for part in self.parts), key=lambda item: -item[1])
        return tuple(shares[:3])

    def check(self) -> None:
        """Raise UsageError where the machine does not fit its device; the message says what is short and what would help."""
        short = self.shortfalls
        if short:
            raise UsageError(
                f"machine {self.machine.name} does not fit {self.machine.device.part}: {'; '.join(map(str, short))}. "
                "Fewer groups, PEs or lanes take less of everything; smaller lane_words or input_words take less memory"
            )

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        device = self.machine.device
        return {
            "dsp": self.dsp,
            "bram36": self.bram36,
            "blocks": self.blocks,
            "block_kind": device.block_kind,
            "lut": self.lut,
            "ff": self.ff,
            "device": {"part": device.part, "dsp": device.dsp, "blocks": device.blocks, "lut": device.lut, "ff": device.ff},
            "fits": not self.shortfalls,
            "parts": [
                {
                    "name": part.name,
                    "count": part.count,
                    "dsp": part.dsp,
                    "blocks": part.blocks,
                    "lut": part.lut,
                    "ff": part.ff,
                    "formula": part.formula,
                }
                for part in self.parts
            ],
        }


def resources_of(machine: Machine) -> Resources:
    """What `machine` takes of its chip. Raises UsageError for a block memory or memory standard that is not known."""
    estimate = Estimate(machine)
    return Resources(
        machine,
        (
            estimate.lanes(),
            estimate.memory("lane memory", machine.macs, ACCUMULATOR_BITS, machine.lane_words, "one a lane, 32 bits a word"),
            estimate.memory(
                "input buffer",
                machine.pes,
                machine.lanes * OPERAND_BITS,
                machine.input_words,
                "one a PE, a word is one pixel for all lanes",
            ),
            estimate.kernel_queues(),
            estimate.memory(
                "gradient memory", machine.pes, ACCUMULATOR_BITS, machine.gradient_words, "one a PE, 32 bits a gradient"
            ),
            estimate.pe_control(),
            estimate.adder_trees(),
            estimate.group_control(),
            estimate.post_processors(),
            estimate.update_lanes(),
            estimate.loss_unit(),
            *((estimate.elementwise_lanes(), estimate.normaliser()) if machine.elementwise_lanes else ()),
            estimate.load_unit(),
            estimate.small_memories(),
            estimate.fetch(),
            estimate.control_port(),
            estimate.controllers(),
        ),
    )
