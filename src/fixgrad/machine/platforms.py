"""Published training and inference platforms as data, and what each would take for a network at its published rate."""

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

from fixgrad.errors import DataError, UsageError
from fixgrad.machine.energy_data import Kind

_RATIO_TOLERANCE = 0.01
"""GOP/s/W as printed may differ this much from GOP/s over W before a note must say so."""


class Function(StrEnum):
    """What a platform does."""

    INFERENCE = "inference"
    TRAINING = "training"


@dataclass(frozen=True, slots=True)
class Platform:
    """One row of the comparison.

    Attributes:
        key: unique short name.
        name, device, numbers: as its source has them; `numbers` is the number format.
        function: inference or training.
        sparse: whether it uses sparsity.
        gops: GOP/s (1 MAC = 2 OP; skipped operations counted as done where the source does so); None if not given.
        watts: power; None if not given.
        gops_per_watt: as printed by the source; None if not given.
        kind: measured or simulated; published where the source does not say which.
        source: reference.
        verified: whether the figures were checked at the source; else remembered.
        network: what the rate was reported for, if one network.
        speed_up, speed_up_over: a ratio, where the source gives no rate.
        notes: slips and limits of the figures.
    """

    key: str
    name: str
    device: str
    function: Function
    sparse: bool
    kind: Kind
    source: str
    verified: bool
    numbers: str = ""
    gops: float | None = None
    watts: float | None = None
    gops_per_watt: float | None = None
    network: str = ""
    speed_up: float | None = None
    speed_up_over: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        if not (self.key and self.name and self.device and self.source):
            raise DataError(f"platform {self.key or self.name}: key, name, device and source must be given")
        for field in ("gops", "watts", "gops_per_watt", "speed_up"):
            value = getattr(self, field)
            if value is not None and value <= 0:
                raise DataError(f"platform {self.key}: {field} is {value}; it must be positive")
        if self.gops is None and self.speed_up is None:
            raise DataError(f"platform {self.key}: neither gops nor speed_up is given")
        if (self.speed_up is None) != (not self.speed_up_over):
            raise DataError(f"platform {self.key}: speed_up and speed_up_over go together")
        if self.kind not in (Kind.MEASURED, Kind.SIMULATED, Kind.PUBLISHED):
            raise DataError(f"platform {self.key}: kind is {self.kind}; choose measured, simulated or published")
        if not self.consistent and not self.notes:
            raise DataError(
                f"platform {self.key}: {self.gops} GOP/s at {self.watts} W is not {self.gops_per_watt} GOP/s/W; "
                "correct it or say so in its notes"
            )

    @property
    def consistent(self) -> bool:
        """Whether GOP/s, W and GOP/s/W agree, as far as given."""
        if self.gops is None or self.watts is None or self.gops_per_watt is None:
            return True
        return abs(self.gops / self.watts / self.gops_per_watt - 1) <= _RATIO_TOLERANCE

    @property
    def efficiency(self) -> float | None:
        """GOP/s/W: as printed, or worked out from GOP/s and W; None if neither is known."""
        if self.gops_per_watt is not None:
            return self.gops_per_watt
        return None if self.gops is None or self.watts is None else self.gops / self.watts

    @property
    def power(self) -> float | None:
        """W: as printed, or worked out from GOP/s and GOP/s/W; None if neither is known."""
        if self.watts is not None:
            return self.watts
        return None if self.gops is None or self.gops_per_watt is None else self.gops / self.gops_per_watt


def platforms_from(table: dict[str, Any]) -> tuple[Platform, ...]:
    """From a parsed TOML table of `[[platform]]`. Raises DataError for missing, unknown or contradicting entries."""
    found: dict[str, Platform] = {}
    for row in table.get("platform", []):
        key = row.get("key", "without a key")
        try:
            platform = Platform(**{**row, "function": Function(row["function"]), "kind": Kind(row["kind"])})
        except (KeyError, TypeError) as error:
            raise DataError(f"platform {key}: {error} is missing or unknown") from error
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"platform {key}: {error}") from error
        if key in found:
            raise DataError(f"platform {key} is given twice")
        found[key] = platform
    return tuple(found.values())


@cache
def load_platforms() -> tuple[Platform, ...]:
    """The platforms that come with the package: the talk's table first, in its order."""
    file = resources.files("fixgrad.machine") / "data" / "platforms.toml"
    return platforms_from(tomllib.loads(file.read_text("utf-8")))


def platform(key: str) -> Platform:
    """The platform of that key. Raises UsageError, which lists the known keys."""
    for found in load_platforms():
        if found.key == key:
            return found
    raise UsageError(f"unknown platform {key!r}; known are {', '.join(p.key for p in load_platforms())}")


@dataclass(frozen=True, slots=True)
class PublishedTime:
    """What a platform would take if it kept its published rate on another network.

    Attributes:
        platform: whose rate it is.
        seconds_per_image, seconds_per_step: of one image, and of a batch; None if the source gives no rate.
        joules_per_image: at its published power; None without one.
    """

    platform: Platform
    seconds_per_image: float | None
    seconds_per_step: float | None
    joules_per_image: float | None


def at_published_rate(
    function: Function, ops_per_image: float, batch: int = 1, platforms: tuple[Platform, ...] | None = None
) -> tuple[PublishedTime, ...]:
    """Each platform of that function on a network of `ops_per_image` operations (OP, 1 MAC = 2 OP, nothing skipped).

    For training these are the operations of FF, NG and WG together; count all of them, since the rates of sparse platforms
    count skipped ones as done. A published rate holds for the network of its source; elsewhere it is an orientation.
    Raises UsageError if `ops_per_image` or `batch` is not positive.
    """
    if ops_per_image <= 0 or batch < 1:
        raise UsageError(f"{ops_per_image} OP an image and a batch of {batch}; both must be positive")
    chosen = load_platforms() if platforms is None else platforms
    return tuple(_published_time(p, ops_per_image, batch) for p in chosen if p.function is function)


def _published_time(p: Platform, ops_per_image: float, batch: int) -> PublishedTime:
    if p.gops is None:
        return PublishedTime(p, None, None, None)
    seconds = ops_per_image / (p.gops * 1e9)
    return PublishedTime(p, seconds, seconds * batch, None if p.power is None else seconds * p.power)
