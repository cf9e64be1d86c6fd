"""The digits network is trained in RTL: every tensor as in PyTorch, every byte of memory as in the functional simulator."""

import json

import pytest

from fixgrad.cli.app import main

DIGITS = ["verify", "--model", "digits", "--machine", "tiny", "--batch", "4", "--density", "0.25", "--json"]


def test_ten_steps_of_the_digits_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DIGITS, "--steps", "10", "--executors", "torch,functional,rtl"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["equal"]
    assert found["executors"] == ["torch", "functional", "rtl"]
    assert found["steps"] == 10
    assert found["compared"]["memory"] > 10 * 100_000
    assert found["compared"]["stored"] == found["compared"]["momentum"] == 2 * 10 * 10  # two executors, ten parameters


def test_a_step_with_a_hostile_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DIGITS, "--steps", "1", "--executors", "functional,rtl", "--hostile", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["equal"]
    assert found["compared"]["memory"] > 100_000


def test_a_batch_that_fills_its_last_lanes_partly(capsys: pytest.CaptureFixture[str]) -> None:
    """Six images on four lanes: two micro-batches, of which the second leaves two lanes empty."""
    small = [*DIGITS[:5], "--batch", "6", "--density", "0.1", "--seed", "3", "--json"]
    assert main([*small, "--steps", "1", "--executors", "reference,functional,rtl"]) == 0
    assert json.loads(capsys.readouterr().out)["equal"]


def test_the_timing_simulator_takes_as_long_as_the_rtl(capsys: pytest.CaptureFixture[str]) -> None:
    """The step within 2 %, and every layer and phase in which fixed latencies do not rule."""
    assert main([*DIGITS, "--steps", "1", "--executors", "functional,rtl", "--cycles"]) == 0
    found = json.loads(capsys.readouterr().out)
    *rows, step = found["cycles"]
    assert sum(row["device"] for row in rows) == step["device"] == found["step"]["rtl"]["cycles"]
    assert abs(step["simulated"] / step["device"] - 1) <= 0.02
    long = [row for row in rows if row["device"] > 10_000]
    convolutions = {(name, phase) for name in ("conv2", "conv3") for phase in ("ff", "ng", "wg")}
    assert {(row["layer"], row["phase"]) for row in long} == convolutions
    assert all(abs(row["simulated"] / row["device"] - 1) <= 0.02 for row in long)
