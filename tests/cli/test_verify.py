"""`fixgrad verify`: equal executors, different ones, and wrong use."""

import json
from typing import Any

import numpy as np
import pytest

from fixgrad.cli import verify
from fixgrad.cli.app import main
from fixgrad.simulate.functional import Subject

SMALL = ["verify", "--model", "digits", "--density", "0.5", "--machine", "tiny", "--batch", "5", "--steps", "2"]


def test_equal_executors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--executors", "torch,functional,reference", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["equal"]
    assert found["executors"] == ["torch", "functional", "reference"]
    assert found["steps"] == 2
    assert found["first_mismatch"] is None
    layers, pairs, steps = 5, 2, 2
    assert found["compared"]["gradient"] == 2 * layers * pairs * steps  # weights and biases
    assert found["compared"]["operand"] == layers * pairs * steps
    assert found["compared"].keys() == {"activation", "error", "gradient", "momentum", "stored", "operand", "statistic"}


def test_the_words_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--executors", "functional,reference"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "functional = reference: equal in every bit, 2 steps of digits, batch 5"
    assert "20 momenta" in second


def test_the_first_difference_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    subject_of = verify._subject

    def with_a_wrong_bit(name: str, *rest: Any) -> Subject:
        subject = subject_of(name, *rest)
        if name != "reference":
            return subject

        def step(x: Any, labels: Any) -> Any:
            trace = subject.step(x, labels)
            trace.activations["conv2"] = np.array(trace.activations["conv2"])
            trace.activations["conv2"][1, 2, 3, 4] ^= 1
            return trace

        return Subject("reference", step, subject.state)

    monkeypatch.setattr(verify, "_subject", with_a_wrong_bit)
    assert main([*SMALL, "--executors", "functional,reference"]) == 1
    shown = capsys.readouterr().out
    assert "functional and reference differ" in shown
    assert "step 0, conv2 ff: activation of conv2[1, 2, 3, 4]" in shown
    assert main([*SMALL, "--executors", "reference,functional", "--json"]) == 1
    mismatch = json.loads(capsys.readouterr().out)["first_mismatch"]
    assert (mismatch["layer"], mismatch["phase"], mismatch["index"]) == ("conv2", "ff", [1, 2, 3, 4])
    assert mismatch["expected"] != mismatch["got"]
    assert "POST" in mismatch["instruction"]


@pytest.mark.parametrize(
    ("executors", "message"),
    [
        ("torch", "name two or more different ones"),
        ("torch,torch", "name two or more different ones"),
        ("torch,verilog", "'verilog' is unknown: choose two or more of torch, functional, rtl, reference"),
    ],
)
def test_wrong_use(executors: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--model", "digits", "--executors", executors]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_step_of_the_talks_network_is_equal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--model", "vgg11", "--batch", "32", "--steps", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["equal"]
    assert found["compared"]["stored"] == 2 * 11 * 2
