"""`fixgrad cost`: the table, the JSON, and wrong use."""

import json
from pathlib import Path

import pytest

from fixgrad.cli.app import main

TALK = ["cost", "--model", "vgg11", "--density", "talk", "--batch", "32", "--machine", "kcu1500"]


def test_json_has_the_keys_of_a_cost_and_the_talk_beside(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TALK, "--count-padding", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["peak_gops"] == 512
    assert found["total"]["gops"] == pytest.approx(1_106, rel=2e-3)
    assert found["phases"].keys() == {"ff", "ng", "wg"}
    rows = {(row["name"], row["phase"]): row for row in found["layers"]}
    theirs = {(row["name"], row["phase"]): row for row in found["talk"]["layers"]}
    for name in ("conv2", "conv3_1", "conv3_2", "conv4_1", "conv4_2"):
        for phase in ("ff", "ng"):
            assert abs(rows[name, phase]["us"] / theirs[name, phase]["us"] - 1) < 0.05
    assert found["talk"]["total"] == {"us": 45_912.0, "gops": 641.1}
    assert len(found["talk"]["slips"]) == 4


def test_the_talk_stands_beside_its_own_case_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, beside in (([], True), (["--batch", "64"], False)):
        assert main([*TALK, *arguments]) == 0
        shown = capsys.readouterr().out
        assert ("talk us" in shown) == ("10,988" in shown) == beside
        assert all(line.strip() and "…" not in line for line in shown.splitlines())


def test_a_module_and_a_machine_of_the_users_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, machine = tmp_path / "mine.py", tmp_path / "mine.json"
    model.write_text(
        "from torch import nn\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))\n"
    )
    assert main(["machine", "new", str(machine), "--from", "tiny", "--set", "groups=4"]) == 0
    arguments = ["cost", "--model", f"{model}:net", "--density", "0.5", "--machine", str(machine), "--json", "--batch", "4"]
    capsys.readouterr()
    assert main([*arguments, "--input-shape", "1x6x6"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"] == "mine"
    assert found["peak_gops"] == 2 * 4 * 2 * 4 * 0.1
    rows = {(row["name"], row["phase"]): row["macs"] for row in found["layers"]}
    assert sorted(rows.values()) == [4 * 4 * 6 * 6 * 3 // 2] * 3 + [4 * 2 * 16 * 16] * 2  # (6 * 3 - 2)^2 meetings a kernel
    assert main(arguments) == 2
    assert "needs --input-shape, such as 3x32x32" in capsys.readouterr().err
    other = tmp_path / "other.py"
    other.write_text("def net():\n    return 3\n")
    assert main(["cost", "--model", f"{other}:net", "--input-shape", "1x6x6"]) == 2
    assert "other.py:net returned a int: it must return a torch.nn.Module" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vg11"], "model 'vg11' is unknown: did you mean vgg11?"),
        (["--model", "vgg11", "--machine", "kcu1501"], "machine 'kcu1501' is unknown: did you mean kcu1500?"),
        (["--model", "vgg11", "--density", "1.5"], "density 1.5 is not a number with 0 < density <= 1"),
        (["--model", "digits", "--density", "talk"], "density 'talk' is for the 11 layers of the talk's VGG-11"),
        (["--model", "vgg11", "--input-shape", "3x32x32"], "--input-shape is for a FILE.py:FUNCTION"),
        (["--model", "a.py:b", "--input-shape", "3x32"], "--input-shape is '3x32': write channels, height and width"),
        (["--model", "vgg11", "--batch", "0"], "Invalid value for '--batch'"),
        ([], "Missing option '--model'"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
