"""A simulated machine beside the published platforms: rates and power, and times for one network at published rates."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from fixgrad.machine.platforms import Function, Platform, PublishedTime, at_published_rate, load_platforms
from fixgrad.network.recipe import OPERAND_BITS
from fixgrad.report.units import duration
from fixgrad.simulate.timing import StepTiming

#: Columns of the terminal that the tables take.
TABLE_WIDTH = 150


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `fixgrad compare` shows.

    Attributes:
        training, forward: the machine's step and forward pass.
        density: of the network, for people.
        stored_bits: of a weight between steps.
        platforms: the published ones.
        times: what each would take for this network, training platforms for a step and inference ones for a pass.
    """

    training: StepTiming
    forward: StepTiming
    density: str
    stored_bits: int
    platforms: tuple[Platform, ...]
    times: tuple[PublishedTime, ...]

    def numbers(self, function: Function) -> str:
        """The machine's number formats: of a multiplier's operands, and in training of stored weights."""
        return f"fixed {OPERAND_BITS}" + (f"/{self.stored_bits}" if function is Function.TRAINING else "")

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "network": self.training.network,
            "batch": self.training.batch,
            "density": self.density,
            "machine": {
                "name": self.training.machine,
                "kind": "simulated",
                "sparse": True,
                "training": {"numbers": self.numbers(Function.TRAINING), **_own(self.training)},
                "inference": {"numbers": self.numbers(Function.INFERENCE), **_own(self.forward)},
            },
            "platforms": [_platform_dict(platform) for platform in self.platforms],
            "at_published_rates": [
                {
                    "key": time.platform.key,
                    "function": str(time.platform.function),
                    "seconds_per_image": time.seconds_per_image,
                    "seconds_per_step": time.seconds_per_step,
                    "joules_per_image": time.joules_per_image,
                }
                for time in self.times
            ],
        }


def comparison_of(training: StepTiming, forward: StepTiming, density: str, stored_bits: int) -> Comparison:
    """The comparison of a simulated step and forward pass of one network."""
    per_image = forward.pass_gop * 1e9 / forward.batch
    times = (
        *at_published_rate(Function.TRAINING, 3 * per_image, training.batch),
        *at_published_rate(Function.INFERENCE, per_image, forward.batch),
    )
    return Comparison(training, forward, density, stored_bits, load_platforms(), times)


def _own(timing: StepTiming) -> dict[str, Any]:
    watts = None if timing.energy is None else timing.energy.watts
    return {
        "us": timing.us,
        "gops": timing.gops,
        "watts": None if watts is None else {"value": watts.value, "low": watts.low, "high": watts.high},
        "gops_per_watt": None if watts is None else timing.gops / watts.value,
        "seconds_per_image": timing.us / 1e6 / timing.batch,
        "joules_per_image": None if timing.energy is None else timing.energy.per_image(timing.batch).value,
    }


def _platform_dict(platform: Platform) -> dict[str, Any]:
    return {
        "key": platform.key,
        "name": platform.name,
        "device": platform.device,
        "function": str(platform.function),
        "numbers": platform.numbers,
        "sparse": platform.sparse,
        "gops": platform.gops,
        "watts": platform.power,
        "gops_per_watt": platform.efficiency,
        "speed_up": platform.speed_up,
        "speed_up_over": platform.speed_up_over,
        "network": platform.network,
        "kind": str(platform.kind),
        "source": platform.source,
        "verified": platform.verified,
        "notes": platform.notes,
    }


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """What stands above the tables."""
    timing = comparison.training
    case = f"{timing.network}, batch {timing.batch}, density {comparison.density}"
    yield f"{case}, on {timing.machine} beside published platforms"
    yield "  equivalent GOP/s: 1 MAC is 2 operations, skipped ones count as done; a published rate is for its source's network"


def _table(columns: tuple[str, ...], left: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    return table


def sources(comparison: Comparison) -> dict[str, int]:
    """Number of each source, from 1, in the order of the table."""
    found: dict[str, int] = {}
    for platform in comparison.platforms:
        found.setdefault(_source(platform), len(found) + 1)
    return found


def _source(platform: Platform) -> str:
    return platform.source + ("" if platform.verified else " (not checked at the source)")


def platform_table(comparison: Comparison) -> Table:
    """Every platform with function, numbers, sparsity, rate, power, and where the figures come from; the machine first."""
    left = ("platform", "device", "function", "numbers", "sparse", "network", "kind")
    table = _table((*left[:5], "GOP/s", "W", "GOP/s/W", *left[5:], "source"), left)
    numbers = sources(comparison)
    for function, timing in ((Function.TRAINING, comparison.training), (Function.INFERENCE, comparison.forward)):
        watts = None if timing.energy is None else timing.energy.watts.value
        rates = (_number(timing.gops), _number(watts), _number(None if watts is None else timing.gops / watts))
        cells = (timing.machine, "", str(function), comparison.numbers(function), "yes", *rates, timing.network, "simulated", "-")
        table.add_row(*cells, style="bold")
    for platform in comparison.platforms:
        rate = _number(platform.gops) if platform.speed_up is None else f"{platform.speed_up:g}x"
        table.add_row(
            platform.name,
            platform.device,
            str(platform.function),
            platform.numbers or "-",
            "yes" if platform.sparse else "no",
            rate,
            _number(platform.power),
            _number(platform.efficiency),
            platform.network or "-",
            str(platform.kind),
            str(numbers[_source(platform)]),
        )
    return table


def source_lines(comparison: Comparison) -> Iterator[str]:
    """What stands below the table: the sources by number, what a ratio is over, and notes."""
    for source, number in sources(comparison).items():
        yield f"{number:3}  {source}"
    for platform in comparison.platforms:
        if platform.speed_up is not None:
            yield f"     {platform.name}: times as fast as {platform.speed_up_over}"
        if platform.notes:
            yield f"     {platform.name}, {platform.function}: {platform.notes}"


def time_table(comparison: Comparison) -> Table:
    """What every platform would take for this network if it kept its published rate."""
    left = ("platform", "function", "network of its rate")
    table = _table((*left, "an image", "a batch", "mJ an image", "times as long as here"), left)
    here = {Function.TRAINING: comparison.training, Function.INFERENCE: comparison.forward}
    for function, timing in here.items():
        seconds = timing.us / 1e6
        energy = None if timing.energy is None else 1000 * timing.energy.per_image(timing.batch).value
        cells = (timing.network, duration(seconds / timing.batch), duration(seconds), _number(energy), "1")
        table.add_row(timing.machine, str(function), *cells, style="bold")
    for time in comparison.times:
        if time.seconds_per_image is None or time.seconds_per_step is None:
            continue
        ratio = time.seconds_per_step / (here[time.platform.function].us / 1e6)
        energy = None if time.joules_per_image is None else 1000 * time.joules_per_image
        times = (duration(time.seconds_per_image), duration(time.seconds_per_step), _number(energy), f"{ratio:,.2f}")
        table.add_row(time.platform.name, str(time.platform.function), time.platform.network or "-", *times)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
