"""Resuming a run: to the same bits, from a good checkpoint, or not at all."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fixgrad.errors import DataError, UsageError
from fixgrad.network import Recipe
from fixgrad.numbers import Rounding
from fixgrad.train.plan import Plan
from fixgrad.train.request import RunRequest
from fixgrad.train.run import TrainingRun

Train = Callable[..., TrainingRun]
Bytes = Callable[[Path], dict[str, bytes]]
NAMES = ["epoch-0000.safetensors", "epoch-0001.safetensors", "epoch-0002.safetensors", "epoch-0003.safetensors"]


def path_of(out: Path, epoch: int) -> Path:
    return out / "checkpoints" / NAMES[epoch]


def lines(out: Path) -> list[dict[str, object]]:
    """The metrics without times."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "step_seconds", "machine")} for line in found]


def test_two_runs_of_one_request_write_the_same_bytes(
    finished: Path, small: RunRequest, tmp_path: Path, train: Train, checkpoints: Bytes
) -> None:
    train(small, tmp_path / "again")
    assert list(checkpoints(finished)) == NAMES
    assert checkpoints(tmp_path / "again") == checkpoints(finished)
    assert lines(tmp_path / "again") == lines(finished)


def test_another_seed_trains_to_other_bits(
    finished: Path, small: RunRequest, tmp_path: Path, train: Train, checkpoints: Bytes
) -> None:
    train(replace(small, seed=4, epochs=2), tmp_path / "other")
    assert checkpoints(tmp_path / "other")[NAMES[0]] != checkpoints(finished)[NAMES[0]]


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_resumed_run_ends_with_the_same_bytes(
    finished: Path, small: RunRequest, tmp_path: Path, train: Train, resume: Train, checkpoints: Bytes, epochs: int
) -> None:
    out = tmp_path / "run"
    train(small, out, epochs)
    assert list(checkpoints(out)) == NAMES[: epochs + 1]
    resume(out)
    assert checkpoints(out) == checkpoints(finished)
    assert lines(out) == lines(finished)


def test_stochastic_updates_and_narrow_weights_resume_to_the_same_bytes(
    small: RunRequest, tmp_path: Path, train: Train, resume: Train, checkpoints: Bytes
) -> None:
    request = replace(small, epochs=2, stored_bits=16, update_rounding=Rounding.STOCHASTIC)
    train(request, tmp_path / "whole")
    train(request, tmp_path / "parts", 1)
    resume(tmp_path / "parts")
    assert checkpoints(tmp_path / "parts") == checkpoints(tmp_path / "whole")


def test_the_float_baseline_resumes_to_the_same_bytes(
    small_float: RunRequest, tmp_path: Path, train: Train, resume: Train, checkpoints: Bytes
) -> None:
    train(small_float, tmp_path / "whole")
    train(small_float, tmp_path / "parts", 1)
    resume(tmp_path / "parts")
    assert checkpoints(tmp_path / "parts") == checkpoints(tmp_path / "whole")


def test_pruned_float_resumes_to_the_same_bytes(
    small_float: RunRequest, tmp_path: Path, train: Train, resume: Train, checkpoints: Bytes
) -> None:
    request = replace(small_float, density="0.4", prune_epoch=1)
    train(request, tmp_path / "whole")
    train(request, tmp_path / "parts", 2)
    resume(tmp_path / "parts")
    assert checkpoints(tmp_path / "parts") == checkpoints(tmp_path / "whole")


def test_a_run_ended_before_its_first_checkpoint_starts_again(
    finished: Path, small: RunRequest, tmp_path: Path, train: Train, resume: Train, checkpoints: Bytes
) -> None:
    out = tmp_path / "run"
    train(small, out, 1)
    for path in (out / "checkpoints").iterdir():
        path.unlink()
    resume(out)
    assert checkpoints(out) == checkpoints(finished)


def test_leftovers_of_a_kill_do_no_harm(
    finished: Path, small: RunRequest, tmp_path: Path, train: Train, resume: Train, checkpoints: Bytes
) -> None:
    out = tmp_path / "run"
    train(small, out, 1)
    (out / "checkpoints" / "epoch-0002.safetensors.tmp").write_bytes(b"half")
    with open(out / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"epoch": 2, "loss": 0.5}) + "\n" + '{"epoch": 3, "lo')
    resume(out)
    assert checkpoints(out) == checkpoints(finished)
    assert lines(out) == lines(finished)
    assert not list((out / "checkpoints").glob("*.tmp"))


def test_a_run_from_an_earlier_checkpoint_repeats_the_later_ones(finished: Path, resume: Train, checkpoints: Bytes) -> None:
    before = checkpoints(finished)
    run = resume(finished, "epoch-0001")
    assert [metrics.epoch for metrics in run.history] == [1, 2, 3]
    assert checkpoints(finished) == before
    assert (finished / "checkpoints" / f"{NAMES[3]}.discarded").read_bytes() == before[NAMES[3]]


@pytest.mark.parametrize("name", ["epoch-0002", "epoch-0002.safetensors", "2", "checkpoints/epoch-0002.safetensors"])
def test_a_checkpoint_may_be_named_in_any_sensible_way(finished: Path, name: str) -> None:
    run = TrainingRun.resume(finished, name)
    run.close()
    assert len(run.history) == 2


