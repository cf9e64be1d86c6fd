"""The report of a run: its accuracy beside float training, what was kept of every layer, and what a step costs."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fixgrad.errors import UsageError
from fixgrad.machine import Machine
from fixgrad.machine.files import machine_named
from fixgrad.network.state_arrays import state_from_arrays
from fixgrad.report.predicted_step import Masks, PredictedStep, predicted_step
from fixgrad.report.storage import LayerStorage, weight_storage
from fixgrad.train.checkpoint import Checkpoint
from fixgrad.train.fork import OPTIMISER_FIELDS
from fixgrad.train.metrics import EpochMetrics
from fixgrad.train.plan import Arithmetic, Plan
from fixgrad.train.pruning import training_macs
from fixgrad.train.run_folder import RunFolder

REPORT = "report.json"
#: Raised when the meaning of a field changes.
REPORT_VERSION = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """The float run beside a run.

    Attributes:
        path: of its folder.
        metrics: of its newest epoch.
        lost_points: test accuracy of the float run minus that of the run, in percentage points.
        differences: what else differs between the two, such as ``epochs``; empty for a fair comparison.
    """

    path: Path
    metrics: EpochMetrics
    lost_points: float
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunReport:
    """All that the tables and ``report.json`` show.

    Attributes:
        path: of the run's folder.
        checkpoint: its newest.
        comparison: with float training, if there is a run of it.
        step: a training step with the masks of the run, predicted.
        dense_step: one with nothing pruned.
        storage: of the operand weights by layer; empty for a float run, whose weights are no operands.
        config: ``config.json``.
        lines: ``metrics.jsonl``.
    """

    path: Path
    checkpoint: Checkpoint
    comparison: Comparison | None
    step: PredictedStep
    dense_step: PredictedStep
    storage: dict[str, LayerStorage]
    config: dict[str, Any]
    lines: list[dict[str, Any]]

    @property
    def plan(self) -> Plan:
        """Of the run."""
        return self.checkpoint.plan

    @property
    def metrics(self) -> EpochMetrics:
        """Of the newest epoch."""
        return self.checkpoint.history[-1]

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "report_version": REPORT_VERSION,
            "run": str(self.path),
            "command": self.config.get("command"),
            "environment": self.config.get("environment"),
            "plan": self.plan.to_dict(),
            "epochs_done": self.metrics.epoch,
            "accuracy": self._accuracy(),
            "kept": {"weights": self.metrics.weights_kept, "macs": self.metrics.macs_kept},
            "overflows": list(self.metrics.overflows),
            "layers": self._layers(),
            "step_cost": self.step.to_dict(),
            "dense_step_cost": self.dense_step.to_dict(),
            "epochs": self.lines,
        }

    def _accuracy(self) -> dict[str, Any]:
        best = max(self.checkpoint.history, key=lambda metrics: metrics.test_accuracy)
        found: dict[str, Any] = {
            "test": self.metrics.test_accuracy,
            "train": self.metrics.train_accuracy,
            "best_test": best.test_accuracy,
            "best_epoch": best.epoch,
        }
        if self.comparison is not None:
            found["float"] = {
                "run": str(self.comparison.path),
                "epoch": self.comparison.metrics.epoch,
                "test": self.comparison.metrics.test_accuracy,
                "lost_points": self.comparison.lost_points,
                "differences": list(self.comparison.differences),
            }
        return found

    def _layers(self) -> list[dict[str, Any]]:
        network = self.plan.network
        return [
            {
                "name": layer.name,
                "weight_shape": list(layer.weight_shape),
                "density": self.metrics.densities[layer.name],
                "training_macs_per_image": training_macs(network, layer),
                "storage": self.storage[layer.name].to_dict() if layer.name in self.storage else None,
            }
            for layer in network.mac_layers
        ]


def report_run(
    path: Path, float_run: Path | None = None, machine: str = "kcu1500", say: Callable[[str], None] = lambda text: None
) -> RunReport:
    """The report of the run in the folder `path`.

    Args:
        path: of the run.
        float_run: folder of the float run to compare with. None: one that lies beside the run, see `find_float_run`.
        machine: on which a step is costed, a preset or a JSON file.
        say: is told what is about to take its time.

    Raises:
        UsageError: there is no run, or none that has finished an epoch, or the float run is of another network or data.
        DataError: a checkpoint is damaged.
    """
    chosen = machine_named(machine)
    folder = RunFolder.open(path)
    checkpoint = _newest(folder)
    plan, arrays = checkpoint.plan, checkpoint.state.arrays
    masks = {name.removeprefix("mask/"): mask for name, mask in arrays.items() if name.startswith("mask/")}
    storage = {}
    if plan.arithmetic is Arithmetic.FIXED:
        storage = weight_storage(plan.network, state_from_arrays(plan.network, arrays, checkpoint.state.values))
    comparison = _comparison(path, checkpoint, float_run)
    say(f"compiling and simulating a step of {plan.network.name} on {chosen.name}")
    step = _predicted(plan, masks, chosen)
    say(f"compiling and simulating a step of {plan.network.name} on {chosen.name}, with nothing pruned")
    return RunReport(
        path=path,
        checkpoint=checkpoint,
        comparison=comparison,
        step=step,
        dense_step=_predicted(plan, {}, chosen),
        storage=storage,
        config=folder.config(),
        lines=folder.metrics(),
    )


def write_report(report: RunReport) -> Path:
    """Write ``report.json`` into the run's folder; returns its path."""
    folder = RunFolder.open(report.path)
    folder.write_json(REPORT, report.to_dict())
    return report.path / REPORT


