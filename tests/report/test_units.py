"""Numbers as people read them, and the line of an epoch."""

import pytest

from fixgrad.report.epoch_lines import bound_line, epoch_line, heading
from fixgrad.report.units import byte_count, duration, percent
from fixgrad.train.metrics import EpochMetrics, PredictionKind, Timing


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 us"),
        (1.234e-6, "1.23 us"),
        (999e-6, "999 us"),
        (1e-3, "1 ms"),
        (0.0853128, "85.3 ms"),
        (0.4561, "456 ms"),
        (4.25, "4.25 s"),
        (59.9, "59.9 s"),
        (60.0, "1 min 00 s"),
        (200.4, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500.0, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (9_800, "9.8 kB"), (1_234_567, "1.23 MB"), (2.5e9, "2.5 GB")]
)
def test_byte_counts(count: float, shown: str) -> None:
    assert byte_count(count) == shown


def test_percentages() -> None:
    assert percent(0.46551) == "46.55 %"
    assert percent(0.5, 0) == "50 %"


METRICS = EpochMetrics(3, 30, 0.5, 0.91, 0.895, 0.01, 0.302, 0.356, 0.00012, "error/dense5", (), {"conv1": 1.0})


def test_the_line_of_an_epoch_stands_under_its_heading() -> None:
    line = epoch_line(METRICS, Timing(12.3, 0.0853, "kcu1500", PredictionKind.SIMULATED), classes=10)
    above = heading("kcu1500")
    for name, value in (
        ("loss", "0.5000"),
        ("train %", "91.00"),
        ("test %", "89.50"),
        ("weights %", "30.2"),
        ("MACs %", "35.6"),
    ):
        assert line[: above.index(name) + len(name)].endswith(value)
    assert "0.012 error/dense5" in line
    assert line.endswith("12.3 s  85.3 ms")
    assert epoch_line(METRICS, Timing(12.3), classes=10).endswith("12.3 s")
    assert heading(None).endswith("time")


def test_a_bound_is_told_from_a_simulated_time() -> None:
    bound = Timing(12.3, 0.0853, "tiny", PredictionKind.BOUND, "no memory")
    assert heading("tiny").endswith("time  step on tiny")
    assert epoch_line(METRICS, bound, classes=10).endswith("12.3 s  85.3 ms at least")
    assert bound_line(bound) == "the step on tiny is a bound, not simulated: no memory"
    assert bound_line(Timing(12.3, 0.0853, "tiny", PredictionKind.SIMULATED)) is None
    assert bound_line(Timing(12.3)) is None


def test_what_should_not_be_stands_at_the_end() -> None:
    from dataclasses import replace

    assert epoch_line(replace(METRICS, overflows=("conv1/wg", "conv2/ff")), Timing(1.0), 10).endswith(
        "OVERFLOW in conv1/wg, conv2/ff"
    )
    assert "no better than guessing" in epoch_line(replace(METRICS, loss=2.31), Timing(1.0), 10)
    assert "none" in epoch_line(replace(METRICS, saturated=""), Timing(1.0), 10)
