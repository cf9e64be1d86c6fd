"""A training run from its beginning, or from any of its checkpoints, to its end."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fixgrad.errors import DataError, UsageError
from fixgrad.network import Network, Recipe, State, initial_state
from fixgrad.network.state_arrays import StateArrays, state_from_arrays
from fixgrad.train.checkpoint import Checkpoint
from fixgrad.train.collective import SINGLE, Collective
from fixgrad.train.data import DataSource
from fixgrad.train.data.progress import Progress, ignore
from fixgrad.train.environment import environment
from fixgrad.train.execution import HERE, Execution, usable_device
from fixgrad.train.fork import Origin, beginning, read_origin
from fixgrad.train.loop import TrainingLoop, Watcher
from fixgrad.train.metrics import EpochMetrics, PredictionKind, Timing
from fixgrad.train.plan import Arithmetic, Plan
from fixgrad.train.pruning_request import CostTable, KernelCosts
from fixgrad.train.request import Prepared, RunRequest, Weights, data_fingerprint, open_request_data, prepare
from fixgrad.train.run_folder import RunFolder
from fixgrad.train.trainer import Masks, Trainer

CONFIG_VERSION = 1


class Prediction(NamedTuple):
    """The time of a training step in seconds, where it comes from, and why it was not simulated (empty where it was)."""

    seconds: float
    kind: PredictionKind
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StepPrediction:
    """A prediction that is printed beside the accuracy.

    Attributes:
        machine: name of the machine.
        predict: the time of a training step, from the network, its masks, the batch size and the widths; None where there is
            none to tell. It is called after every epoch, so it should remember what it found for masks that have not changed.
        why_none: why there is none for a network, in one line; None where there is one.
    """

    machine: str
    predict: Callable[[Network, Masks, int, Recipe], Prediction | None]
    why_none: Callable[[Network], str | None] = lambda network: None


class Finished(NamedTuple):
    """An epoch that is over and safe on the disk."""

    metrics: EpochMetrics
    timing: Timing


class TrainingRun:
    """A run that is ready to train. Make one with `begin` or `resume`.

    Attributes:
        plan: of the run.
        folder: where it is kept.
        history: metrics of the epochs done.
    """

    def __init__(
        self,
        plan: Plan,
        data: DataSource,
        folder: RunFolder,
        trainer: Trainer,
        history: Sequence[EpochMetrics],
        collective: Collective = SINGLE,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.history = list(history)
        self._data = data
        self._trainer = trainer
        self._collective = collective

    @classmethod
    def begin(
        cls,
        request: RunRequest,
        out: Path,
        command: Sequence[str] = (),
        reading: Progress = ignore,
        execution: Execution = HERE,
        costs: KernelCosts | None = None,
    ) -> "TrainingRun":
        """A new run in the folder `out`, which must not exist; its checkpoint ``epoch-0000`` is written.

        Args:
            request: what to train.
            out: folder of the run.
            command: the command line, for ``config.json``.
            reading: called with (images read, images in all), where opening the data takes long.
            execution: on what it is computed. Of several workers all call this, and the first alone touches `out`.
            costs: of a kernel on a machine, where the request prunes by them.

        Raises:
            UsageError: the request makes no sense, or `out` exists, or the device is not there.
            FixgradError: the data or the user's code failed, or another worker.
        """
        collective = execution.collective
        with collective.together():
            _check_execution(request, execution)
            if collective.rank == 0:
                RunFolder.check_free(out)
            prepared = prepare(request, reading, costs)
        prepared = _agreed(prepared, collective)
        forked = _forked(request, prepared.plan, collective)
        if forked is not None:
            prepared = prepared._replace(plan=forked.first.plan)
        config = {
            "config_version": CONFIG_VERSION,
            "command": list(command),
            "request": request.to_dict(),
            "plan": prepared.plan.to_dict(),
            "environment": environment(),
        }
        if forked is not None:
            config["origin"] = forked.origin.to_dict(forked.first)
        with collective.together():
            folder = RunFolder.create(out, config) if collective.rank == 0 else RunFolder(out)
        with _released_on_failure(folder):
            return cls._first(prepared, forked, folder, execution)

    @classmethod
    def resume(
        cls,
        path: Path,
        checkpoint: str | None = None,
        data_dir: str | None = None,
        reading: Progress = ignore,
        execution: Execution = HERE,
    ) -> "TrainingRun":
        """The run in the folder `path`, after its newest checkpoint or the one named.

        Args:
            path: folder of the run.
            checkpoint: ``epoch-0002``: later checkpoints are set aside.
            data_dir: where the data are now, if they have moved.
            reading, execution: as for `begin`; another device or number of workers than before changes nothing.

        Raises:
            UsageError: there is no run, or no such checkpoint, or another process trains it.
            DataError: the checkpoint is damaged, or the data are not those of the run.
        """
        collective, folder = execution.collective, RunFolder(path)
        with _released_on_failure(folder):
            with collective.together():
                left = _read(folder, checkpoint) if collective.rank == 0 else None
            request, plan, saved = _given(collective.broadcast(left))
            if data_dir is not None:
                request = request.moved_to(data_dir)
            if saved is None:  # ended before its first checkpoint
                with collective.together():
                    _check_execution(request, execution)
                    prepared = prepare(request, reading, _costs_of(plan))
                forked = _forked(request, prepared.plan, collective)
                if forked is not None:
                    prepared = prepared._replace(plan=forked.first.plan)
                with collective.together():
                    _refuse_other_plan(prepared.plan, plan, f"what {path} asks for")
                return cls._first(_agreed(prepared, collective), forked, folder, execution)
            with collective.together():
                _check_execution(request, execution)
                data = open_request_data(request, reading)
                _refuse_other_data(data, plan, path)
            return cls._after(saved, folder, data, execution)

    @classmethod
    def _after(cls, saved: Checkpoint, folder: RunFolder, data: DataSource, execution: Execution) -> "TrainingRun":
        plan, collective = saved.plan, execution.collective
        with collective.together():
            run = cls(plan, data, folder, resumed_trainer(plan, saved.state, execution), saved.history, collective)
            run._loop(())  # refused before the folder is touched
            if collective.rank == 0:
                folder.set_back(saved)
        return run

    @classmethod
    def _first(
        cls, prepared: Prepared, forked: "_Forked | None", folder: RunFolder, execution: Execution
    ) -> "TrainingRun":
        plan, data, weights = prepared
        if forked is not None:
            if execution.collective.rank == 0:
                for line in forked.origin.lines if forked.first.epoch else ():
                    folder.add_metrics(line)
            run = cls._after(forked.first, folder, data, execution)
            run._save(keep=None)
            return run
        with execution.collective.together():
            run = cls(plan, data, folder, _new_trainer(plan, weights, execution), (), execution.collective)
            loop = run._loop(())
        loop.calibrate()
        run._save(keep=None)
        return run

    @property
    def is_complete(self) -> bool:
        """Whether all epochs are done."""
        return len(self.history) == self.plan.epochs

    def train(
        self, watchers: Sequence[Watcher] = (), cost: StepPrediction | None = None, keep: int | None = None
    ) -> Iterator[Finished]:
        """Train what is left; yields each epoch after its metrics and its checkpoint are on the disk.

        Args:
            watchers: are told what happens.
            cost: predicts the time of a step. (Only the first worker needs one, and only it writes to the disk.)
            keep: checkpoints to keep; None: all.
        """
        loop = self._loop(watchers)
        begun = time.perf_counter()
        for metrics in loop.epochs(tuple(self.history)):
            timing = self._timing(time.perf_counter() - begun, cost)
            self.history.append(metrics)
            if self._collective.rank == 0:
                ranges = {name: seen.to_dict() for name, seen in loop.ranges.items()}
                self.folder.add_metrics({**metrics.to_dict(), **timing.to_dict(), "tensors": ranges})
            self._save(keep)
            yield Finished(metrics, timing)
            begun = time.perf_counter()

    def close(self) -> None:
        """Let other processes at the folder."""
        self.folder.release()

    def _loop(self, watchers: Sequence[Watcher]) -> TrainingLoop:
        return TrainingLoop(self.plan, self._data, self._trainer, watchers, self._collective)

    def _timing(self, seconds: float, cost: StepPrediction | None) -> Timing:
        if cost is None:
            return Timing(seconds)
        plan = self.plan
        step = cost.predict(plan.network, self._trainer.masks(), plan.batch, plan.recipe)
        if step is None:
            return Timing(seconds)
        return Timing(seconds, step.seconds, cost.machine, step.kind, step.reason)

    def _save(self, keep: int | None) -> None:
        if self._collective.rank > 0:
            return
        history = tuple(self.history)
        self.folder.save(Checkpoint(self.plan, len(history), history, self._trainer.snapshot()), keep)


def _check_execution(request: RunRequest, execution: Execution) -> None:
    device = usable_device(execution.device)
    if request.arithmetic.is_float and (device != "cpu" or execution.collective.size > 1):
        raise UsageError("the float baseline is computed by one worker on the CPU: leave out --device and --workers")


def _agreed(prepared: Prepared, collective: Collective) -> Prepared:
    """What all workers begin with: equal plans, and the initial weights of the first.

    Raises:
        UsageError: a worker sees other data, or another network.
    """
    plan = collective.broadcast(prepared.plan)
    with collective.together():
        _refuse_other_plan(prepared.plan, plan, f"what worker {collective.rank} sees")
    return prepared._replace(weights=collective.broadcast(prepared.weights))


class _Forked(NamedTuple):
    """Where a run comes from, and the checkpoint it begins with."""

    origin: Origin
    first: Checkpoint


def _forked(request: RunRequest, plan: Plan, collective: Collective) -> _Forked | None:
    """What the first worker reads of the run that this one begins with; None where it begins with initial weights."""
    if request.from_run is None:
        return None
    with collective.together():
        found = None
        if collective.rank == 0:
            origin = read_origin(request.from_run)
            found = _Forked(origin, beginning(plan, origin))
    return collective.broadcast(found)


def _costs_of(plan: Plan) -> KernelCosts:
    """The costs that a plan was settled with."""
    budget = None if plan.pruning is None else plan.pruning.budget
    return lambda network, batch: CostTable("", {}) if budget is None else CostTable(budget.unit, budget.costs)


class _Left(NamedTuple):
    """What a run's folder says of it; `saved` is None where it ended before its first checkpoint."""

    request: RunRequest
    plan: Plan
    saved: Checkpoint | None


