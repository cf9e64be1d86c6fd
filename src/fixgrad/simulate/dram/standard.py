"""DRAM standards as data: a standard is a table of timings, read from `data/*.toml`.

Every time of a table is a whole number of clocks of the command clock. Names are JEDEC's, in lower case: `t_ccd_l` is
tCCD_L. A further standard is a further table; no code changes.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from fixgrad.errors import DataError, UsageError


class DramTiming(NamedTuple):
    """Timing rules in clocks. A tuple of integers, so that the compiled scheduler takes it as it is."""

    cl: int
    """Read command to first data."""
    cwl: int
    """Write command to first data."""
    burst: int
    """Clocks that one burst occupies the data bus."""
    t_rcd: int
    """Activate to column command, same bank."""
    t_rp: int
    """Precharge to activate, same bank; precharge to refresh."""
    t_ras: int
    """Activate to precharge, same bank."""
    t_rfc: int
    """Refresh to activate, same rank."""
    t_refi: int
    """Average interval of refreshes of a rank."""
    t_ccd_s: int
    """Column command to column command of the same kind, other bank group."""
    t_ccd_l: int
    """Column command to column command of the same kind, same bank group."""
    t_rrd_s: int
    """Activate to activate, other bank group."""
    t_rrd_l: int
    """Activate to activate, same bank group."""
    t_faw: int
    """Window that holds at most four activates of a rank."""
    t_wtr_s: int
    """Last write data to read command, other bank group."""
    t_wtr_l: int
    """Last write data to read command, same bank group."""
    t_rtp: int
    """Read command to precharge, same bank."""
    t_wr: int
    """Last write data to precharge, same bank."""
    t_rtrs: int
    """Idle clocks of the data bus when its driver changes (read to write, or from rank to rank)."""

    @property
    def read_to_write(self) -> int:
        """Clocks from a read command to a write command of the same rank: the write data follow the read data."""
        return self.cl + self.burst + self.t_rtrs - self.cwl

    def write_to_read(self, same_group: bool) -> int:
        """Clocks from a write command to a read command of the same rank (JESD79-4: CWL + BL/2 + tWTR)."""
        return self.cwl + self.burst + (self.t_wtr_l if same_group else self.t_wtr_s)

    @property
    def read_to_precharge(self) -> int:
        """Clocks from a read command to a precharge of its bank."""
        return self.t_rtp

    @property
    def write_to_precharge(self) -> int:
        """Clocks from a write command to a precharge of its bank."""
        return self.cwl + self.burst + self.t_wr

    @property
    def t_rc(self) -> int:
        """Activate to activate of the same bank."""
        return self.t_ras + self.t_rp


@dataclass(frozen=True, slots=True)
class ControllerPolicy:
    """How the controller queues and orders requests (not part of a JEDEC standard)."""

    queue_depth: int
    """Bursts that the scheduler can choose from, for each direction."""
    write_high: int
    """Queued writes at which the controller turns to draining them."""
    write_low: int
    """Queued writes at which it turns back to reads, if there are any."""
    starvation_clocks: int
    """Age from which a request stops younger row hits of its bank from overtaking it."""
    front_end_ns: float
    """Latency of controller, PHY and on-chip path, added to every access, in ns."""
    front_end_source: str
    """Where `front_end_ns` comes from."""


@dataclass(frozen=True, slots=True)
class DramStandard:
    """One channel of a memory: organisation, timing and controller.

    `rows` and `columns` count per bank; a column is one word of the data bus (`bus_bytes`).
    """

    name: str
    description: str
    source: str
    clock_mhz: float
    bus_bytes: int
    burst_length: int
    ranks: int
    bank_groups: int
    banks_per_group: int
    rows: int
    columns: int
    command_buses: int
    timing: DramTiming
    controller: ControllerPolicy

    def __post_init__(self) -> None:
        _check_organisation(self)
        _check_timing(self)
        _check_controller(self)

    @property
    def clock_ns(self) -> float:
        """Period of the command clock in ns."""
        return 1000.0 / self.clock_mhz

    @property
    def burst_bytes(self) -> int:
        """Bytes of one burst: the smallest transfer."""
        return self.bus_bytes * self.burst_length

    @property
    def page_bytes(self) -> int:
        """Bytes that one open row of one bank holds."""
        return self.bus_bytes * self.columns

    @property
    def bursts_per_page(self) -> int:
        return self.columns // self.burst_length

    @property
    def banks(self) -> int:
        """Banks of the channel, all ranks together."""
        return self.ranks * self.bank_groups * self.banks_per_group

    @property
    def capacity_bytes(self) -> int:
        return self.banks * self.rows * self.page_bytes

    @property
    def peak_bytes_per_ns(self) -> float:
        """Bandwidth of the data bus in bytes per ns, which is GB/s."""
        return self.burst_bytes / (self.timing.burst * self.clock_ns)


def _require(condition: bool, standard: str, message: str) -> None:
    if not condition:
        raise DataError(f"DRAM standard {standard}: {message}")


def _check_organisation(s: DramStandard) -> None:
    counts = ("bus_bytes", "burst_length", "ranks", "bank_groups", "banks_per_group", "rows", "columns")
    for field in counts:
        _require(getattr(s, field) >= 1, s.name, f"{field} is {getattr(s, field)}; it must be at least 1")
    _require(s.clock_mhz > 0, s.name, f"clock_mhz is {s.clock_mhz}; it must be positive")
    _require(s.banks <= 64, s.name, f"{s.banks} banks; the scheduler holds at most 64 a channel")
    _require(s.command_buses in (1, 2), s.name, f"command_buses is {s.command_buses}; it must be 1 or 2")
    _require(
        s.columns % s.burst_length == 0,
        s.name,
        f"a row of {s.columns} columns is not a whole number of bursts of {s.burst_length}",
    )


def _check_timing(s: DramStandard) -> None:
    for field, value in zip(DramTiming._fields, s.timing, strict=True):
        least = 0 if field in ("t_rtrs", "t_wtr_s", "t_wtr_l", "cwl") else 1
        _require(value >= least, s.name, f"{field} is {value} clocks; it must be at least {least}")
    t = s.timing
    for short, long in (("t_ccd_s", "t_ccd_l"), ("t_rrd_s", "t_rrd_l"), ("t_wtr_s", "t_wtr_l")):
        _require(
            getattr(t, short) <= getattr(t, long),
            s.name,
            f"{short} = {getattr(t, short)} exceeds {long} = {getattr(t, long)}",
        )
    _require(t.burst <= t.t_ccd_s, s.name, f"t_ccd_s = {t.t_ccd_s} is shorter than a burst of {t.burst} clocks")
    _require(t.t_rfc < t.t_refi, s.name, f"t_rfc = {t.t_rfc} leaves no time in t_refi = {t.t_refi}")


def _check_controller(s: DramStandard) -> None:
    c = s.controller
    _require(1 <= c.queue_depth <= 256, s.name, f"queue_depth is {c.queue_depth}; it must be 1 to 256")
    _require(
        0 <= c.write_low < c.write_high <= c.queue_depth,
        s.name,
        f"write_low = {c.write_low} and write_high = {c.write_high} must satisfy "
        f"0 <= write_low < write_high <= queue_depth = {c.queue_depth}",
    )
    _require(c.front_end_ns >= 0, s.name, f"front_end_ns is {c.front_end_ns}; it must not be negative")


def standard_from_table(table: dict[str, Any]) -> DramStandard:
    """A standard from a parsed TOML table (`name`, `description`, `source`, `[organisation]`, `[timing]`,
    `[controller]`).

    Raises DataError if a key is missing, unknown or impossible.
    """
    name = str(table.get("name", "without a name"))
    try:
        organisation = dict(table["organisation"])
        data_rate = organisation.pop("data_rate")
        burst = organisation["burst_length"] // data_rate
        return DramStandard(
            name=table["name"],
            description=table["description"],
            source=table["source"],
            timing=DramTiming(burst=burst, **table["timing"]),
            controller=ControllerPolicy(**table["controller"]),
            **organisation,
        )
    except KeyError as error:
        raise DataError(f"DRAM standard {name}: the key {error} is missing from its table") from error
    except TypeError as error:
        raise DataError(f"DRAM standard {name}: {error}") from error


@cache
def _tables() -> dict[str, DramStandard]:
    folder = resources.files("fixgrad.simulate.dram") / "data"
    found = (item for item in folder.iterdir() if item.name.endswith(".toml"))
    standards = (standard_from_table(tomllib.loads(item.read_text("utf-8"))) for item in found)
    return {s.name: s for s in sorted(standards, key=lambda s: s.name)}


def available_standards() -> tuple[str, ...]:
    """Names of the standards that come with the package."""
    return tuple(_tables())


def load_standard(name: str) -> DramStandard:
    """The standard of that name. Raises UsageError, which lists the known names."""
    try:
        return _tables()[name]
    except KeyError:
        known = ", ".join(available_standards())
        raise UsageError(f"unknown DRAM standard {name!r}; known are {known}") from None
