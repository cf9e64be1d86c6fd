"""`fixgrad check`: fits or does not, why, and what would help."""

import json

import pytest

from fixgrad.cli.app import main


def test_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--model", "vgg11", "--machine", "kcu1500", "--density", "talk"]) == 0
    assert capsys.readouterr().out == "vgg11, batch 32, on kcu1500: fits\n"
    assert main(["check", "--model", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"fits": True, "machine": "kcu1500", "reasons": []}


def test_what_does_not_fit_says_how_much_is_missing_and_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "--model", "vgg11", "--machine", "tiny"]
    assert main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert lines[0] == "vgg11, batch 32, on tiny: does not fit, for 1 reason"
    assert "67,108,864 available" in lines[1]
    assert lines[2].startswith("    would help: ")
    assert main([*arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["fits"]
    (reason,) = found["reasons"]
    assert reason["layer"] == "vgg11"
    assert reason["phase"] == "memory"
    assert reason["needed"] > reason["available"] == 67_108_864
    assert reason["remedies"]
    assert f"{reason['needed']:,}" in reason["message"]


def test_a_forward_pass_needs_less(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "--model", "vgg11", "--machine", "tiny", "--batch", "4"]
    assert main([*arguments, "--forward"]) == 0
    assert main(arguments) == 1


def test_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 2
    assert "name the folder of a run, or a network with --model" in capsys.readouterr().err
