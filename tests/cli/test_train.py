"""`fixgrad train`: exit codes, messages, and a small run from its beginning to its report."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest

from fixgrad.cli import train
from fixgrad.cli.app import load_command, main
from fixgrad.network import Optimiser, Schedule
from fixgrad.numbers import Rounding
from fixgrad.train.run import TrainingRun

SMALL = ("train", "--model", "digits", "--data", "digits", "--batch", 240, "--no-tensorboard", "--threads", 1)

MODEL = """
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10))

def normalised():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 10))

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))

def nothing():
    pass

def broken():
    raise RuntimeError("no such layer")
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file with models of the user's own."""
    path = tmp_path / "models.py"
    path.write_text(MODEL, encoding="utf-8")
    return path


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and message of a command that fails: one line on stderr, nothing else."""
    code = main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    assert shown.err.startswith("error: ")
    return code, shown.err.removeprefix("error: ").rstrip()


def succeed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that succeeds prints."""
    assert main([str(argument) for argument in arguments]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def test_choices_are_those_of_the_arithmetic() -> None:
    assert get_args(train.OptimizerName) == tuple(str(name) for name in Optimiser)
    assert get_args(train.ScheduleName) == tuple(str(name) for name in Schedule)
    assert get_args(train.RoundingName) == tuple(str(name) for name in Rounding)


@pytest.mark.parametrize("name", ["demo", "train", "report"])
def test_every_option_is_explained(capsys: pytest.CaptureFixture[str], name: str) -> None:
    for parameter in load_command(name).params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith((".", ")", "...")), parameter.help
    assert "Usage: fixgrad " + name in succeed(capsys, name, "--help")


WRONG_USE: list[tuple[Sequence[object], str]] = [
    (("--model", "digits"), "--data, --out missing: a new run needs --model, --data and --out"),
    (("--model", "vgg-11", "--data", "digits", "--out", "OUT"), "model 'vgg-11' is unknown: did you mean vgg11? choose"),
    (("--model", "digits", "--data", "digit", "--out", "OUT"), "no data set is called 'digit' (did you mean digits?)"),
    (
        ("--model", "vgg11", "--data", "digits", "--out", "OUT"),
        "model vgg11 reads images [3, 32, 32], but digits has [1, 8, 8]",
    ),
    (("--model", "vgg11", "--data", "cifar10", "--out", "OUT"), "cifar10 needs --data-dir: "),
    (("--model", "digits", "--data", "digits", "--data-dir", ".", "--out", "OUT"), "digits has no use for --data-dir"),
    (
        ("--model", "digits", "--data", "digits", "--prune-epoch", 1, "--out", "OUT"),
        "--prune-epoch says when to prune, but not",
    ),
    (("--model", "digits", "--data", "digits", "--density", "0", "--out", "OUT"), "density 0.0 is not a number"),
    (("--model", "digits", "--data", "digits", "--density", "talk", "--out", "OUT"), "density 'talk' is for the 11 layers"),
    (
        ("--model", "digits", "--data", "digits", "--density", ".5", "--prune-epoch", 9, "--epochs", 9, "--out", "OUT"),
        "prune epoch is 9, but the run has 9 epochs: choose 0 to 8",
    ),
    (("--model", "digits", "--data", "digits", "--epochs", 0, "--out", "OUT"), "epochs is 0: choose 1 to 9999"),
    (("--model", "digits", "--data", "digits", "--batch", 5000, "--out", "OUT"), "batch size is 5000, but digits has 1437"),
    (("--model", "digits", "--data", "digits", "--lr", -1, "--out", "OUT"), "learning_rate is -1.0: choose a number from 0"),
    (("--model", "digits", "--data", "digits", "--stored-bits", 8, "--out", "OUT"), "stored_bits is 8: choose 16, 24 or 32"),
    (("--model", "digits", "--data", "digits", "--schedule", "cosine", "--out", "OUT"), "'cosine' is not one of"),
    (("--model", "digits", "--data", "digits", "--machine", "kcu150", "--out", "OUT"), "kcu1500"),
    (("--model", "nothing.py:model", "--data", "digits", "--out", "OUT"), "there is no file nothing.py"),
    (("--model", "digits", "--data", "digits", "--optimizer", "lion", "--out", "OUT"), "'lion' is not one of"),
    (("--model", "digits", "--data", "digits", "--beta2", 0.9, "--out", "OUT"), "the optimiser is sgd: add --optimizer adam"),
    (
        ("--model", "digits", "--data", "digits", "--optimizer", "adam", "--beta2", 1, "--out", "OUT"),
        "beta2 is 1.0: choose a number from 0 to below 1",
    ),
    (("--from", "epoch-0002"), "--from names a checkpoint to resume from: give --resume RUN too"),
    (("--resume", "OUT"), "holds no run (config.json is missing)"),
    (("--resume", "OUT", "--lr", 1), "--lr cannot be given with --resume: the run goes on with the settings in"),
    (("--resume", "OUT", "--float"), "--float cannot be given with --resume"),
    (("--model", "digits", "--data", "digits", "--bf16", "--out", "OUT"), "--bf16 is about the float baseline: give --float too"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_USE)
def test_wrong_use_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: Sequence[object], message: str
) -> None:
    out = tmp_path / "run"
    code, shown = failure(capsys, "train", *(out if argument == "OUT" else argument for argument in arguments))
    assert code == 2
    assert message in shown
    assert not out.exists()


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        ("normalised", 2, "1: GroupNorm: use BatchNorm2d"),
        ("normalised", 2, "; 2: Sigmoid: use ReLU or ReLU6"),
        ("narrow", 2, "model narrow gives 9 logits, but digits has 10 classes: make its last layer 10 wide"),
        ("nothing", 2, "returned a NoneType: it must return a torch.nn.Module"),
        ("broken", 1, "line 18: broken() failed: RuntimeError: no such layer"),
        ("missing", 2, "has no function 'missing'"),
    ],
)
def test_models_of_the_users_own_are_refused_with_a_reason(
    capsys: pytest.CaptureFixture[str], own: Path, tmp_path: Path, function: str, code: int, message: str
) -> None:
    out = tmp_path / "run"
    found, shown = failure(capsys, "train", "--model", f"{own}:{function}", "--data", "digits", "--out", out)
    assert found == code
    assert message in shown
    assert not out.exists()


