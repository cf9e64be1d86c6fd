"""The options of `fixgrad train` about pruning and forks: one-line errors, and a fork from the command line."""

import json
from pathlib import Path

import pytest

from fixgrad.cli.app import main

DENSE = ("train", "--model", "digits", "--data", "digits", "--batch", "240", "--epochs", "2", "--no-tensorboard", "--threads", "1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from-run", "runs/none"), "--out missing: --from-run begins a new run, in a folder of its own"),
        ((*DENSE[1:], "--out", "x", "--allocate", "global"), "--allocate says where to prune, but not how much: give --density"),
        ((*DENSE[1:], "--out", "x", "--density", "0.5", "--macs", "0.5"), "--density and --macs both say how much to keep"),
        ((*DENSE[1:], "--out", "x", "--density", "0.5", "--regrow-until", "2"), "--regrow-until says when to stop"),
        ((*DENSE[1:], "--out", "x", "--macs", "0.00001"), "a budget of 1e-05 of the MACs is too small for one kernel in each layer"),
        ((*DENSE[1:], "--out", "x", "--hold-out", "95"), "validation share is 95 %: choose 1 to 90"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {message}"), shown.err
    assert shown.err.count("\n") == 1


def test_a_fork_says_where_it_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DENSE, "--out", str(tmp_path / "dense")]) == 0
    capsys.readouterr()
    fork = ["train", "--from-run", f"{tmp_path / 'dense'}@epoch-0001", "--density", "0.4", "--allocate", "macs", "--threads", "1"]
    assert main([*fork, "--no-tensorboard", "--out", str(tmp_path / "fork")]) == 0
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith(f"from {tmp_path / 'dense'}, epoch-0001: the first 1 epochs are those of this very plan")
    assert len(lines) == 1
    config = json.loads((tmp_path / "fork" / "config.json").read_text())
    assert config["plan"]["pruning"]["budget"]["unit"] == "cycles/1024 on kcu1500, simulated"
    assert config["plan"]["prune_epoch"] == 1