def _read(folder: RunFolder, checkpoint: str | None) -> _Left:
    folder.check_run()
    folder.lock()
    request, plan = _request_and_plan(folder)
    if not folder.epochs():
        return _Left(request, plan, None)
    saved = folder.load(checkpoint)
    _refuse_other_plan(saved.plan, plan, str(folder.checkpoint_path(saved.epoch)))
    return _Left(request, plan, saved)


def _given(left: _Left | None) -> _Left:
    assert left is not None, "the first worker has read the folder"
    return left


def _refuse_other_data(data: DataSource, plan: Plan, path: Path) -> None:
    if data_fingerprint(data) != plan.fingerprint:
        raise DataError(f"the images, labels or augmentation of {data.name} are not those that {path} was begun with")


def _new_trainer(plan: Plan, weights: Weights, execution: Execution) -> Trainer:
    if plan.arithmetic.is_float:
        from fixgrad.train.float_baseline import FloatTrainer

        return FloatTrainer(plan.network, weights, plan.recipe, plan.total_steps, bfloat16=plan.arithmetic is Arithmetic.BFLOAT16)
    return _fixed_point(plan, initial_state(plan.network, weights, plan.recipe), execution)


def resumed_trainer(plan: Plan, saved: StateArrays, execution: Execution = HERE) -> Trainer:
    """The trainer whose snapshot was saved."""
    if plan.arithmetic.is_float:
        from fixgrad.train.float_baseline import FloatTrainer

        return FloatTrainer.from_snapshot(
            plan.network, saved, plan.recipe, plan.total_steps, bfloat16=plan.arithmetic is Arithmetic.BFLOAT16
        )
    return _fixed_point(plan, state_from_arrays(plan.network, saved.arrays, saved.values), execution)