def test_a_run_of_a_model_of_the_users_own(capsys: pytest.CaptureFixture[str], own: Path, tmp_path: Path) -> None:
    import numpy as np
    import torch

    from fixgrad.train.checkpoint import read_checkpoint

    out = tmp_path / "run"
    arguments = ("train", "--model", f"{own}:small", "--data", "digits", "--epochs", 1, "--seed", 4, "--no-tensorboard")
    succeed(capsys, *arguments, "--out", out)
    first = read_checkpoint(out / "checkpoints" / "epoch-0000.safetensors")
    torch.manual_seed(4)
    weight = torch.nn.Conv2d(1, 4, 3, padding=1).weight.detach().numpy()
    formats = first.state.values["parameters"]["0.weight"]
    stored = np.ldexp(first.state.arrays["stored/0.weight"], -formats["stored_frac"])
    assert np.abs(stored - weight).max() <= 2.0 ** -(formats["stored_frac"] + 1)
    succeed(capsys, *arguments, "--out", tmp_path / "again")
    last = "checkpoints/epoch-0001.safetensors"
    assert (out / last).read_bytes() == (tmp_path / "again" / last).read_bytes()
    request = json.loads((out / "config.json").read_text())["request"]
    assert request["model"] == f"{own.resolve()}:small"


