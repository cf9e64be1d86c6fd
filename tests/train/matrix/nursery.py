"""A process that is ready to train, and forks a child for each line that it reads: ``FOLDER LINE``.

The child begins the run in FOLDER (by Adam, where its name begins so) or continues it, to its end, and kills itself with
SIGKILL before line number LINE of all that it executes of `write_atomically` (0: never); how many it executed it leaves in
FOLDER.lines. The parent answers with the child's process identifier. Children need no second to import PyTorch, so many can
be killed.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from fixgrad.network import Optimiser
from fixgrad.train.request import RunRequest
from fixgrad.train.run import TrainingRun
from fixgrad.train.sealed_file import write_atomically

REQUEST = RunRequest(model="digits", data="digits", epochs=4, batch=240, density="0.4", prune_epoch=1, seed=3)
REQUESTS = {"sgd": REQUEST, "adam": replace(REQUEST, optimiser=Optimiser.ADAM)}


def finish(out: Path) -> None:
    """Train the run in `out` to its end."""
    request = REQUESTS["adam" if out.name.startswith("adam") else "sgd"]
    run = TrainingRun.resume(out) if (out / "config.json").exists() else TrainingRun.begin(request, out)
    for _ in run.train():
        pass
    run.close()


class Count:
    """Counts the lines of `write_atomically` that are executed, and ends the process before one of them."""

    def __init__(self, last: int) -> None:
        self.lines, self._last = 0, last

    def calls(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self.each_line if frame.f_code is write_atomically.__code__ else None

    def each_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self._last:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.each_line


def child(out: Path, last: int) -> None:
    count = Count(last)
    sys.settrace(count.calls)
    finish(out)
    sys.settrace(None)
    out.with_suffix(".lines").write_text(str(count.lines))


def main() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    finish(Path(sys.argv[1]))
    print("ready", flush=True)
    for request in sys.stdin:
        out, last = request.split()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(Path(out), int(last))
                code = 0
            finally:
                os._exit(code)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
