"""The load that others put on the machine."""

import time

import pytest

from fixgrad.train.bench import other_load

STAT = "cpu  100 20 30 5000 600 7 8 9 50 60\ncpu0 1 2 3 4 5 6 7 8 9 10\n"


def test_waiting_and_guests_are_not_work() -> None:
    """Guests' time is in that of users already (proc(5))."""
    assert other_load.busy_seconds(STAT, 100) == (100 + 20 + 30 + 7 + 8 + 9) / 100


def test_own_work_is_none_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [other_load._Reading(10.0, 500.0, 3.0), other_load._Reading(14.0, 507.0, 5.0)]
    monkeypatch.setattr(other_load, "_reading", lambda: readings.pop(0))
    assert other_load.OtherLoad().cores() == (7 - 2) / 4


def test_where_the_system_tells_nothing_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_load, "_reading", lambda: None)
    assert other_load.OtherLoad().cores() is None


def test_this_machine_has_some_load_or_none() -> None:
    load = other_load.OtherLoad()
    time.sleep(0.05)
    cores = load.cores()
    assert cores is None or cores >= 0