def find_float_run(path: Path) -> Path | None:
    """A run that lies at ``RUN/float``, ``RUN-float``, or as ``float`` in the same folder."""
    candidates = (path / "float", path.with_name(f"{path.name}-float"), path.with_name("float"))
    return next((found for found in candidates if found != path and (found / "config.json").is_file()), None)


def _newest(folder: RunFolder) -> Checkpoint:
    checkpoint = folder.load()
    if not checkpoint.history:
        raise UsageError(f"{folder.path} has not finished an epoch: continue it with `fixgrad train --resume {folder.path}`")
    return checkpoint


def _predicted(plan: Plan, masks: Masks, machine: Machine) -> PredictedStep:
    return predicted_step(plan.network, masks, machine, plan.batch, plan.recipe)


def _comparison(path: Path, checkpoint: Checkpoint, given: Path | None) -> Comparison | None:
    if given is None and checkpoint.plan.arithmetic.is_float:
        return None
    float_run = given or find_float_run(path.resolve() if path.name in ("", "..") else path)
    if float_run is None:
        return None
    other = _newest(RunFolder.open(float_run))
    ours, theirs = checkpoint.plan, other.plan
    wrong = _wrong_baseline(ours, theirs)
    if wrong and given is None:
        return None
    if wrong:
        raise UsageError(f"{float_run} cannot be compared with {path}: {wrong}")
    lost = 100 * (other.history[-1].test_accuracy - checkpoint.history[-1].test_accuracy)
    return Comparison(float_run, other.history[-1], lost, _differences(checkpoint, other))


def _wrong_baseline(ours: Plan, theirs: Plan) -> str:
    if not theirs.arithmetic.is_float:
        return "it is no float run"
    if ours.network != theirs.network:
        return f"it trains another network ({theirs.network.name})"
    if ours.fingerprint != theirs.fingerprint:
        return f"it trains on other data ({theirs.data})"
    return ""


def _differences(ours: Checkpoint, theirs: Checkpoint) -> tuple[str, ...]:
    """What a reader must know: numbers that should be equal in a fair comparison, but are not."""
    pairs = {
        "epochs": (len(ours.history), len(theirs.history)),
        "planned epochs": (ours.plan.epochs, theirs.plan.epochs),
        "batch": (ours.plan.batch, theirs.plan.batch),
        **{
            name.replace("_", " "): (asdict(ours.plan.recipe)[name], asdict(theirs.plan.recipe)[name])
            for name in ("seed", "optimiser", *OPTIMISER_FIELDS, "schedule", "warmup_steps")
        },
    }
    found = [f"{name} {mine} here, {other} there" for name, (mine, other) in pairs.items() if mine != other]
    if theirs.plan.arithmetic is Arithmetic.BFLOAT16:
        found.append("the float run multiplies in bfloat16")
    return (*found, "the float run is pruned") if theirs.plan.prunes else tuple(found)
