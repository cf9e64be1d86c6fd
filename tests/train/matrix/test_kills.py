"""A run that SIGKILL ends, at any moment, and that is resumed: the bits of a run that nothing interrupted."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Of the moments; each is named in the test's identifier.
SEED = 20
MOMENTS = 20
WRITES = 10
TIMEOUT = 120
SHARES = [round(random.Random(f"{SEED}/write/{index}").random(), 3) for index in range(WRITES)]


class Nursery:
    """The process of `nursery.py`."""

    def __init__(self, folder: Path) -> None:
        self.whole = folder / "whole"
        command = [sys.executable, Path(__file__).parent / "nursery.py", self.whole]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == "ready"
        begin = time.monotonic()
        self.wait(self.start(folder / "measured"))
        #: Seconds and lines of a run that nothing interrupts, after its process is there.
        self.seconds = time.monotonic() - begin
        self.lines = int((folder / "measured.lines").read_text())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, out: Path, last: int = 0) -> int:
        """A process that finishes the run in `out`, or ends before line number `last` of its writing to the disk."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{out} {last}\n")
        self._process.stdin.flush()
        return int(self._answer())

    def wait(self, process: int) -> None:
        end = time.monotonic() + TIMEOUT
        while Path(f"/proc/{process}").exists():
            assert time.monotonic() < end, "a run does not end"
            time.sleep(0.005)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(TIMEOUT)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


def bytes_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "checkpoints").glob("*.safetensors"))}


def check_resumed(nursery: Nursery, out: Path) -> None:
    nursery.wait(nursery.start(out))
    assert len(bytes_of(out)) == 5
    assert bytes_of(out) == bytes_of(nursery.whole)
    assert not list((out / "checkpoints").glob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("moment", [round(random.Random(f"{SEED}/{index}").random(), 3) for index in range(MOMENTS)])
def test_killed_at_a_random_moment(moment: float, nursery: Nursery, tmp_path: Path) -> None:
    """`moment` is the share of the run's time after which it is killed."""
    out = tmp_path / "run"
    process = nursery.start(out)
    time.sleep(moment * nursery.seconds)
    if Path(f"/proc/{process}").exists():
        os.kill(process, signal.SIGKILL)
    nursery.wait(process)
    check_resumed(nursery, out)


@pytest.mark.slow
def test_a_run_by_adam_killed_before_it_is_done(nursery: Nursery, tmp_path: Path) -> None:
    """After its second epoch at the earliest: the second moments come from a checkpoint."""
    whole, out = tmp_path / "adam-whole", tmp_path / "adam-run"
    nursery.wait(nursery.start(whole))
    process = nursery.start(out)
    while not (out / "checkpoints" / "epoch-0002.safetensors").exists():
        assert Path(f"/proc/{process}").exists()
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    nursery.wait(process)
    assert 3 <= len(bytes_of(out)) <= 5
    nursery.wait(nursery.start(out))
    assert len(bytes_of(out)) == 5
    assert bytes_of(out) == bytes_of(whole)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.01, *SHARES])
def test_killed_while_it_writes(share: float, nursery: Nursery, tmp_path: Path) -> None:
    """Before a line of the function that puts checkpoints, metrics and configuration on the disk, chosen from all."""
    out = tmp_path / "run"
    last = 1 + int(share * nursery.lines)
    nursery.wait(nursery.start(out, last))
    assert not out.with_suffix(".lines").exists(), "it was not killed"
    check_resumed(nursery, out)
