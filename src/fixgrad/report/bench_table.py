"""The result of `fixgrad bench train` as JSON and as a table."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from rich.table import Table

#: Name of a row by the contestant's name.
ROWS = {
    "fp32": "fp32 PyTorch, channels last",
    "bf16": "bf16 autocast PyTorch",
    "fake_quantised": "fake-quantised fp32",
    "fixgrad": "fixgrad, dense",
    "fixgrad_sparse": "fixgrad, density {density}",
}


#: Processors kept busy by others from which on a line says so.
BUSY_CORES = 0.2


class BenchResult(NamedTuple):
    """What was measured, and on what.

    Attributes:
        about: model, batch, machine and so on, JSON values.
        seconds: times of the steps of each contestant.
        cpu_seconds: processor times of them, where they were measured.
        peak_bytes: peaks of memory, where they were measured.
        ratios: by their JSON key: median, min and max.
    """

    about: Mapping[str, Any]
    seconds: Mapping[str, Sequence[float]]
    cpu_seconds: Mapping[str, Sequence[float]]
    peak_bytes: Mapping[str, Sequence[float]]
    ratios: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            **self.about,
            **self.ratios,
            "seconds": {name: spread(values) for name, values in self.seconds.items()},
            "cpu_seconds": {name: spread(values) for name, values in self.cpu_seconds.items()},
            "peak_bytes": {name: spread(values) for name, values in self.peak_bytes.items()},
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def load_line(result: BenchResult) -> str | None:
    """What other programs did meanwhile, where it was enough to make times by the clock doubtful."""
    load = result.about.get("other_load")
    if load is None or load < BUSY_CORES:
        return None
    return f"other programs kept {load:.1f} processors busy meanwhile: trust ratios of CPU time more than of time, and no time at all"


def bench_table(result: BenchResult) -> Table:
    """A row a contestant: time and CPU time of a step and the peak of memory, beside those of fp32, as medians and ranges."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("training step")
    for column in ("time", "of fp32", "CPU time", "of fp32", "peak memory", "of fp32"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, seconds in result.seconds.items():
        cpu, peaks = result.cpu_seconds.get(name), result.peak_bytes.get(name)
        table.add_row(
            ROWS[name].format(density=result.about["density"]),
            _text([1e3 * value for value in seconds], ".0f", " ms"),
            _of_fp32(seconds, result.seconds),
            "" if cpu is None else f"{1e3 * median(cpu):.0f} ms",
            _of_fp32(cpu, result.cpu_seconds),
            "" if peaks is None else _text([value / 1e6 for value in peaks], ".0f", " MB"),
            _of_fp32(peaks, result.peak_bytes),
        )
    return table


def _of_fp32(values: Sequence[float] | None, all_values: Mapping[str, Sequence[float]]) -> str:
    base = all_values.get("fp32")
    return "" if values is None or base is None else _text(_pairs(values, base), ".2f")


def _pairs(values: Sequence[float], base: Sequence[float]) -> list[float]:
    return [value / other for value, other in zip(values, base, strict=True)]


def _text(values: Sequence[float], form: str, unit: str = "") -> str:
    return f"{median(values):{form}}{unit} ({min(values):{form}} to {max(values):{form}})"
