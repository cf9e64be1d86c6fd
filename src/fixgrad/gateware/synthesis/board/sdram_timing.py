"""A single-data-rate SDRAM: its organisation, and its times in cycles of a clock."""

import math
from dataclasses import dataclass
from typing import Self

from fixgrad.errors import UsageError

#: The fastest clock for a CAS latency of 2, in MHz.
MOST_MHZ = 100.0
CAS_LATENCY = 2


@dataclass(frozen=True, slots=True)
class SdramPart:
    """A chip with a data bus of 16 bits. Times in ns, of the PC133 grade of 256 Mb parts (Micron MT48LC16M16A2, ISSI IS42S16160).

    Attributes:
        bank_bits, row_bits, column_bits: of an address.
        rp, rcd, ras, rfc, wr: precharge, row to column, least time of an open row, refresh, write recovery.
        refresh: between two refreshes (8,192 in 64 ms).
        power_up: from stable clock until the first command.
    """

    bank_bits: int = 2
    row_bits: int = 13
    column_bits: int = 9
    rp: float = 20.0
    rcd: float = 20.0
    ras: float = 45.0
    rfc: float = 66.0
    wr: float = 15.0
    refresh: float = 7812.5
    power_up: float = 200_000.0

    @property
    def capacity(self) -> int:
        """Bytes."""
        return 2 << (self.bank_bits + self.row_bits + self.column_bits)


@dataclass(frozen=True, slots=True)
class SdramCycles:
    """The times of a part in cycles: see `SdramPart`."""

    rp: int
    rcd: int
    ras: int
    rfc: int
    wr: int
    refresh: int
    power_up: int

    @classmethod
    def of(cls, part: SdramPart, clock_mhz: float) -> Self:
        """Rounded up; the refresh interval down.

        Raises:
            UsageError: the clock is above what the part allows at its CAS latency.
        """
        if clock_mhz > MOST_MHZ:
            raise UsageError(f"clock_mhz is {clock_mhz:g}: an SDRAM with a CAS latency of {CAS_LATENCY} allows {MOST_MHZ:g}; lower it")

        def up(ns: float) -> int:
            return max(1, math.ceil(ns * clock_mhz / 1000 - 1e-9))

        return cls(
            up(part.rp),
            up(part.rcd),
            up(part.ras),
            up(part.rfc),
            up(part.wr),
            math.floor(part.refresh * clock_mhz / 1000),
            up(part.power_up),
        )