@pytest.mark.parametrize("name", ["epoch-0009", "9", "newest", "epoch-2"])
def test_a_checkpoint_that_is_not_there_is_refused(finished: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"no checkpoint '{name}': it has 4, epoch-0000 to epoch-0003"):
        TrainingRun.resume(finished, name)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_named(finished: Path, resume: Train, checkpoints: Bytes) -> None:
    before = checkpoints(finished)
    damaged = bytearray(before[NAMES[3]])
    damaged[-1] ^= 1
    path_of(finished, 3).write_bytes(damaged)
    advice = f"`fixgrad train --resume {finished} --from epoch-0002`"
    with pytest.raises(DataError) as refused:
        TrainingRun.resume(finished)
    message = str(refused.value)
    assert message.startswith(f"{path_of(finished, 3)} was altered")
    assert message.endswith(f"the newest good checkpoint before it is epoch-0002: continue from it with {advice}")
    resume(finished, "epoch-0002")
    assert checkpoints(finished) == before


def test_the_newest_good_one_is_named_past_others_that_are_damaged(finished: Path) -> None:
    for epoch in (3, 2):
        content = path_of(finished, epoch).read_bytes()
        path_of(finished, epoch).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"epoch-0003\.safetensors is damaged.* is epoch-0001: .*--from epoch-0001`"):
        TrainingRun.resume(finished)


def test_where_no_checkpoint_is_good_the_error_says_so(finished: Path) -> None:
    for epoch in range(4):
        path_of(finished, epoch).write_bytes(b"")
    with pytest.raises(DataError, match="no good checkpoint is left before it"):
        TrainingRun.resume(finished)


def test_a_checkpoint_of_another_run_is_refused(finished: Path, small: RunRequest, tmp_path: Path, train: Train) -> None:
    train(replace(small, learning_rate=0.005), tmp_path / "other", 1)
    path_of(finished, 3).write_bytes(path_of(tmp_path / "other", 1).read_bytes())
    with pytest.raises(UsageError, match=r"epoch-0001|is not of this run: its recipe differs"):
        TrainingRun.resume(finished)


def test_other_data_are_refused(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixgrad.train.run.data_fingerprint", lambda data: "0" * 32)
    with pytest.raises(DataError, match=r"are not those that .* was begun with"):
        TrainingRun.resume(finished, "epoch-0001")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config_version": 2, "request": {}, "plan": {}}'])
def test_a_damaged_config_is_refused(finished: Path, text: str) -> None:
    (finished / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json"):
        TrainingRun.resume(finished)


def test_only_one_process_trains_a_run(small: RunRequest, tmp_path: Path) -> None:
    run = TrainingRun.begin(small, tmp_path / "run")
    with pytest.raises(UsageError, match="is being trained by another process"):
        TrainingRun.resume(tmp_path / "run")
    run.close()
    TrainingRun.resume(tmp_path / "run").close()


def test_an_existing_folder_is_refused(finished: Path, small: RunRequest, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"already exists: continue it with `fixgrad train --resume {finished}`"):
        TrainingRun.begin(small, finished)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="already exists: choose another --out"):
        TrainingRun.begin(small, tmp_path / "file")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        TrainingRun.resume(tmp_path)


def test_keep_leaves_the_newest(small: RunRequest, tmp_path: Path, checkpoints: Bytes) -> None:
    run = TrainingRun.begin(small, tmp_path / "run")
    for _ in run.train(keep=2):
        pass
    run.close()
    assert list(checkpoints(tmp_path / "run")) == NAMES[2:]


def test_a_plan_survives_json(small: RunRequest, finished: Path) -> None:
    config = json.loads((finished / "config.json").read_text())
    plan = Plan.from_dict(config["plan"])
    assert json.loads(json.dumps(plan.to_dict())) == config["plan"]
    assert plan.densities == dict.fromkeys(("conv1", "conv2", "conv3", "dense4", "dense5"), 0.4)
    assert isinstance(plan.recipe, Recipe)
    assert RunRequest.from_dict(config["request"]) == small


@pytest.mark.parametrize("attempt", range(2))
def test_a_killed_run_resumes_to_the_same_bytes(
    finished: Path, tmp_path: Path, resume: Train, checkpoints: Bytes, attempt: int
) -> None:
    """kill -9 at a random moment after the run has begun, then resume, in whatever state the folder is left."""
    out = tmp_path / "killed"
    code = (
        "import sys, torch; torch.set_num_threads(1); from pathlib import Path; from fixgrad.train.run import TrainingRun;"
        "from fixgrad.train.request import RunRequest;"
        "run = TrainingRun.begin(RunRequest(model='digits', data='digits', epochs=3, batch=240, density='0.4',"
        " prune_epoch=1, seed=3), Path(sys.argv[1]));\n"
        "for _ in run.train(): pass"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(out)], start_new_session=True)
    deadline = time.monotonic() + 300  # a machine may be very busy
    while not (out / "config.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.Random(f"{os.getpid()}-{attempt}").uniform(0, 1.0))
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    resume(out)
    assert checkpoints(out) == checkpoints(finished)
    assert lines(out) == lines(finished)
