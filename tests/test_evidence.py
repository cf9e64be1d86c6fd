"""The command that trains and records the runs of docs/results, on the embedded digits."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, str(Path(__file__).parents[1] / "benchmarks" / "evidence.py")]


def evidence(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, str(folder / "runs"), "--sets", "digits", "--epochs", "3", *options], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_interrupted_runs_go_on_and_are_recorded(tmp_path: Path) -> None:
    process = subprocess.Popen([*COMMAND, str(tmp_path / "runs"), "--sets", "digits", "--epochs", "3"])
    while not (tmp_path / "runs" / "digits-dense" / "checkpoints" / "epoch-0001.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.terminate()
    process.wait()
    done = evidence(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = evidence(tmp_path, "--dry-run").stdout.splitlines()
    assert [line.split()[:3] for line in shown] == [["3", "of", "3"]] * 3
    assert evidence(tmp_path, "--record", str(tmp_path / "record"), "--data-name", "digits").returncode == 0
    names = ["digits-dense", "digits-float", "digits-pruned-at-1"]
    texts = [(tmp_path / "record" / f"{name}.json").read_text() for name in names]
    assert not any(str(tmp_path) in text for text in texts)
    records = [json.loads(text) for text in texts]
    assert "--from-run digits-dense@epoch-0001" in records[2]["command"]
    assert [[epoch["epoch"] for epoch in record["epochs"]] for record in records] == [[1, 2, 3]] * 3
    assert [record["epochs"][-1]["weights_kept"] < 0.5 for record in records] == [False, False, True]
    assert records[0]["epochs"][0]["loss"] == records[2]["epochs"][0]["loss"]
    assert (tmp_path / "record" / "digits.png").stat().st_size > 1000


def test_unknown_sets_are_named(tmp_path: Path) -> None:
    wrong = evidence(tmp_path, "--sets", "mian", "--dry-run")
    assert wrong.returncode == 1
    assert "no set of runs is called mian: choose from main, prune, stored, resnet, digits" in wrong.stderr
