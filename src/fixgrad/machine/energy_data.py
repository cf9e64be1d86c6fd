"""Energy coefficients as dated data, and intervals to carry their uncertainty."""

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

from fixgrad.errors import DataError, UsageError


class Kind(StrEnum):
    """Where a figure comes from."""

    MEASURED = "measured"
    SIMULATED = "simulated"
    PUBLISHED = "published"
    CALIBRATED = "calibrated"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Interval:
    """A value between two bounds, all of one unit."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise DataError(f"an interval of {self.low} to {self.high} around {self.value}; the value must lie inside")

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, other: "Interval | float") -> "Interval":
        """Product with a number or an interval, both not negative."""
        if isinstance(other, Interval):
            return Interval(self.value * other.value, self.low * other.low, self.high * other.high)
        return Interval(self.value * other, self.low * other, self.high * other)

    __rmul__ = __mul__


NOTHING = Interval(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One figure of the energy model.

    Attributes:
        name: as the model asks for it.
        value, low, high: the figure and its bounds in `unit`.
        date: year and month of the source.
        kind: where it comes from.
        source: reference.
        note: what it holds for.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    date: str
    kind: Kind
    source: str
    note: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.value <= self.high:
            raise DataError(f"coefficient {self.name}: {self.low} <= {self.value} <= {self.high} does not hold, or is negative")
        if not (self.unit and self.date and self.source):
            raise DataError(f"coefficient {self.name}: unit, date and source must be given")

    @property
    def interval(self) -> Interval:
        return Interval(self.value, self.low, self.high)


@dataclass(frozen=True, slots=True)
class Anchor:
    """A whole board's power during a known step: what the model is calibrated on.

    `watts` over `seconds` with `luts` and `mac_units` at `clock_mhz`, `macs` executed, `buffer_bits_per_mac` bits moved in
    buffers of `buffer_bytes` for each, and somewhere between `dram_bytes_low` and `dram_bytes_high` bytes of DRAM traffic.
    """

    part: str
    source: str
    kind: Kind
    date: str
    watts: float
    seconds: float
    clock_mhz: float
    luts: int
    mac_units: int
    macs: int
    buffer_bits_per_mac: int
    buffer_bytes: int
    dram_standard: str
    dram_channels: int
    dram_bytes_low: int
    dram_bytes_high: int

    @property
    def joules(self) -> float:
        return self.watts * self.seconds


@dataclass(frozen=True, slots=True)
class EnergyTable:
    """Coefficients by name, and the anchor."""

    coefficients: dict[str, Coefficient]
    anchor: Anchor

    def __getitem__(self, name: str) -> Interval:
        """The interval of a coefficient. Raises UsageError for an unknown name."""
        try:
            return self.coefficients[name].interval
        except KeyError:
            raise UsageError(f"no energy coefficient {name!r}; known are {', '.join(self.coefficients)}") from None

    @property
    def parts(self) -> tuple[str, ...]:
        """Chips with coefficients of their own."""
        return tuple(name.removeprefix("process_") for name in self.coefficients if name.startswith("process_"))


def energy_table_from(table: dict[str, Any]) -> EnergyTable:
    """From a parsed TOML table of `[[coefficient]]` and `[anchor]`. Raises DataError for missing or impossible entries."""
    coefficients: dict[str, Coefficient] = {}
    try:
        for row in table["coefficient"]:
            found = Coefficient(**{**row, "kind": Kind(row["kind"])})
            if found.name in coefficients:
                raise DataError(f"coefficient {found.name} is given twice")
            coefficients[found.name] = found
        anchor = Anchor(**{**table["anchor"], "kind": Kind(table["anchor"]["kind"])})
    except (KeyError, TypeError) as error:
        raise DataError(f"energy table: {error} is missing or unknown") from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"energy table: {error}") from error
    return EnergyTable(coefficients, anchor)


@cache
def load_energy_table() -> EnergyTable:
    """The coefficients that come with the package."""
    file = resources.files("fixgrad.machine") / "data" / "energy.toml"
    return energy_table_from(tomllib.loads(file.read_text("utf-8")))
