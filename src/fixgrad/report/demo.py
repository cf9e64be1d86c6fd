"""The main job in small: digits in dense float, and in sparse fixed point, from the same weights for the same epochs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

from fixgrad.report.run_report import RunReport, report_run, write_report
from fixgrad.train.jobs import Job, JobProgress, available_cores, run_jobs
from fixgrad.train.metrics import PredictionKind
from fixgrad.train.plan import Arithmetic
from fixgrad.train.request import RunRequest
from fixgrad.train.sealed_file import write_atomically

#: What each layer of the model `digits` keeps. Nearly all MACs are those of conv2 and conv3; conv1 has one input channel, so
#: a kernel that is pruned there is a feature lost to the whole network.
DENSITIES: Mapping[str, float] = MappingProxyType({"conv1": 1.0, "conv2": 0.35, "conv3": 0.35, "dense4": 0.2, "dense5": 0.5})
#: The demonstration holds if no more than this share of the MACs is kept ...
MACS_LIMIT = 0.5
#: ... and less than this is lost against dense float, in percentage points of test accuracy, for every seed.
LOST_LIMIT = 1.0
DEMO_VERSION = 2


@dataclass(frozen=True, slots=True)
class DemoReport:
    """One report of a fixed-point run for each seed, each compared with its float run."""

    runs: tuple[RunReport, ...]

    @property
    def lost(self) -> list[float]:
        """Percentage points of test accuracy lost against dense float, by seed."""
        return [compared.lost_points for run in self.runs if (compared := run.comparison) is not None]

    @property
    def float_accuracy(self) -> float:
        """Mean test accuracy of dense float, 0 to 1."""
        return fmean(compared.metrics.test_accuracy for run in self.runs if (compared := run.comparison) is not None)

    @property
    def fixed_accuracy(self) -> float:
        """Mean test accuracy of sparse fixed point, 0 to 1."""
        return fmean(run.metrics.test_accuracy for run in self.runs)

    @property
    def weights_kept(self) -> float:
        """Mean share of the weights that is alive."""
        return fmean(run.metrics.weights_kept for run in self.runs)

    @property
    def macs_kept(self) -> float:
        """Mean share of a step's MACs that is alive."""
        return fmean(run.metrics.macs_kept for run in self.runs)

    @property
    def step_seconds(self) -> float:
        """Mean predicted time of a training step."""
        return fmean(run.step.seconds for run in self.runs)

    @property
    def dense_step_seconds(self) -> float:
        """Predicted time of a step with nothing pruned."""
        return self.runs[0].dense_step.seconds

    @property
    def step_kind(self) -> PredictionKind:
        """Where `step_seconds` comes from: a mean with one bound in it is a bound."""
        kinds = {run.step.kind for run in self.runs}
        return PredictionKind.BOUND if PredictionKind.BOUND in kinds else PredictionKind.SIMULATED

    @property
    def dense_step_kind(self) -> PredictionKind:
        """Where `dense_step_seconds` comes from."""
        return self.runs[0].dense_step.kind

    @property
    def csb_share(self) -> float:
        """Bytes of all weights in CSB over those of the dense weights."""
        stored = [layer for run in self.runs for layer in run.storage.values()]
        return sum(layer.csb_bytes for layer in stored) / sum(layer.dense_bytes for layer in stored)

    @property
    def holds(self) -> bool:
        """Whether both limits are kept, that of the accuracy for every seed."""
        return max(self.lost) < LOST_LIMIT and self.macs_kept <= MACS_LIMIT

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "demo_version": DEMO_VERSION,
            "holds": self.holds,
            "limits": {"lost_points": LOST_LIMIT, "macs_kept": MACS_LIMIT},
            "mean": {
                "float_accuracy": self.float_accuracy,
                "fixed_accuracy": self.fixed_accuracy,
                "lost_points": fmean(self.lost),
                "weights_kept": self.weights_kept,
                "macs_kept": self.macs_kept,
                "csb_share": self.csb_share,
                "step_seconds": self.step_seconds,
                "dense_step_seconds": self.dense_step_seconds,
                "step_kind": str(self.step_kind),
                "dense_step_kind": str(self.dense_step_kind),
                "machine": self.runs[0].step.machine,
            },
            "runs": [run.to_dict() for run in self.runs],
        }


def run_demo(folder: Path, seeds: int, epochs: int | None, machine: str, progress: JobProgress) -> DemoReport:
    """Train everything into `folder` (``seed-0/fixed``, ``seed-0/float``, ...), and report.

    Args:
        folder: exists, and is empty.
        seeds: runs of each kind.
        epochs: of every run; None: the default of the model.
        machine: on which a step is costed, a preset or a JSON file.
        progress: called with (job, steps done, steps in all); fixed-point runs come first.
    """
    jobs = demo_jobs(folder, seeds, epochs)
    run_jobs(jobs, min(available_cores(), len(jobs)), progress)
    reports = tuple(report_run(job.out, job.out.with_name("float"), machine) for job in jobs[:seeds])
    for report in reports:
        write_report(report)
    demo = DemoReport(reports)
    write_atomically(folder / "report.json", (json.dumps(demo.to_dict(), indent=2) + "\n").encode())
    return demo


def demo_jobs(folder: Path, seeds: int, epochs: int | None) -> Sequence[Job]:
    """The runs; those in fixed point come first, because they take longer."""
    densities = folder / "densities.json"
    densities.write_text(json.dumps(dict(DENSITIES), indent=2) + "\n", encoding="utf-8")
    sparse = [_job(folder, "fixed", seed, epochs, Arithmetic.FIXED, str(densities)) for seed in range(seeds)]
    return [*sparse, *(_job(folder, "float", seed, epochs, Arithmetic.FLOAT, None) for seed in range(seeds))]


def _job(folder: Path, name: str, seed: int, epochs: int | None, arithmetic: Arithmetic, density: str | None) -> Job:
    request = RunRequest(model="digits", data="digits", arithmetic=arithmetic, density=density, epochs=epochs, seed=seed)
    return Job(request, folder / f"seed-{seed}" / name)
