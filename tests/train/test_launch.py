"""The process that starts workers ends with the exit code of the one that failed by itself."""

import subprocess
import sys

import pytest

from fixgrad.train import launch


def ending(code: int, seconds: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep({seconds}); os._exit({code})"])


@pytest.mark.parametrize(("codes", "expected"), [((0, 0), 0), ((1, 2), 2), ((2, 1), 2), ((1, 1), 1), ((1, 0), 1)])
def test_the_code_is_that_of_the_failure_whoever_ends_first(codes: tuple[int, int], expected: int) -> None:
    workers = [ending(codes[0], 0.0), ending(codes[1], 0.3)]
    assert launch._watch(workers) == (expected, "")


def test_a_signal_is_told_at_once() -> None:
    workers = [ending(0, 60.0), ending(0, 60.0)]
    workers[1].kill()
    assert launch._watch(workers) == (137, "worker 1 of 2 was ended by SIGKILL")
    workers[0].kill()
    workers[0].wait()


def test_a_follower_that_nobody_explains_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.2)
    workers = [ending(1, 0.0), ending(0, 60.0)]
    assert launch._watch(workers) == (1, "")
    workers[1].kill()
    workers[1].wait()
