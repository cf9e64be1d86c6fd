"""The report of a run: its numbers are those of the run, its comparison is fair or says what is not."""

import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from fixgrad.compiler import compile_step
from fixgrad.errors import DataError, UsageError
from fixgrad.machine import preset
from fixgrad.machine.files import save_machine
from fixgrad.network import Optimiser, Recipe
from fixgrad.network.models import model
from fixgrad.report.predicted_step import PredictedStep, predicted_step, step_prediction
from fixgrad.report.run_report import RunReport, find_float_run, report_run, write_report
from fixgrad.report.run_tables import report_tables
from fixgrad.report.storage import BLOCK
from fixgrad.simulate.bounds import step_cost
from fixgrad.simulate.timing import simulate_step
from fixgrad.train.checkpoint import read_checkpoint
from fixgrad.train.metrics import PredictionKind
from fixgrad.train.plan import Arithmetic
from fixgrad.train.request import RunRequest
from fixgrad.train.run import TrainingRun

SPARSE = RunRequest(model="digits", data="digits", epochs=2, batch=240, density="0.4", prune_epoch=1)
FLOAT = replace(SPARSE, arithmetic=Arithmetic.FLOAT, density=None, prune_epoch=None)

Train = Callable[[RunRequest, Path], Path]


def train(request: RunRequest, out: Path) -> Path:
    torch.set_num_threads(1)
    run = TrainingRun.begin(request, out)
    for _ in run.train():
        pass
    run.close()
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sparse run `a` and its float run `a-float`."""
    folder = tmp_path_factory.mktemp("runs")
    train(SPARSE, folder / "a")
    train(FLOAT, folder / "a-float")
    return folder


@pytest.fixture(scope="module")
def report(runs: Path) -> RunReport:
    return report_run(runs / "a")


def test_accuracy_is_that_of_the_newest_checkpoints(runs: Path, report: RunReport) -> None:
    ours = read_checkpoint(runs / "a" / "checkpoints" / "epoch-0002.safetensors").history[-1]
    theirs = read_checkpoint(runs / "a-float" / "checkpoints" / "epoch-0002.safetensors").history[-1]
    assert report.metrics == ours
    assert report.comparison is not None
    assert report.comparison.path == runs / "a-float"
    assert report.comparison.lost_points == pytest.approx(100 * (theirs.test_accuracy - ours.test_accuracy))
    assert report.comparison.differences == ()


def test_layers_and_cost_follow_from_the_masks(runs: Path, report: RunReport) -> None:
    checkpoint = read_checkpoint(runs / "a" / "checkpoints" / "epoch-0002.safetensors")
    masks = {name: checkpoint.state.arrays[f"mask/{name}.weight"] for name in ("conv1", "conv2", "conv3", "dense4", "dense5")}
    by_parameter = {f"{name}.weight": mask for name, mask in masks.items()}
    for step, of_step in ((report.step, by_parameter), (report.dense_step, None)):
        expected = simulate_step(compile_step(model("digits"), of_step, preset("kcu1500"), 240, report.plan.recipe))
        assert (step.kind, step.reason) == (PredictionKind.SIMULATED, "")
        assert step.figures.layers == expected.layers
        assert (step.us, step.gops) == (expected.us, expected.gops)
    assert report.step.us < report.dense_step.us
    assert report.step.us > step_cost(model("digits"), masks, preset("kcu1500"), 240).total_us
    for layer in model("digits").mac_layers:
        alive = int(masks[layer.name].sum())
        taps = int(np.prod(layer.weight_shape[2:]))
        stored = report.storage[layer.name]
        assert report.metrics.densities[layer.name] == alive / masks[layer.name].size
        assert (stored.weights, stored.alive) == (int(np.prod(layer.weight_shape)), alive * taps)
        assert stored.dense_bytes == stored.weights
        blocks = -(-layer.weight_shape[0] // BLOCK) * -(-layer.weight_shape[1] // BLOCK)
        assert stored.csb_bytes == stored.alive + -(-alive * 10 // 8) + 4 * (blocks + 1)


def test_json_has_it_all(runs: Path, report: RunReport) -> None:
    path = write_report(report)
    assert path == runs / "a" / "report.json"
    written = json.loads(path.read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    assert written["accuracy"]["test"] == report.metrics.test_accuracy
    assert written["kept"] == {"weights": report.metrics.weights_kept, "macs": report.metrics.macs_kept}
    assert [layer["name"] for layer in written["layers"]] == ["conv1", "conv2", "conv3", "dense4", "dense5"]
    assert [epoch["epoch"] for epoch in written["epochs"]] == [1, 2]
    assert written["step_cost"]["total"]["us"] == report.step.us
    assert [written[name]["kind"] for name in ("step_cost", "dense_step_cost")] == ["simulated"] * 2


def test_tables_show_what_json_has(report: RunReport) -> None:
    console = Console(file=StringIO(), width=160)
    console.print(report_tables(report))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert report.comparison is not None
    for part in (
        f"{100 * report.metrics.test_accuracy:.2f} %",
        f"{report.comparison.lost_points:+.2f} points",
        "pruned after epoch 1",
        "32x32x3x3",
        "40.0 %",
        f"{report.step.gops:.1f}",
        "on kcu1500, simulated (",
        f"{report.dense_step.us / report.step.us:.2f} times as fast as dense",
        "Phases, simulated",
        "c: compute",
    ):
        assert part in shown
    assert "at least" not in shown


def test_a_float_run_has_a_report_without_operands(runs: Path) -> None:
    report = report_run(runs / "a-float")
    assert report.comparison is None
    assert report.storage == {}
    assert report.step == report.dense_step
    assert all(layer["storage"] is None for layer in report.to_dict()["layers"])
    Console(file=StringIO()).print(report_tables(report))


def test_a_float_run_is_found_where_it_may_lie(tmp_path: Path) -> None:
    run = tmp_path / "fixed"
    assert find_float_run(run) is None
    for place in (tmp_path / "float", tmp_path / "fixed-float", run / "float"):
        place.mkdir(parents=True)
        assert find_float_run(run) != place
        (place / "config.json").write_text("{}")
        assert find_float_run(run) == place
    assert find_float_run(tmp_path / "float") is None


def test_what_differs_from_the_float_run_is_said(runs: Path, tmp_path: Path) -> None:
    other = train(replace(FLOAT, epochs=1, seed=1, learning_rate=0.02, density="0.5", prune_epoch=0), tmp_path / "other")
    report = report_run(runs / "a", other)
    assert report.comparison is not None
    assert report.comparison.differences == (
        "epochs 2 here, 1 there",
        "planned epochs 2 here, 1 there",
        "seed 0 here, 1 there",
        "learning_rate 0.01 here, 0.02 there".replace("_", " "),
        "warmup steps 2 here, 1 there",
        "the float run is pruned",
    )
    faster = train(replace(FLOAT, arithmetic=Arithmetic.BFLOAT16), tmp_path / "faster")
    compared = report_run(runs / "a", faster).comparison
    assert compared is not None
    assert compared.differences == ("the float run multiplies in bfloat16",)


def test_a_run_that_is_no_baseline_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be compared with .*: it is no float run"):
        report_run(runs / "a", runs / "a")
    mirrored = train(replace(FLOAT, epochs=1, augment="flip"), tmp_path / "mirrored")
    with pytest.raises(UsageError, match="it trains on other data"):
        report_run(runs / "a", mirrored)


def test_what_is_no_finished_run_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        report_run(tmp_path)
    TrainingRun.begin(SPARSE, tmp_path / "begun").close()
    with pytest.raises(UsageError, match="has not finished an epoch: continue it with `fixgrad train --resume"):
        report_run(tmp_path / "begun")
    with pytest.raises(UsageError, match="kcu1500"):
        report_run(runs / "a", machine="kcu150")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    out = train(replace(SPARSE, epochs=1, prune_epoch=0), tmp_path / "run")
    (out / "checkpoints" / "epoch-0001.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"epoch-0001\.safetensors is damaged"):
        report_run(out)


def test_the_prediction_of_the_loop_is_the_cost_of_the_report(report: RunReport) -> None:
    arrays = report.checkpoint.state.arrays
    masks = {name.removeprefix("mask/"): mask for name, mask in arrays.items() if name.startswith("mask/")}
    plan, prediction = report.plan, step_prediction("kcu1500")
    assert prediction.machine == "kcu1500"
    assert prediction.predict(plan.network, masks, plan.batch, plan.recipe) == (report.step.us / 1e6, "simulated", "")
    with pytest.raises(UsageError, match="did you mean"):
        step_prediction("kcu-1500")


def test_equal_masks_are_simulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fixgrad.report import predicted_step as module

    compiled: list[object] = []

    def counted(*arguments: object) -> object:
        compiled.append(arguments)
        return compile_step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "compile_step", counted)
    module._predicted.cache_clear()
    network, machine, recipe = model("digits"), preset("kcu1500"), Recipe()
    mask = np.ones((32, 32), bool)
    dense = predicted_step(network, {}, machine, 8, recipe)
    assert predicted_step(network, {"conv2.weight": mask}, machine, 8, recipe) is dense
    mask[:, ::2] = False  # the same array, as a trainer prunes it
    pruned = predicted_step(network, {"conv2.weight": mask}, machine, 8, recipe)
    assert pruned.us < dense.us
    assert predicted_step(network, {"conv2.weight": mask.copy()}, machine, 8, recipe) is pruned
    assert len(compiled) == 2
    mask[0, 0] = True
    assert predicted_step(network, {"conv2.weight": mask}, machine, 8, recipe) is not pruned
    assert len(compiled) == 3


def test_what_does_not_fit_is_bounded_and_says_why(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    whole = preset("kcu1500")
    small = replace(whole, name="small", memory=replace(whole.memory, bytes_total=1 << 20))
    save_machine(small, path)
    report = report_run(runs / "a", machine=str(path))
    checkpoint = read_checkpoint(runs / "a" / "checkpoints" / "epoch-0002.safetensors")
    masks = {name: checkpoint.state.arrays[f"mask/{name}.weight"] for name in ("conv1", "conv2", "conv3", "dense4", "dense5")}
    assert report.step.kind is PredictionKind.BOUND
    assert report.step.figures == step_cost(model("digits"), masks, small, 240, report.plan.recipe)
    assert "bytes of memory" in report.step.reason
    assert report.step.reason.count("\n") == 0
    written = report.to_dict()["step_cost"]
    assert (written["kind"], written["reason"]) == ("bound", report.step.reason)
    console = Console(file=StringIO(), width=400)
    console.print(report_tables(report))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("at least on small, a bound", "not simulated", report.step.reason, "Phases, at least", "m: the memory rules"):
        assert part in shown


def test_a_bound_and_a_simulated_time_have_no_ratio() -> None:
    network, machine, recipe = model("digits"), preset("kcu1500"), Recipe()
    simulated = predicted_step(network, {}, machine, 8, recipe)
    bound = PredictedStep(step_cost(network, {}, machine, 8, recipe), "does not fit")
    assert simulated.times_as_fast_as(bound) is None
    assert bound.times_as_fast_as(simulated) is None
    assert simulated.times_as_fast_as(simulated) == 1.0


def test_masks_that_do_not_fit_the_network_are_refused() -> None:
    network, machine, recipe = model("digits"), preset("kcu1500"), Recipe()
    for masks in ({"conv9.weight": np.zeros((2, 2), bool)}, {"conv2.weight": np.zeros((2, 2), bool)}):
        with pytest.raises(UsageError, match=r"conv[29]"):
            predicted_step(network, masks, machine, 8, recipe)


def test_a_run_by_adam_is_bounded_and_says_why(tmp_path: Path) -> None:
    adam = train(replace(SPARSE, optimiser=Optimiser.ADAM), tmp_path / "adam")
    floats = train(FLOAT, tmp_path / "float")
    report = report_run(adam, floats)
    assert report.step.kind is PredictionKind.BOUND
    assert "(update) needs 2 moments of a weight for adam" in report.step.reason
    assert report.comparison is not None
    assert "optimiser adam here, sgd there" in report.comparison.differences