def _fixed_point(plan: Plan, state: State, execution: Execution) -> Trainer:
    from fixgrad.train.executor import TorchExecutor
    from fixgrad.train.trainer import FixedPointTrainer

    executor = TorchExecutor(
        plan.network,
        state,
        plan.recipe,
        plan.total_steps,
        device=usable_device(execution.device),
        path=execution.path,
        collective=execution.collective,
        fused=execution.fused,
    )
    return FixedPointTrainer(executor)


@contextmanager
def _released_on_failure(folder: RunFolder) -> Iterator[RunFolder]:
    """The folder stays locked unless the block fails."""
    try:
        yield folder
    except BaseException:
        folder.release()
        raise


def _request_and_plan(folder: RunFolder) -> tuple[RunRequest, Plan]:
    config = folder.config()
    try:
        request, plan = config["request"], config["plan"]
        if config["config_version"] != CONFIG_VERSION or not isinstance(request, dict) or not isinstance(plan, dict):
            raise DataError(f"its version is {config['config_version']!r}, this program reads {CONFIG_VERSION}")
        return RunRequest.from_dict(request), Plan.from_dict(plan)
    except (KeyError, DataError) as problem:
        raise DataError(f"{folder.path}/config.json is not of a run of this version: {problem}") from None


def _refuse_other_plan(found: Plan, expected: Plan, what: str) -> None:
    ours, theirs = found.to_dict(), expected.to_dict()
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise UsageError(f"{what} is not of this run: its {key} differs from the one in config.json")
