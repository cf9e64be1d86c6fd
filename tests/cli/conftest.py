"""The command line in a process of its own, as a user has it."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def fixgrad() -> Run:
    """`fixgrad(*arguments)` runs the command with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fixgrad.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)

    return run
