"""The runs behind the talk's two accuracy figures, each resumable: start it again after any interruption.

    python benchmarks/evidence.py RUNS --data-dir PATH [--sets main,prune,stored,resnet] [--epochs 25] [--jobs 2] [--bf16]
    python benchmarks/evidence.py RUNS --data-dir PATH --dry-run          # what would run, and what is done
    python benchmarks/evidence.py RUNS --data-dir PATH --record OUT      # what is finished, as data and plots

main     VGG-11: float; fixed point, dense; fixed point, pruned to the talk's densities after a third of the epochs, at once, and
         gradually from there until 55 % and 70 % of them
prune    the same pruned at other epochs (slide "Pruning at different epochs"): forks of the dense run, so it must be `main`'s
stored   stored weights of 16, 24 and 32 bits, rounded to nearest and stochastically (slide of the stored weights)
resnet   ResNet-20 with batch normalisation: float, dense, pruned to half of its weights
digits   the three of `main` on the embedded digits, to try this in a minute; needs no --data-dir

Each run is a process of `fixgrad train` with an equal share of the cores. RUNS/NAME is its folder, RUNS/NAME.log what it printed.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from record_runs import plot, recorded


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: of its folder.
        model: what is trained.
        options: of `fixgrad train`, besides data, length and seed.
        fork: (run, epoch) whose checkpoint it begins with, or None.
    """

    name: str
    model: str
    options: tuple[str, ...] = ()
    fork: tuple[str, int] | None = None


