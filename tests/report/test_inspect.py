"""`fixgrad inspect`: what is shown is what the steps measured and the checkpoint holds; what is wrong is named."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fixgrad.cli.app import main
from fixgrad.errors import UsageError
from fixgrad.report.inspect_run import Inspection, LayerCheck, TensorCheck, inspect_run
from fixgrad.report.inspect_tables import remark_lines
from fixgrad.train.epoch_tally import EpochTally, headroom
from fixgrad.train.plan import Arithmetic
from fixgrad.train.request import RunRequest
from fixgrad.train.run import TrainingRun
from fixgrad.train.run_folder import RunFolder

REQUEST = RunRequest(model="digits", data="digits", epochs=2, batch=240, density="0.4", prune_epoch=1, seed=3)
GOOD = TensorCheck(0.0, 0.0, 0.0, (1, 4), (2, 3), 12)
LAYER = LayerCheck("conv1", "conv2d", 1.0, 0, 0, 0, 0.5, 2, GOOD, GOOD, 6, ())


def trained(request: RunRequest, out: Path) -> Path:
    torch.set_num_threads(1)
    run = TrainingRun.begin(request, out)
    for _ in run.train():
        pass
    run.close()
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(REQUEST, tmp_path_factory.mktemp("inspect") / "run")


def test_every_layer_is_shown_as_the_checkpoint_has_it(run: Path) -> None:
    found = inspect_run(run)
    saved = RunFolder(run).load()
    assert (found.epoch, found.recorded) == (2, 2)
    layers = {layer.name: layer for layer in found.layers}
    assert {"conv1", "conv2", "conv3", "dense4", "dense5"} <= set(layers)
    for layer in saved.plan.network.mac_layers:
        check, stored = layers[layer.name], saved.state.arrays[f"stored/{layer.name}.weight"]
        mask, formats = saved.state.arrays[f"mask/{layer.name}.weight"], saved.state.values["parameters"][f"{layer.name}.weight"]
        assert check.density == mask.mean()
        assert check.dead_outputs == sum(not row.any() for row in mask)
        assert check.dead_inputs == sum(not column.any() for column in mask.T)
        assert check.largest_weight == np.abs(stored).max() / 2 ** formats["stored_frac"]
        assert check.activation is not None
        assert check.activation.exponents is not None
        low, high = check.activation.exponents
        history = saved.state.values["activation_scales"][layer.name]
        # The first measurement of a history is that of the calibration, which no step reports.
        assert low <= min(history[1:]) <= max(history[1:]) <= high
        assert 0 < check.activation.headroom < 31
    # 240 images, 8 x 8 pixels: 240 * 64 * 127^2 has 28 bits.
    assert layers["conv1"].wg_headroom == 31 - (240 * 64 * 127**2).bit_length()


def test_an_earlier_checkpoint_has_an_earlier_history(run: Path) -> None:
    found = inspect_run(run, "epoch-0001")
    assert (found.epoch, found.recorded) == (1, 1)
    assert all(layer.density in (None, 1.0) for layer in found.layers)


def test_ranges_survive_a_resume(run: Path, tmp_path: Path) -> None:
    whole = [line["tensors"] for line in RunFolder(run).metrics()]
    out = tmp_path / "again"
    first = TrainingRun.begin(REQUEST, out)
    next(iter(first.train()))
    first.close()
    again = TrainingRun.resume(out)
    list(again.train())
    again.close()
    assert [line["tensors"] for line in RunFolder(out).metrics()] == whole


@dataclass
class Report:
    saturated: dict[str, float]
    forward_bits: dict[str, tuple[int, int]]
    error_bits: dict[str, tuple[int, int]]
    loss: float = 1.0
    correct: int = 1
    overflows: set[str] = field(default_factory=set)


def test_a_tally_keeps_extremes() -> None:
    tally = EpochTally()
    tally.add(Report({"activation/a": 0.1, "error/a": 0.0}, {"a": (20, 12)}, {"a": (0, 9)}), 4)
    tally.add(Report({"activation/a": 0.3, "error/a": 0.0}, {"a": (17, 12)}, {"a": (0, 9)}), 4)
    seen = tally.ranges()
    assert seen["activation/a"].to_dict() == {
        "saturated": 0.2, "worst_step": 0.3, "accumulator_bits": 20, "exponents": [5, 8]
    }
    assert (headroom(seen["activation/a"]), headroom(seen["error/a"]), seen["error/a"].exponents) == (11, 31, None)
    assert tally.widest() == ("activation/a", 3)


@pytest.mark.parametrize(
    ("layer", "remark"),
    [
        (replace(LAYER, overflows=("wg",)), "conv1: WG accumulators left 32 bits: use a smaller batch or fewer inputs"),
        (replace(LAYER, error=replace(GOOD, exponents=None)), "conv1: all errors are 0: the layer is dead; lower --lr, or keep more"),
        (replace(LAYER, activation=replace(GOOD, worst_epoch=0.02)), "conv1: 2.0 % of the activations saturated in an epoch"),
        (replace(LAYER, stored_bits_free=0), "conv1: a weight is at the end of its stored range"),
        (replace(LAYER, zero_outputs=3), "conv1: 3 live output channels have no weight but 0"),
        (LAYER, "nothing to remark"),
    ],
)
def test_what_is_wrong_is_named(layer: LayerCheck, remark: str) -> None:
    (line,) = remark_lines(Inspection(Path("run"), 1, "net", (layer,), 1))
    assert line.startswith(remark)


def test_the_command_prints_a_table_and_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(run)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("conv1", "dense5", "WG free", "nothing to remark"))
    assert main(["inspect", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(inspect_run(run).to_dict()))


def test_what_has_no_integers_is_refused(tmp_path: Path) -> None:
    request = replace(REQUEST, arithmetic=Arithmetic.FLOAT, density=None, prune_epoch=None, epochs=1)
    with pytest.raises(UsageError, match="is a float run: it has no integers"):
        inspect_run(trained(request, tmp_path / "float"))
    with pytest.raises(UsageError, match="holds no run"):
        inspect_run(tmp_path)