def test_from_run_to_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    sparse = ("--density", "0.4", "--prune-epoch", 1, "--epochs", 3)
    shown = succeed(capsys, *SMALL, *sparse, "--out", out)
    heading, *rows = shown.splitlines()
    assert heading.split()[:5] == ["epoch", "loss", "train", "%", "test"]
    assert heading.endswith("step on kcu1500")
    assert "at least" not in shown
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert [row.split()[4] for row in rows] == ["100.0", "40.0", "40.0"]
    assert {path.name for path in out.iterdir()} == {"config.json", "metrics.jsonl", "checkpoints", "lock"}
    config = json.loads((out / "config.json").read_text())
    assert config["command"][0] == "fixgrad"
    assert config["plan"]["recipe"]["warmup_steps"] == 3  # a quarter of 15 steps
    assert set(config["environment"]) >= {"commit", "fixgrad", "packages", "processor", "python"}

    code, message = failure(capsys, *SMALL, "--out", out)
    assert code == 2
    assert message == f"{out} already exists: continue it with `fixgrad train --resume {out}`, or choose another --out"
    assert f"{out} is complete: 3 epochs" in succeed(capsys, "train", "--resume", out)

    succeed(capsys, *SMALL, "--float", "--epochs", 3, "--out", tmp_path / "run-float")
    shown = succeed(capsys, "report", out, "--json")
    report = json.loads(shown)
    assert report == json.loads((out / "report.json").read_text())
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert report["accuracy"]["test"] == metrics[-1]["test_accuracy"]
    assert report["accuracy"]["float"]["run"] == str(tmp_path / "run-float")
    assert report["accuracy"]["float"]["differences"] == []
    assert report["step_cost"]["total"]["us"] * 1e-6 == pytest.approx(metrics[-1]["step_seconds"])
    assert [line["step_kind"] for line in metrics] == ["simulated"] * 3
    assert report["step_cost"]["kind"] == report["dense_step_cost"]["kind"] == "simulated"
    assert metrics[0]["step_seconds"] > metrics[1]["step_seconds"] == metrics[2]["step_seconds"]
    tables = succeed(capsys, "report", out)
    for part in ("float training", "accuracy lost", "conv3", "step", "kcu1500"):
        assert part in tables