def runs_of(sets: Sequence[str], epochs: int, bf16: bool) -> list[Run]:
    """The runs of some sets, in an order in which forks come after what they begin with."""
    base = ("--float", "--bf16") if bf16 else ("--float",)
    third = max(epochs // 3, 1)
    dense, digits = Run("vgg11-dense", "vgg11"), Run("digits-dense", "digits")
    others = sorted({max(round(epochs * share), 1) for share in (0.1, 0.2, 0.5, 0.7)})
    found = {
        "main": [
            Run("vgg11-float", "vgg11", base),
            dense,
            _pruned(dense, third),
            *(_pruned(dense, third, until=round(epochs * share)) for share in (0.55, 0.7)),
        ],
        "prune": [dense, *(_pruned(dense, epoch) for epoch in others)],
        "stored": [
            Run(f"vgg11-stored{bits}-{rounding}", "vgg11", ("--stored-bits", str(bits), "--update-rounding", rounding))
            for bits in (16, 24, 32)
            for rounding in ("nearest", "stochastic")
            if (bits, rounding) != (24, "nearest")  # that is the dense run
        ],
        "resnet": [
            Run("resnet20-float", "resnet20", base),
            Run("resnet20-dense", "resnet20"),
            Run("resnet20-pruned", "resnet20", ("--density", "0.5"), ("resnet20-dense", third)),
        ],
        "digits": [Run("digits-float", "digits", base), digits, _pruned(digits, third, "0.3")],
    }
    if unknown := [name for name in sets if name not in found]:
        raise SystemExit(f"error: no set of runs is called {', '.join(unknown)}: choose from {', '.join(found)}")
    return list({run.name: run for name in sets for run in found[name]}.values())


def _pruned(dense: Run, epoch: int, density: str = "talk", until: int | None = None) -> Run:
    """A fork that is pruned after an epoch, at once or gradually until another."""
    if until is None:
        return Run(f"{dense.model}-pruned-at-{epoch}", dense.model, ("--density", density), (dense.name, epoch))
    options = ("--density", density, "--prune-until", str(until))
    return Run(f"{dense.model}-pruned-{epoch}-to-{until}", dense.model, options, (dense.name, epoch))


@dataclass(frozen=True)
class Evidence:
    """Where the runs are, and what they share."""

    folder: Path
    data_dir: Path | None
    epochs: int
    seed: int
    threads: int

    def done(self, run: Run) -> int:
        """Epochs that are finished."""
        metrics = self.folder / run.name / "metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        return int(json.loads(lines[-1])["epoch"]) if lines else 0

    def may_begin(self, run: Run) -> bool:
        """Whether the checkpoint that it begins with is there."""
        if run.fork is None or (self.folder / run.name).exists():
            return True
        name, epoch = run.fork
        return (self.folder / name / "checkpoints" / f"epoch-{epoch:04}.safetensors").exists()

    def command(self, run: Run) -> list[str]:
        """The arguments of `fixgrad`."""
        folder = self.folder / run.name
        shared = ["--threads", str(self.threads), "--json"]
        if (folder / "config.json").exists():
            return ["train", "--resume", str(folder), *shared]
        if run.fork is not None:
            name, epoch = run.fork
            return ["train", "--from-run", f"{self.folder / name}@epoch-{epoch:04}", *run.options, "--out", str(folder), *shared]
        where = [] if self.data_dir is None else ["--data-dir", str(self.data_dir)]
        what = ["--model", run.model, *(["--data", "digits"] if run.model == "digits" else ["--data", "cifar10", *where])]
        return ["train", *what, "--epochs", str(self.epochs), "--seed", str(self.seed), *run.options, "--out", str(folder), *shared]

    def start(self, run: Run) -> "subprocess.Popen[bytes]":
        """A process that trains it."""
        log = (self.folder / f"{run.name}.log").open("ab")
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        return subprocess.Popen([sys.executable, "-m", "fixgrad.cli", *self.command(run)], stdout=log, stderr=log, env=environment)


def train(evidence: Evidence, runs: Sequence[Run], jobs: int) -> list[str]:
    """Trains what is not finished, `jobs` at a time; returns the names of those that failed."""
    waiting = [run for run in runs if evidence.done(run) < evidence.epochs]
    active: dict[str, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    try:
        while waiting or active:
            for name, process in list(active.items()):
                if process.poll() is not None:
                    del active[name]
                    if process.returncode:
                        failed.append(name)
                        print(f"{name} failed: see {evidence.folder / name}.log", flush=True)
            ready = [run for run in waiting if evidence.may_begin(run)]
            if waiting and not active and not ready:
                failed += [run.name for run in waiting]
                print(f"not begun, since what they begin with is not there: {', '.join(run.name for run in waiting)}")
                break
            for run in ready[: jobs - len(active)]:
                waiting.remove(run)
                active[run.name] = evidence.start(run)
                print(f"{time.strftime('%H:%M:%S')} {run.name} from epoch {evidence.done(run)}", flush=True)
            time.sleep(1)
    finally:
        for process in active.values():
            process.terminate()
        for process in active.values():
            process.wait()
    return failed


def record(evidence: Evidence, runs: Sequence[Run], target: Path, data_name: str) -> None:
    """Writes what has finished epochs as one JSON file a run, and the curves of each model."""
    target.mkdir(parents=True, exist_ok=True)
    found = {run: recorded(evidence.folder / run.name, data_name) for run in runs if evidence.done(run)}
    for run, told in found.items():
        (target / f"{run.name}.json").write_text(json.dumps(told, indent=1) + "\n")
    for model in {run.model for run in found}:
        plot({run.name: told for run, told in found.items() if run.model == model}, target / f"{model}.png")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("--data-dir", type=Path, help="CIFAR-10: folder or archive")
    parser.add_argument("--sets", default="main", help="main, prune, stored, resnet, digits; several with commas")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--bf16", action="store_true", help="float runs multiply in bfloat16")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and what is done")
    parser.add_argument("--record", type=Path, metavar="OUT", help="write data and plots of what is there, and train nothing")
    parser.add_argument("--data-name", default="CIFAR-10", help="what to call the data beside each figure")
    options = parser.parse_args()
    runs = runs_of(options.sets.split(","), options.epochs, options.bf16)
    threads = max((os.cpu_count() or 1) // options.jobs, 1)
    evidence = Evidence(options.runs, options.data_dir, options.epochs, options.seed, threads)
    if options.record:
        record(evidence, runs, options.record, options.data_name)
    elif options.dry_run:
        for run in runs:
            print(f"{evidence.done(run):3} of {options.epochs}  {shlex.join(['fixgrad', *evidence.command(run)])}")
    else:
        options.runs.mkdir(parents=True, exist_ok=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the runs are ended too
        try:
            raise SystemExit(1 if train(evidence, runs, options.jobs) else 0)
        except KeyboardInterrupt:
            raise SystemExit("interrupted: the same command goes on where the runs stand") from None


if __name__ == "__main__":
    main()
