"""`fixgrad demo`: what it prints and writes; the limits it promises, over all seeds."""

import json
from pathlib import Path

import pytest

from fixgrad.cli.app import main
from fixgrad.report.demo import LOST_LIMIT, MACS_LIMIT


def test_a_short_demo_writes_what_it_prints(fixgrad, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "demo"
    done = fixgrad("demo", "--seeds", 1, "--epochs", 3, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads((out / "report.json").read_text())
    mean, run = report["mean"], report["runs"][0]
    for share in (mean["float_accuracy"], mean["fixed_accuracy"]):
        assert f"{100 * share:.2f} %" in done.stdout
    assert f"{mean['lost_points']:+.2f}" in done.stdout
    assert f"{100 * mean['weights_kept']:.1f} %" in done.stdout
    assert f"{100 * mean['macs_kept']:.1f} %" in done.stdout
    assert mean["lost_points"] == pytest.approx(100 * (mean["float_accuracy"] - mean["fixed_accuracy"]))
    assert mean["macs_kept"] <= MACS_LIMIT
    assert mean["step_seconds"] * 1e6 == pytest.approx(run["step_cost"]["total"]["us"])
    assert mean["step_seconds"] < mean["dense_step_seconds"]
    assert mean["step_kind"] == mean["dense_step_kind"] == run["step_cost"]["kind"] == "simulated"
    assert "compiled and simulated" in " ".join(done.stdout.split())
    assert "bound" not in done.stdout
    assert run["accuracy"]["float"]["differences"] == []
    assert {path.name for path in (out / "seed-0").iterdir()} == {"fixed", "float"}
    assert json.loads((out / "seed-0" / "fixed" / "report.json").read_text()) == run


def test_an_existing_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} already exists: choose another --out\n"


def test_a_failure_of_a_run_is_a_failure_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process of its own raises arrives as the same error."""
    from fixgrad.errors import UsageError
    from fixgrad.train.jobs import Job, run_jobs
    from fixgrad.train.request import RunRequest

    job = Job(RunRequest(model="digits", data="digits", epochs=0), tmp_path / "run")
    with pytest.raises(UsageError, match="epochs is 0"):
        run_jobs([job], 1, lambda *_: None)


@pytest.mark.slow
def test_the_demo_keeps_its_limits_for_every_seed(fixgrad, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = fixgrad("demo", "--seeds", 3, "--json")
    report = json.loads(done.stdout)
    assert report["holds"] is True
    assert [run["accuracy"]["float"]["lost_points"] < LOST_LIMIT for run in report["runs"]] == [True] * 3
    assert report["mean"]["macs_kept"] <= MACS_LIMIT
