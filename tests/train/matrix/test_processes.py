"""Workers as real processes: started by `--workers` and by `torchrun`, killed, and continued by others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixgrad.train.request import RunRequest
from fixgrad.train.run import TrainingRun

TIMEOUT = 300
REQUEST = RunRequest(model="digits", data="digits", batch=241, epochs=2, density="0.4", prune_epoch=1, seed=5)
OPTIONS = [
    *("--model", "digits", "--data", "digits", "--batch", 241, "--epochs", 2, "--density", 0.4, "--prune-epoch", 1),
    *("--seed", 5, "--no-tensorboard"),
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def bytes_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "checkpoints").glob("*.safetensors"))}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The run in one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    run = TrainingRun.begin(REQUEST, out)
    for _ in run.train():
        pass
    run.close()
    return bytes_of(out)


def fixgrad(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fixgrad.cli", *map(str, arguments)]


def torchrun(count: int, *arguments: object) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [*launcher, "-m", "fixgrad.cli", *map(str, arguments)]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=ENVIRONMENT)


def test_two_processes_write_what_one_does(tmp_path: Path, alone: dict[str, bytes]) -> None:
    done = run(fixgrad("train", *OPTIONS, "--out", tmp_path / "run", "--workers", 2))
    assert (done.returncode, done.stderr) == (0, "")
    assert bytes_of(tmp_path / "run") == alone
    assert len(done.stdout.splitlines()) == 3, "one worker prints, a heading and a line an epoch"


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(8))
def test_what_all_processes_meet_is_told_once(tmp_path: Path, attempt: int) -> None:
    """Every time: while one process ends, its exchange with the others may be at any point."""
    done = run(fixgrad("train", *OPTIONS, "--out", tmp_path / "run", "--workers", 2, "--density", 3))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_torchrun(count: int, tmp_path: Path, alone: dict[str, bytes]) -> None:
    done = run(torchrun(count, "train", *OPTIONS, "--out", tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert bytes_of(tmp_path / "run") == alone


@pytest.mark.slow
def test_torchrun_and_workers_exclude_each_other(tmp_path: Path) -> None:
    done = run(torchrun(2, "train", *OPTIONS, "--out", tmp_path / "run", "--workers", 2))
    assert done.returncode != 0
    assert "--workers 2 cannot be given to torchrun: it has started 2 itself" in done.stderr


def children_of(process: int) -> dict[int, int]:
    """Process identifiers of the workers that a process started, by their rank."""
    found = {}
    for text in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        variables = Path(f"/proc/{text}/environ").read_bytes().split(b"\0")
        ranks = [int(variable[5:]) for variable in variables if variable.startswith(b"RANK=")]
        if ranks:
            found[ranks[0]] = int(text)
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@pytest.fixture
def long_run(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], dict[int, int], Path]]:
    """A run of two workers after its first epoch: the process that started them, the workers, and its folder."""
    out = tmp_path / "run"
    command = fixgrad("train", *OPTIONS, "--epochs", 200, "--out", out, "--workers", 2)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored, which processes inherit
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    signal.signal(signal.SIGINT, before)
    wait_for(lambda: (out / "checkpoints" / "epoch-0001.safetensors").exists() or process.poll() is not None)
    assert process.poll() is None
    workers = children_of(process.pid)
    assert sorted(workers) == [0, 1]
    yield process, workers, out
    for each in (process.pid, *workers.values()):
        if is_running(each):
            os.kill(each, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_dies_ends_all_and_says_so(rank: int, long_run: tuple[subprocess.Popen[str], dict[int, int], Path]) -> None:
    process, workers, out = long_run
    os.kill(workers[rank], signal.SIGKILL)
    _, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGKILL
    assert f"error: worker {rank} of 2 was ended by SIGKILL; continue with `fixgrad train --resume {out}`" in stderr
    assert "Traceback" not in stderr
    assert not any(is_running(worker) for worker in workers.values())
    resumed = TrainingRun.resume(out)  # nobody holds the lock
    resumed.close()


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(
    long_run: tuple[subprocess.Popen[str], dict[int, int], Path],
) -> None:
    process, workers, _ = long_run
    process.kill()
    wait_for(lambda: not any(is_running(worker) for worker in workers.values()))


@pytest.mark.slow
def test_an_interruption_says_how_to_continue(long_run: tuple[subprocess.Popen[str], dict[int, int], Path]) -> None:
    process, workers, out = long_run
    for each in (process.pid, *workers.values()):  # as a terminal does
        os.kill(each, signal.SIGINT)
    _, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert stderr.splitlines() == [f"continue with `fixgrad train --resume {out}`", "interrupted"]
