"""The search for densities: what it returns holds, is minimal in its steps, comes out the same, and says how sure it is."""

import json
from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from fixgrad.cli.app import main
from fixgrad.errors import UsageError
from fixgrad.train.prune_search import LADDER, Difference, SearchResult, open_case, search
from fixgrad.train.request import RunRequest
from fixgrad.train.run import TrainingRun

REQUEST = RunRequest(model="digits", data="digits", epochs=4, batch=64, seed=3, validation=20)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("search") / "run"
    made = TrainingRun.begin(REQUEST, out)
    for _ in made.train():
        pass
    made.close()
    return out


@pytest.fixture(scope="module")
def found(run: Path) -> SearchResult:
    return search(open_case(run), max_loss=0.02)


def test_the_densities_found_hold_and_no_layer_can_go_further_down(run: Path, found: SearchResult) -> None:
    case = open_case(run)
    base = case.correct(case.trainer(dict.fromkeys(found.densities, 1.0)))
    assert base.mean() == found.accuracy

    def loss(densities: dict[str, float]) -> float:
        right = case.correct(case.trainer(densities))
        return float((base.sum() - right.sum()) / len(base))

    assert loss(dict(found.densities)) == found.difference.loss <= 0.02
    assert found.weights_kept < 0.9
    for name, density in found.densities.items():
        lower = [rung for rung in LADDER if rung < density]
        assert not lower or loss({**found.densities, name: lower[0]}) > 0.02, name


def test_the_held_out_images_are_of_the_training_set(run: Path) -> None:
    data = open_case(run).data
    assert data.validation is not None
    assert len(data.validation) == (len(data.train) + len(data.validation)) * 20 // 100
    images = {image.tobytes() for image in data.validation.images}
    assert not images & {image.tobytes() for image in data.train.images}


def test_a_search_is_repeatable_and_recovery_helps(run: Path) -> None:
    first, again = (search(open_case(run, "epoch-0002", recover=4), max_loss=0.01) for _ in range(2))
    assert first == again
    assert search(open_case(run, "epoch-0002"), max_loss=0.01, confident=True).weights_kept > first.weights_kept


def test_what_is_allowed_decides(run: Path, found: SearchResult) -> None:
    strict = search(open_case(run), max_loss=1e-6)
    assert strict.difference.loss <= 1e-6
    assert strict.macs_kept > found.macs_kept


@pytest.mark.parametrize(("lost", "gained"), [(10, 0), (30, 20), (5, 9)])
def test_the_bound_is_that_of_paired_shares(lost: int, gained: int) -> None:
    difference = Difference(500, lost, gained)
    pairs = np.concatenate([np.ones(lost), -np.ones(gained), np.zeros(500 - lost - gained)])
    assert difference.loss == pytest.approx(pairs.mean())
    assert difference.upper == pytest.approx(pairs.mean() + 1.645 * pairs.std() / sqrt(500))
    assert Difference(300, 0, 0).upper == 0.01


def test_the_command_writes_densities_that_train_takes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    arguments = ["prune-search", run, "--from", "epoch-0002", "--max-loss", 2, "--threads", 1, "--out", out]
    assert main([str(each) for each in arguments]) == 0
    shown = capsys.readouterr().out
    assert "with 95 % confidence" in shown
    densities = json.loads(out.read_text())
    arguments = ["train", "--from-run", f"{run}@epoch-0002", "--density", out, "--threads", 1, "--no-tensorboard", "--json"]
    assert main([*(str(each) for each in arguments), "--out", str(tmp_path / "sparse")]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["densities"] == pytest.approx(densities, abs=0.02)


def test_searches_that_make_no_sense_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--max-loss is 0 points: choose above 0"):
        search(open_case(run), max_loss=0)
    with pytest.raises(UsageError, match="5 steps to recover after 4 epochs: choose 0 to 0"):
        open_case(run, recover=5)
    TrainingRun.begin(replace(REQUEST, validation=None), tmp_path / "all").close()
    with pytest.raises(UsageError, match="has trained on all its training images, and the test set must stay unseen"):
        open_case(tmp_path / "all")
