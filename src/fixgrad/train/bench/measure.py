"""Steps taken in turn in one process, and the peak of memory of each in processes of their own."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from fixgrad.errors import FixgradError
from fixgrad.network import Network
from fixgrad.train.bench.contestants import Contest, Contestant, Step
from fixgrad.train.bench.other_load import OtherLoad
from fixgrad.train.environment import processor_name
from fixgrad.train.kernels.gemm import choose_path
from fixgrad.train.threads import use_threads

#: Steps before the measured ones: they compile, choose kernels, and fill caches.
WARM_UP = 3
#: Processes for each peak of memory.
MEMORY_ROUNDS = 3
#: Called with what is being done, and how many units of work are done.
Told = Callable[[str, int], None]


class Spread(NamedTuple):
    """A quantity that was measured several times."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one or more values."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of each contestant, one number a round; rounds are adjacent in time.

    Attributes:
        seconds: of a step, by the clock.
        cpu_seconds: of a step, processor time of all threads of the process: others on the machine hardly lengthen it.
        other_load: processors that other programs kept busy during the rounds, on average; None where that is not known.
        peak_bytes: of resident memory of a process that takes steps, PyTorch itself included; empty on a GPU.
    """

    seconds: Mapping[Contestant, Sequence[float]]
    cpu_seconds: Mapping[Contestant, Sequence[float]]
    peak_bytes: Mapping[Contestant, Sequence[float]]
    other_load: float | None = None

    def ratio(self, ours: Contestant, theirs: Contestant) -> Spread | None:
        """Time of our step by time of theirs, round by round; None where one did not take part."""
        return _ratio(self.seconds, ours, theirs)

    def cpu_ratio(self, ours: Contestant, theirs: Contestant) -> Spread | None:
        """The same of processor times."""
        return _ratio(self.cpu_seconds, ours, theirs)

    def memory_ratio(self, ours: Contestant, theirs: Contestant) -> Spread | None:
        """The same of peaks of memory."""
        return _ratio(self.peak_bytes, ours, theirs)


def _ratio(values: Mapping[Contestant, Sequence[float]], ours: Contestant, theirs: Contestant) -> Spread | None:
    if not (values.get(ours) and values.get(theirs)):
        return None
    return Spread.of([mine / other for mine, other in zip(values[ours], values[theirs], strict=True)])


def conditions(contest: Contest) -> dict[str, Any]:
    """On what it is measured, as JSON values.

    Raises:
        FixgradError: the path of integer products is not exact here.
    """
    return {
        "batch": contest.batch,
        "density": contest.density,
        "device": contest.device,
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "path": choose_path(contest.path, torch.device(contest.device)).value,
    }


def units_of_work(contest: Contest, rounds: int) -> int:
    """What `measure` counts up to."""
    count = len(contest.contestants)
    return count * (1 + rounds) + (len(_with_peaks(contest)) * MEMORY_ROUNDS)


def measure(contest: Contest, rounds: int, told: Told = lambda what, done: None) -> Measured:
    """Measure all contestants, in turn.

    Args:
        contest: what is compared.
        rounds: steps of each that are measured.
        told: is told how it goes.

    Raises:
        FixgradError: a process whose memory was to be measured failed.
    """
    done = 0
    steps: dict[Contestant, Step] = {}
    for contestant in contest.contestants:
        told(f"preparing {contestant.value}", done)
        steps[contestant] = _warm(contest.step(contestant))
        done += 1
    seconds: dict[Contestant, list[float]] = {contestant: [] for contestant in steps}
    cpu_seconds: dict[Contestant, list[float]] = {contestant: [] for contestant in steps}
    load = OtherLoad()
    for number in range(rounds):
        for contestant, step in steps.items():
            told(f"round {number + 1} of {rounds}", done)
            taken = _time_of(step)
            seconds[contestant].append(taken.clock)
            cpu_seconds[contestant].append(taken.cpu)
            done += 1
    other_load = load.cores()
    steps.clear()
    peaks: dict[Contestant, list[float]] = {contestant: [] for contestant in _with_peaks(contest)}
    for _ in range(MEMORY_ROUNDS):
        for contestant, found in peaks.items():
            told(f"peak memory of {contestant.value}", done)
            found.append(peak_in_a_process(contest, contestant))
            done += 1
    told("done", done)
    return Measured(seconds, {} if contest.device != "cpu" else cpu_seconds, peaks, other_load)


def _with_peaks(contest: Contest) -> list[Contestant]:
    """The sparse step takes the memory of the dense one; the memory of a GPU is not that of a process."""
    if contest.device != "cpu":
        return []
    return [contestant for contestant in contest.contestants if contestant is not Contestant.FIXGRAD_SPARSE]


def _warm(step: Step) -> Step:
    for _ in range(WARM_UP):
        step()
    return step


class _Taken(NamedTuple):
    """Seconds by the clock, and of the processors."""

    clock: float
    cpu: float


def _time_of(step: Step) -> _Taken:
    clock, cpu = time.perf_counter(), time.process_time()
    step()
    return _Taken(time.perf_counter() - clock, time.process_time() - cpu)


def peak_in_a_process(contest: Contest, contestant: Contestant) -> float:
    """Peak of resident memory in bytes of a new process that takes the steps of a warm-up.

    Raises:
        FixgradError: the process failed.
    """
    request = {
        "network": contest.network.to_dict(),
        "batch": contest.batch,
        "path": contest.path,
        "contestant": contestant.value,
        "threads": torch.get_num_threads(),
    }
    command = [sys.executable, "-m", "fixgrad.train.bench.measure"]
    child = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise FixgradError(f"the process that measures the memory of {contestant.value} ended with {child.returncode}: {last}")
    return float(child.stdout)


def own_peak() -> float:
    """Peak of resident memory of this process in bytes. (Linux's `ru_maxrss` starts at that of the parent; VmHWM does not.)"""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024.0


def _child() -> None:
    request = json.load(sys.stdin)
    use_threads(request["threads"])
    contest = Contest(Network.from_dict(request["network"]), request["batch"], path=request["path"])
    _warm(contest.step(Contestant(request["contestant"])))
    print(own_peak())


if __name__ == "__main__":
    _child()
