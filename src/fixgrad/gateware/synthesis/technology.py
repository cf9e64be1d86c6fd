"""What Yosys is told to do for a family of chips, and what its cells take of one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from fixgrad.errors import UsageError
from fixgrad.machine import Machine


@dataclass(frozen=True, slots=True)
class Counts:
    """What some logic takes of a chip.

    Attributes:
        lut: LUTs that compute (of 6 inputs on UltraScale, of 4 on ECP5).
        lut_ram: LUTs that are memory or shift registers.
        ff: registers.
        dsp: multiplier slices.
        blocks: memory blocks of the device's kind; halves for a RAMB18.
    """

    lut: int = 0
    lut_ram: int = 0
    ff: int = 0
    dsp: int = 0
    blocks: float = 0

    @property
    def luts(self) -> int:
        """All LUTs."""
        return self.lut + self.lut_ram

    def __add__(self, other: Self) -> "Counts":
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def times(self, count: int) -> "Counts":
        """Of `count` copies."""
        return Counts(*(count * getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Technology:
    """A family of chips.

    Attributes:
        name: of the family.
        script: Yosys's commands between reading a part, whose top is `{top}`, and counting its cells.
        cells: regular expression of a cell's name -> what it takes; a memory, LUT or DSP that is in none is an error.
        block_kind: what a memory block is called.
        note: what the figures are worth.
        promises_collisions: its block RAM gives the old word when it is read and written at once.
    """

    name: str
    script: str
    cells: Mapping[str, Counts]
    block_kind: str
    note: str
    promises_collisions: bool = True

    def counts(self, number_of: Mapping[str, int]) -> Counts:
        """What a netlist of these cells takes.

        Raises:
            UsageError: a cell that this table does not have; a black box of the design must not be among them.
        """
        total = Counts()
        for cell, number in number_of.items():
            found = next((taken for pattern, taken in self.cells.items() if re.fullmatch(pattern, cell)), None)
            if found is None:
                raise UsageError(f"{cell}: it is not known what this cell of {self.name} takes; add it to the table of cells")
            total += found.times(number)
        return total


_XILINX = "synth_xilinx -flatten -noiopad -noclkbuf -top {top} -family"
#: Yosys maps the accumulator of a MAC into the DSP block of series 7 alone; that step is done for series 7.
_ULTRASCALE_SCRIPT = f"""{_XILINX} xcu -run begin:map_dsp
{_XILINX} xc7 -run map_dsp:coarse
{_XILINX} xcu -run coarse:
"""
ULTRASCALE = Technology(
    "UltraScale",
    _ULTRASCALE_SCRIPT,
    {
        r"LUT[1-6]|INV": Counts(lut=1),
        r"RAM32M16|RAM64M8": Counts(lut_ram=8),
        r"RAM32M|RAM64M|RAM128X1D": Counts(lut_ram=4),
        r"RAM32X1D|RAM64X1D|RAM128X1S": Counts(lut_ram=2),
        r"RAM32X1S|RAM64X1S|SRL16E|SRLC32E": Counts(lut_ram=1),
        r"RAM256X1S": Counts(lut_ram=4),
        r"RAM256X1D|RAM512X1S|RAM64X8SW|RAM32X16DR8": Counts(lut_ram=8),
        r"FD[RSCP]E(_1)?": Counts(ff=1),
        r"DSP48E[12]": Counts(dsp=1),
        r"RAMB36E2": Counts(blocks=1),
        r"RAMB18E2": Counts(blocks=0.5),
        r"CARRY[48]|MUXF[789]|\$scopeinfo": Counts(),
    },
    "BRAM36",
    "By Yosys, not placed and routed, and without a clock. DSP48E1 stands for DSP48E2.",
)
ECP5 = Technology(
    "ECP5",
    "synth_ecp5 -noabc9 -nowidelut -flatten -top {top}\n",
    {
        r"LUT4": Counts(lut=1),
        r"CCU2C": Counts(lut=2),
        r"TRELLIS_DPR16X4": Counts(lut_ram=6),
        r"TRELLIS_FF": Counts(ff=1),
        r"MULT18X18D": Counts(dsp=1),
        r"DP16KD|PDPW16KD": Counts(blocks=1),
        r"PFUMX|L6MUX21|\$scopeinfo|VHI|VLO|GSR|EHXPLLL|ODDRX1F|TRELLIS_IO": Counts(),
    },
    "DP16KD",
    "By Yosys, before placement.",
    promises_collisions=False,
)
_BY_BLOCK = {"BRAM36": ULTRASCALE, "RAMB18": ULTRASCALE, "URAM288": ULTRASCALE, "DP16KD": ECP5}


def technology_of(machine: Machine) -> Technology:
    """The family of a machine's device. Raises UsageError for one whose blocks are not known."""
    kind = machine.device.block_kind
    if kind not in _BY_BLOCK:
        raise UsageError(f"machine {machine.name}: device.block_kind is {kind!r}: choose {', '.join(_BY_BLOCK)}")
    return _BY_BLOCK[kind]