def test_a_run_by_adam_says_that_its_step_is_not_simulated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--optimizer", "adamw", "--beta2", 0.99, "--eps", 1e-6, "--density", 0.4, "--epochs", 2, "--prune-epoch", 1)
    shown = succeed(capsys, *SMALL, *options, "--out", out).splitlines()
    assert shown[2] == (
        "the step on kcu1500 is a bound, not simulated: digits (update) needs 2 moments of a weight for adamw, available are 1: "
        "momentum SGD (--optimizer sgd)"
    )
    assert " at least" in shown[1]
    assert " at least" in shown[3]
    recipe = json.loads((out / "config.json").read_text())["plan"]["recipe"]
    assert (recipe["optimiser"], recipe["beta2"], recipe["epsilon"]) == ("adamw", 0.99, 1e-6)
    assert (recipe["learning_rate"], recipe["weight_decay"]) == (0.001, 0.01)
    for command in (("report", out), ("inspect", out)):
        assert "digits" in succeed(capsys, *command)
    assert main(["check", str(out)]) == 1
    assert "digits (update): 2 moments of a weight for adamw needed, 1 available" in capsys.readouterr().out
    assert main(["simulate", str(out)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_json_is_one_object_an_epoch(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shown = succeed(capsys, *SMALL, "--epochs", 2, "--json", "--out", tmp_path / "run")
    epochs = [json.loads(line) for line in shown.splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert {"loss", "test_accuracy", "macs_kept", "seconds", "step_seconds", "step_kind", "machine"} <= set(epochs[0])


def test_tensorboard_has_the_scalars(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    arguments = [argument for argument in SMALL if argument != "--no-tensorboard"]
    succeed(capsys, *arguments, "--epochs", 2, "--density", ".5", "--prune-epoch", 1, "--out", out)
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss/step", "loss/epoch", "learning_rate", "accuracy/train", "accuracy/test", "kept/weights", "kept/macs"} <= tags
    assert {"density/conv2", "saturation/activation/conv1", "saturation/error/dense5", "exponent/activation/conv1"} <= tags
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    accuracy = events.Scalars("accuracy/test")
    assert [scalar.step for scalar in accuracy] == [5, 10]
    assert [scalar.value for scalar in accuracy] == pytest.approx([epoch["test_accuracy"] for epoch in metrics])
    assert [round(scalar.value, 2) for scalar in events.Scalars("density/conv2")] == [1.0, 0.5]


def test_a_damaged_checkpoint_is_a_failure_with_the_command_that_helps(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    succeed(capsys, *SMALL, "--epochs", 2, "--out", out)
    newest = out / "checkpoints" / "epoch-0002.safetensors"
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-1])
    code, message = failure(capsys, "train", "--resume", out)
    assert code == 1
    assert message.startswith(f"{newest} is damaged")
    assert f"`fixgrad train --resume {out} --from epoch-0001`" in message
    shown = succeed(capsys, "train", "--resume", out, "--from", "epoch-0001", "--no-tensorboard")
    assert [row.split()[0] for row in shown.splitlines()[1:]] == ["2"]
    assert newest.read_bytes() == whole


def test_divergence_is_a_failure_that_says_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = (*SMALL, "--epochs", 3, "--lr", 1000, "--warmup", 0, "--out", tmp_path / "run")
    assert main([str(argument) for argument in arguments]) == 1
    assert "training diverged" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on_and_leaves_a_run_that_does(tmp_path: Path) -> None:
    out = tmp_path / "run"
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"  # a shell may have it ignored
        "from fixgrad.cli.app import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [str(argument) for argument in (*SMALL, "--epochs", 500, "--out", out)]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while not (out / "checkpoints" / "epoch-0001.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=100)
    assert process.returncode == 130
    assert shown == f"continue with `fixgrad train --resume {out}`\ninterrupted\n"
    run = TrainingRun.resume(out)
    run.close()
    assert not run.is_complete
    assert len(run.history) >= 1


def test_the_process_ends_with_the_exit_code(fixgrad, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    refused = fixgrad("train", "--model", "digitz", "--data", "digits", "--out", tmp_path / "run")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "error: model 'digitz' is unknown: did you mean digits? choose vgg11, vgg16, digits, resnet20, resnet18, mobilenetv2, "
        "or FILE.py:FUNCTION of your own\n"
    )
    done = fixgrad(*SMALL, "--epochs", 1, "--out", tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert fixgrad("report", tmp_path / "nothing").returncode == 2


def test_a_network_with_shortcuts_has_a_time_on_a_machine_with_an_elementwise_unit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """On others no time is shown, and a line says why; other commands refuse it in one line."""
    file = tmp_path / "shortcut.py"
    file.write_text(RESIDUAL)
    out, other = tmp_path / "run", tmp_path / "other"
    arguments = ("train", "--model", f"{file}:small", "--data", "digits", "--epochs", "1", "--batch", "240")
    assert main([*arguments, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    missing = "1 elementwise unit (batchnorm; 3 more layers need it too)"
    assert f"no time of a step on kcu1500: norm1 (ff) needs {missing}, available are 0" in shown
    assert "  step on kcu1500" not in shown
    assert main(["check", str(out)]) == 1
    assert f"norm1 (ff): {missing} needed, 0 available" in capsys.readouterr().out
    code, shown = failure(capsys, "simulate", out)
    assert code == 1
    assert missing in shown
    assert main([*arguments, "--machine", "kcu1500-graph", "--out", str(other)]) == 0
    shown = capsys.readouterr().out
    assert "  step on kcu1500-graph\n" in shown
    assert re.search(r"[0-9.]+ m?s +[0-9.,]+ [mu]s", shown.splitlines()[-1])
    assert main(["check", str(other), "--machine", "kcu1500-graph"]) == 0
    assert main(["simulate", str(other), "--machine", "kcu1500-graph"]) == 0
    assert "norm1" in capsys.readouterr().out


RESIDUAL = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)) + x)
        return self.last(x.mean((2, 3)))


def small():
    return Small()
"""
