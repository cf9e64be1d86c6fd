"""`fixgrad simulate`: JSON, tables, runs, timelines, and wrong use."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fixgrad.cli.app import main
from fixgrad.cli.step_case import compile_case

SMALL = ["simulate", "--model", "digits", "--density", "0.5", "--machine", "tiny", "--batch", "4"]
TALK = ["simulate", "--model", "vgg11", "--batch", "32", "--density", "talk", "--machine", "kcu1500"]


def json_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_all_keys(capsys: pytest.CaptureFixture[str]) -> None:
    found = json_of(SMALL, capsys)
    assert found["phases"].keys() == {"ff", "ng", "wg"}
    assert all(phase.keys() >= {"us", "gops"} for phase in found["phases"].values())
    assert found["total"]["us"] == pytest.approx(sum(phase["us"] for phase in found["phases"].values()))
    keys = {"name", "phase", "us", "gops", "bound", "utilisation", "dram_bytes", "dram_bytes_lower_bound"}
    assert all(row.keys() >= keys for row in found["layers"])
    assert [(row["name"], row["phase"]) for row in found["layers"]] == [
        *((name, "ff") for name in ("conv1", "conv2", "conv3", "dense4", "dense5")),
        *((name, "ng") for name in ("conv2", "conv3", "dense4", "dense5")),
        *((name, "wg") for name in ("conv1", "conv2", "conv3", "dense4", "dense5")),
    ]
    assert found["resources"].keys() >= {"dsp", "bram36"}
    assert found["seconds"].keys() == {"compile", "simulate"}
    assert all(value > 0 for value in found["seconds"].values())
    assert found["waterfall"][-1]["until_us"] == pytest.approx(found["total"]["us"])
    assert found["energy"] is None
    assert "talk" not in found


def test_a_forward_pass_alone(capsys: pytest.CaptureFixture[str]) -> None:
    found = json_of([*SMALL, "--forward"], capsys)
    assert found["mode"] == "forward"
    assert found["phases"].keys() == {"ff"}
    assert found["total"]["gops"] == pytest.approx(found["phases"]["ff"]["gops"])


def test_seed_density_and_padding_change_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    plain, other = json_of(SMALL, capsys), json_of([*SMALL, "--seed", "1"], capsys)
    assert plain["total"]["macs"] == other["total"]["macs"]
    assert plain["total"]["cycles"] != other["total"]["cycles"]
    assert json_of([*SMALL, "--count-padding"], capsys)["total"]["macs"] > plain["total"]["macs"]
    dense = json_of(["simulate", "--model", "digits", "--machine", "tiny", "--batch", "4"], capsys)
    assert dense["total"]["macs"] == pytest.approx(2 * plain["total"]["macs"], rel=0.01)


def test_the_tables_close(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--model", "digits", "--density", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert "digits on kcu1500" in shown
    assert "training step, simulated" in shown
    for word in ("conv1", "dense5", "step", "compute", "imbalance", "fill", "power, W", "GOP/s/W", "resources of XCKU115"):
        assert word in shown
    assert "talk us" not in shown
    assert "…" not in shown


def test_a_timeline_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.json"
    assert main([*SMALL, "--trace", str(path)]) == 0
    assert f"events written to {path}" in capsys.readouterr().out
    events = json.loads(path.read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "C"}


def test_a_run_brings_its_network_batch_and_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    training = ["--prune-epoch", "0", "--density", "0.25", "--no-tensorboard", "--threads", "1"]
    command = ["train", "--model", "digits", "--data", "digits", "--epochs", "1", "--batch", "240", *training]
    assert main([*command, "--out", str(run)]) == 0
    capsys.readouterr()
    found = json_of(["simulate", str(run), "--machine", "tiny"], capsys)
    assert found["network"] == "digits"
    assert found["batch"] == 240
    other = json_of(["simulate", "--model", "digits", "--density", "0.25", "--batch", "240", "--machine", "tiny"], capsys)
    assert found["total"]["macs"] == pytest.approx(other["total"]["macs"], rel=0.02)  # which kernels live differs, not how many
    assert json_of(["simulate", str(run), "--machine", "tiny", "--batch", "8"], capsys)["batch"] == 8
    assert main(["simulate", str(run), "--model", "digits"]) == 2
    assert "--model does not go with the run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate"], "nothing to simulate: name the folder of a run, or a network with --model"),
        (["simulate", "--model", "vgg12"], "model 'vgg12' is unknown: did you mean vgg1"),
        (["simulate", "--model", "digits", "--machine", "kcu"], "machine 'kcu'"),
        (["simulate", "--model", "digits", "--density", "2"], "density 2.0"),
        (["simulate", "--model", "digits", "--batch", "0"], "Invalid value for '--batch'"),
        (["simulate", "--model", "digits", "--dram", "fast"], "Invalid value for '--dram'"),
        (["simulate", "nowhere"], "nowhere holds no run"),
    ],
)
def test_wrong_use(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_nothing_imports_torch(fixgrad: Any) -> None:
    """A subprocess, since other tests import it here."""
    import subprocess

    script = (
        "import sys\nfrom fixgrad.cli.app import main\n"
        f"codes = [main({[*SMALL, '--json']!r}), main(['check', '--model', 'digits']), main(['compile', '--model', 'digits'])]\n"
        "codes += [main(['verify', '--model', 'digits', '--machine', 'tiny', '--batch', '4', '--steps', '1', "
        "'--executors', 'functional,reference'])]\n"
        "assert codes == [0] * 4, codes\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_compiled_is_an_error_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--model", "vgg11", "--machine", "formal"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1


@pytest.mark.slow
def test_the_talks_case_stands_beside_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    found = json_of(TALK, capsys)
    assert found["total"]["gops"] >= 1250
    assert found["resources"]["bram36"] <= 1060
    assert found["talk"]["total"] == {"us": 45_912.0, "gops": 641.1}
    rows = {(row["name"], row["phase"]): row for row in found["layers"]}
    assert rows["conv2", "ff"]["talk"] == {"us": 1487.0, "gops": 812.2, "bound": "compute", "utilisation": 0.95}
    assert rows["conv1", "wg"]["talk"]["bound"] == "memory"
    assert found["energy"]["watts"]["low"] < 40
    assert main(TALK) == 0
    shown = capsys.readouterr().out
    for word in ("talk us", "45,912", "641.1", "10,988"):
        assert word in shown


def test_compile_case_times_the_compiler(capsys: pytest.CaptureFixture[str]) -> None:
    from fixgrad.cli.step_case import chosen_case
    from fixgrad.machine import preset

    program, seconds = compile_case(
        chosen_case(None, "digits", None, None, 0, None), preset("tiny"), forward=True, count_padding=True
    )
    assert program.mode == "forward"
    assert program.count_padding
    assert program.batch == 32
    assert seconds > 0
