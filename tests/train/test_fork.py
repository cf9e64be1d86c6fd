"""Runs that begin with another run's checkpoint: the bits of a fork, pruning again, new training, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixgrad.errors import UsageError
from fixgrad.train.fork import forked_request, split_spec
from fixgrad.train.plan import Arithmetic
from fixgrad.train.request import RunRequest
from fixgrad.train.run import TrainingRun
from fixgrad.train.run_folder import RunFolder

DENSE = RunRequest(model="digits", data="digits", epochs=4, batch=240, seed=3)
OPTIONS: dict[str, dict[str, Any]] = {
    "at once": {"density": "0.4"},
    "gradual and exchanged": {"density": "0.3", "prune_until": 3, "prune_every": 2, "regrow": 0.4, "regrow_until": 4},
    "by MACs": {"macs": 0.5},
}
Train = Callable[..., TrainingRun]
Bytes = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, train: Train) -> Path:
    out = tmp_path_factory.mktemp("dense") / "run"
    train(DENSE, out)
    return out


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_a_fork_has_the_bits_of_the_run_that_pruned_there_itself(
    dense: Path, tmp_path: Path, train: Train, checkpoints: Bytes, changes: dict[str, Any]
) -> None:
    train(replace(DENSE, prune_epoch=2, **changes), tmp_path / "whole")
    train(forked_request(f"{dense}@epoch-0002", changes), tmp_path / "fork")
    whole, fork = checkpoints(tmp_path / "whole"), checkpoints(tmp_path / "fork")
    assert list(fork) == [f"epoch-000{epoch}.safetensors" for epoch in (2, 3, 4)]
    assert all(whole[name] == content for name, content in fork.items())
    ours, theirs = ([line["loss"] for line in RunFolder(tmp_path / name).metrics()] for name in ("whole", "fork"))
    assert ours == theirs
    origin = json.loads((tmp_path / "fork" / "config.json").read_text())["origin"]
    assert (origin["run"], origin["checkpoint"], origin["epochs_taken_over"]) == (str(dense), "epoch-0002", 2)
    assert "those of this very plan" in origin["meaning"]


def test_a_fork_that_was_cut_off_goes_on_to_the_same_bits(
    dense: Path, tmp_path: Path, train: Train, resume: Train, checkpoints: Bytes
) -> None:
    request = forked_request(f"{dense}@epoch-0001", OPTIONS["gradual and exchanged"])
    train(request, tmp_path / "whole")
    train(request, tmp_path / "cut", 1)
    for name in ("epoch-0001", "epoch-0002"):
        resume(tmp_path / "cut", name)
        assert checkpoints(tmp_path / "cut") == checkpoints(tmp_path / "whole")
    for path in (tmp_path / "cut" / "checkpoints").iterdir():
        path.unlink()
    resume(tmp_path / "cut")  # as if it had ended before its first checkpoint
    assert checkpoints(tmp_path / "cut") == checkpoints(tmp_path / "whole")


def test_float_runs_fork_too(tmp_path: Path, train: Train, checkpoints: Bytes) -> None:
    request = replace(DENSE, arithmetic=Arithmetic.FLOAT, epochs=2)
    train(request, tmp_path / "dense")
    train(replace(request, density="0.4", prune_epoch=1), tmp_path / "whole")
    train(forked_request(f"{tmp_path / 'dense'}@epoch-0001", {"density": "0.4"}), tmp_path / "fork")
    assert checkpoints(tmp_path / "fork").items() <= checkpoints(tmp_path / "whole").items()


def test_a_pruned_run_is_pruned_again(dense: Path, tmp_path: Path, train: Train) -> None:
    first = train(forked_request(f"{dense}@epoch-0001", {"density": "0.5"}), tmp_path / "half", 2)
    second = train(forked_request(f"{tmp_path / 'half'}@epoch-0003", {"density": "0.2"}), tmp_path / "fifth")
    assert first.plan.origin is None
    assert second.plan.origin is not None
    assert [metrics.weights_kept for metrics in second.history] == pytest.approx([1, 0.5, 0.5, 0.2], abs=0.01)
    before, after = (RunFolder(tmp_path / name).load().state.arrays for name in ("half", "fifth"))
    for name in (name for name in after if name.startswith("mask/")):
        assert not (after[name] & ~before[name]).any()


def test_other_training_begins_anew_with_the_weights(dense: Path, tmp_path: Path, train: Train) -> None:
    request = forked_request(str(dense), {"epochs": 1, "learning_rate": 0.001})
    run = TrainingRun.begin(request, tmp_path / "new")
    run.close()
    saved, theirs = RunFolder(tmp_path / "new").load(), RunFolder(dense).load()
    assert (saved.epoch, saved.state.values["step"], saved.plan.origin is None) == (0, 0, False)
    assert all(np.array_equal(array, theirs.state.arrays[name]) for name, array in saved.state.arrays.items())
    meaning = json.loads((tmp_path / "new" / "config.json").read_text())["origin"]["meaning"]
    assert meaning == "begins anew with the weights, momenta, scales and masks of the checkpoint"


@pytest.mark.parametrize(
    ("checkpoint", "changes", "message"),
    [
        ("epoch-0004", {"density": "0.4"}, "is complete: all 4 epochs are done"),
        ("epoch-0002", {"density": "0.4", "prune_epoch": 1}, "prune epoch is 1, but .*epoch-0002 has 2 epochs behind it: choose 2 or"),
        ("epoch-0002", {"stored_bits": 16}, "has stored_bits 24, this run 16: a fork keeps the number formats"),
        ("epoch-0002", {"arithmetic": Arithmetic.FLOAT}, "was trained in fixed-point, this run trains in float"),
        ("epoch-0009", {}, "has no checkpoint 'epoch-0009'"),
    ],
)
def test_forks_that_make_no_sense_are_refused(
    dense: Path, tmp_path: Path, checkpoint: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        TrainingRun.begin(forked_request(f"{dense}@{checkpoint}", changes), tmp_path / "fork")
    assert not (tmp_path / "fork").exists()


def test_specs_name_a_folder_and_a_checkpoint() -> None:
    assert split_spec("runs/a@epoch-0008") == (Path("runs/a"), "epoch-0008")
    assert split_spec("runs/a") == (Path("runs/a"), None)
    assert split_spec("runs@home/a") == (Path("runs@home/a"), None)
