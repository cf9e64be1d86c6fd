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


class BenchResult(NamedTuple):
    """What was measured, and on what.

    Attributes:
        about: model, batch, machine and so on, JSON values.
        seconds: times of the steps of each contestant.
        peak_bytes: peaks of memory, where they were measured.
        ratios: by their JSON key: median, min and max.
    """

    about: Mapping[str, Any]
    seconds: Mapping[str, Sequence[float]]
    peak_bytes: Mapping[str, Sequence[float]]
    ratios: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            **self.about,
            **self.ratios,
            "seconds": {name: spread(values) for name, values in self.seconds.items()},
            "peak_bytes": {name: spread(values) for name, values in self.peak_bytes.items()},
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def bench_table(result: BenchResult) -> Table:
    """A row a contestant: time of a step, its ratio to fp32, and the peak of memory, as medians and ranges."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("training step")
    for column in ("time", "of fp32", "peak memory", "of fp32"):
        table.add_column(column, justify="right", no_wrap=True)
    base = result.seconds["fp32"]
    base_peak = result.peak_bytes.get("fp32")
    for name, seconds in result.seconds.items():
        peaks = result.peak_bytes.get(name)
        table.add_row(
            ROWS[name].format(density=result.about["density"]),
            _text([1e3 * value for value in seconds], ".0f", " ms"),
            _text(_pairs(seconds, base), ".2f"),
            "" if peaks is None else _text([value / 1e6 for value in peaks], ".0f", " MB"),
            "" if peaks is None or base_peak is None else _text(_pairs(peaks, base_peak), ".2f"),
        )
    return table


def _pairs(values: Sequence[float], base: Sequence[float]) -> list[float]:
    return [value / other for value, other in zip(values, base, strict=True)]


def _text(values: Sequence[float], form: str, unit: str = "") -> str:
    return f"{median(values):{form}}{unit} ({min(values):{form}} to {max(values):{form}})"
