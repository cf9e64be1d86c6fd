"""`fixgrad machine`: presets listed, shown, and changed into files of one's own."""

import json
from pathlib import Path

import pytest

from fixgrad.cli.app import main
from fixgrad.machine import PRESETS, Machine, identity, preset
from fixgrad.machine.files import load_machine


def test_every_preset_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["machine", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(PRESETS)
    assert main(["machine", "list", "--json"]) == 0
    assert [Machine.from_dict(values) for values in json.loads(capsys.readouterr().out)] == list(PRESETS.values())


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["machine", "show", name]) == 0
    assert identity(preset(name)) in capsys.readouterr().out
    assert main(["machine", "show", name, "--json"]) == 0
    assert Machine.from_dict(json.loads(capsys.readouterr().out)) == preset(name)


def test_new_changes_what_is_set_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.json"
    arguments = ["machine", "new", str(file), "--from", "tiny", "--set", "groups=4", "--set", "memory.channels=2"]
    assert main(arguments) == 0
    tiny = preset("tiny").to_dict()
    expected = {**tiny, "name": "mine", "groups": 4, "memory": {**tiny["memory"], "channels": 2}}
    assert load_machine(file).to_dict() == expected
    assert f"use it as --machine {file}" in capsys.readouterr().out
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {file} exists: choose another name, or --force to replace it\n"
    assert main([*arguments, "--set", "name=other", "--force"]) == 0
    assert load_machine(file).name == "other"


def test_registers_as_json_and_as_c(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["machine", "registers", "tiny"]) == 0
    assert json.loads(capsys.readouterr().out)["identity"] == identity(preset("tiny"))
    assert main(["machine", "registers", "tiny", "--c"]) == 0
    assert f"#define FIXGRAD_IDENTITY 0x{identity(preset('tiny'))}ull" in capsys.readouterr().out


def test_resources_are_shown_and_fail_where_they_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["machine", "resources", "kcu1500"]) == 0
    shown = capsys.readouterr().out
    assert "lane memory" in shown
    assert "951" in shown
    assert main(["machine", "resources", "kcu1500", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bram36"] == 951
    file = str(tmp_path / "large.json")
    assert main(["machine", "new", file, "--set", "lanes=64", "--set", "groups=64"]) == 0
    assert "Does not fit XCKU115: " in capsys.readouterr().out
    assert main(["machine", "resources", file]) == 2
    assert "error: machine large does not fit XCKU115: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["new", "mine"], 2, "mine does not end with .json"),
        (["new", "mine.json", "--set", "group=4"], 2, "'group' is no parameter of a machine: did you mean groups?"),
        (["new", "mine.json", "--set", "groups=0"], 2, "groups is 0: choose 1 to 64"),
        (["show", "none.json"], 1, "machine file none.json: No such file or directory"),
        (["show", "none"], 2, "machine 'none' is unknown: "),
    ],
)
def test_wrong_use(
    arguments: list[str],
    exit_code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["machine", *arguments]) == exit_code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
