"""Several workers of one run on this machine, each a process: they are started, watched, and ended together.

`torchrun` does the same over several machines. This one needs no port, says in one line what went wrong, and leaves no
worker behind: each ends when the process that started it does, even by SIGKILL.
"""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from fixgrad.errors import UsageError

#: As in `fixgrad.train.process_group`, which this process does not import: it needs no PyTorch.
RENDEZVOUS = "FIXGRAD_RENDEZVOUS"
#: Number of the pipe that ends with the process that started the workers.
LIFELINE = "FIXGRAD_LIFELINE"
#: Seconds that the others have to end by themselves after one failed, and again after SIGTERM.
GRACE = 5.0
#: Exit code of a worker that ends because another one failed, and of failures that have no code of their own.
FOLLOWER = 1
_POLL = 0.05


def run_workers(count: int, arguments: Sequence[str], threads: int | None = None) -> tuple[int, str]:
    """Run the command `fixgrad ARGUMENTS` as `count` workers, and wait for their end.

    Args:
        count: number of workers, 1 or more.
        arguments: of the command, the same for all.
        threads: of each worker; None: a fair share of the cores.

    Returns:
        the exit code (that of a worker that failed by itself), and what is to be said of one that a signal ended.
    """
    if count < 1:
        raise UsageError(f"workers is {count}: choose 1 or more")
    share = threads or max(1, len(os.sched_getaffinity(0)) // count)
    command = [sys.executable, "-m", "fixgrad.cli", *arguments]
    with TemporaryDirectory(prefix="fixgrad-") as folder:
        lifeline, ours = os.pipe()
        environments = [_environment(rank, count, share, Path(folder), lifeline) for rank in range(count)]
        workers = [subprocess.Popen(command, env=environment, pass_fds=[lifeline]) for environment in environments]
        os.close(lifeline)
        try:
            return _watch(workers)
        finally:
            _end(workers)
            os.close(ours)


def _environment(rank: int, count: int, threads: int, folder: Path, lifeline: int) -> dict[str, str]:
    given = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": str(threads),
        RENDEZVOUS: str(folder / "rendezvous"),
        LIFELINE: str(lifeline),
    }
    # Whatever this machine is called, its workers meet on its loopback.
    return {"GLOO_SOCKET_IFNAME": "lo", **os.environ, **given}


def _watch(workers: Sequence["subprocess.Popen[bytes]"]) -> tuple[int, str]:
    """Until all have ended, or one has failed."""
    given_up = math.inf
    while True:
        codes = [worker.poll() for worker in workers]
        failed = [(rank, code) for rank, code in enumerate(codes) if code]
        # One that a signal ended could not say so itself: the others only notice.
        for rank, code in failed:
            if code < 0:
                return 128 - code, f"worker {rank} of {len(workers)} was ended by {signal.Signals(-code).name}"
        # One that only follows ends with `FOLLOWER`, maybe before the one that it follows.
        for _, code in failed:
            if code != FOLLOWER:
                return code, ""
        if all(code is not None for code in codes) or time.monotonic() > given_up:
            return max((code for _, code in failed), default=0), ""
        if failed and given_up == math.inf:
            given_up = time.monotonic() + GRACE
        time.sleep(_POLL)


def _end(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End those that are left: a failure of one reaches the others as a message first."""
    for ask in (lambda _: None, subprocess.Popen.terminate, subprocess.Popen.kill):
        for worker in workers:
            if worker.poll() is None:
                ask(worker)
        end = time.monotonic() + GRACE
        while time.monotonic() < end and any(worker.poll() is None for worker in workers):
            time.sleep(_POLL)


def hold_lifeline() -> None:
    """In a worker: end at once when the process that started it is gone. Elsewhere nothing."""
    pipe = os.environ.get(LIFELINE)
    if pipe is None:
        return

    def wait() -> None:
        os.read(int(pipe), 1)  # nobody writes: this returns when the other end is closed
        os._exit(1)

    threading.Thread(target=wait, name="fixgrad-lifeline", daemon=True).start()
