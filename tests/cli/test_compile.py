"""`fixgrad compile`: the program file, what is said about it, and the listing."""

import json
from pathlib import Path

import pytest

from fixgrad.cli.app import main
from fixgrad.machine import Machine, preset
from fixgrad.machine.encoding import decode_program, disassemble, explain_mismatch, identity

SMALL = ["compile", "--model", "digits", "--density", "0.5", "--machine", "tiny", "--batch", "4"]


def test_the_file_holds_the_instructions_and_says_what_they_are_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, listing = tmp_path / "step.bin", tmp_path / "step.txt"
    assert main([*SMALL, "--raw", str(path), "--listing", str(listing), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "step.bin.json").read_text()) == about
    instructions = decode_program(path.read_bytes())
    assert about["instructions"]["total"] == len(instructions) == about["program"]["bytes"] // 128
    for name in ("COMPUTE", "POST", "UPDATE", "HALT"):
        assert about["instructions"][name] == sum(item.name == name for item in instructions)
    tiny = preset("tiny")
    assert about["identity"] == identity(tiny)
    assert Machine.from_dict(about["machine"]) == tiny
    assert explain_mismatch(tiny, about["identity_record"]) == ""
    assert "groups: 8 here, 2 there" in explain_mismatch(preset("kcu1500"), about["identity_record"])
    lines = listing.read_text().splitlines()
    assert len(lines) == len(instructions)
    assert all(line.endswith(disassemble(item)) for line, item in zip(lines, instructions, strict=True))
    regions = {region["name"]: region for region in about["regions"]}
    assert regions["program"]["address"] == about["program"]["address"]
    assert about["memory_bytes"] == max(region["address"] + region["bytes"] for region in about["regions"])
    assert {(row["layer"], row["phase"]) for row in about["schedule"]} >= {("conv1", "ff"), ("conv2", "ng"), ("dense5", "wg")}


def test_a_program_file_is_simulated_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "step.program"
    assert main([*SMALL, "-o", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"written to {path}\n")
    assert main(["simulate", *SMALL[1:], "--json"]) == 0
    compiled = json.loads(capsys.readouterr().out)
    assert main(["simulate", str(path), "--machine", "tiny", "--json"]) == 0
    loaded = json.loads(capsys.readouterr().out)
    assert {**loaded, "seconds": None} == {**compiled, "seconds": None}


def test_a_program_file_keeps_to_its_machine_and_its_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "step.program"
    assert main([*SMALL, "-o", str(path)]) == 0
    capsys.readouterr()
    assert main(["simulate", str(path), "--machine", "kcu1500"]) == 1
    assert "groups: 8 here, 2 there" in capsys.readouterr().err
    assert main(["simulate", str(path), "--count-padding"]) == 2
    assert "--count-padding does not go with the program" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["simulate", str(path)]) == 1
    assert "compile it again" in capsys.readouterr().err


def test_the_table_shows_every_phase(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    shown = capsys.readouterr().out
    assert f"identity {identity(preset('tiny'))}" in shown
    assert shown.count(" FF ") == 5
    assert shown.count(" NG ") == 4
    assert shown.count(" WG ") == 5


def test_a_forward_program_updates_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--forward", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["mode"] == "forward"
    assert about["instructions"]["UPDATE"] == 0


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "--density", "0.5"]) == 2
    assert "--model" in capsys.readouterr().err
    assert main([*SMALL, "-o", str(tmp_path / "no" / "step.bin")]) == 1
    assert "No such file or directory" in capsys.readouterr().err
