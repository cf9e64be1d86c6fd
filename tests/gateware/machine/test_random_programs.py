"""Random programs in RTL and in the functional simulator: the same memory, byte for byte. Other ones in every run.

A failure is shrunk to a few instructions and saved with its listing in `build/failures`; run it again with
`fixgrad verify --program FILE`.
"""

import secrets
from pathlib import Path

import pytest

from fixgrad.gateware.simulation import RtlDevice
from fixgrad.machine.generate import RandomProgram, random_program
from fixgrad.machine.generate_file import save_case
from fixgrad.simulate.differential import difference, memory_after, shrunk

PROGRAMS = 25


def check(device: RtlDevice, seed: int, root: Path) -> None:
    program = random_program(device.machine, seed)
    if difference(program, memory_after(program), device) is None:
        return

    def fails(candidate: RandomProgram) -> bool:
        return difference(candidate, memory_after(candidate), device) is not None

    small = shrunk(program, fails) if fails(program) else program
    found = difference(small, memory_after(small), device)
    path = root / "build" / "failures" / f"{device.machine.name}-{seed}.npz"
    reason = found.reason if found else "not again: it depends on what ran before"
    save_case(small, path, reason)
    pytest.fail(f"seed {seed}: {reason}; saved as {path}")


@pytest.mark.parametrize("name", ["tiny", "hostile_tiny"])
def test_random_programs(name: str, request: pytest.FixtureRequest) -> None:
    device: RtlDevice = request.getfixturevalue(name)
    first = secrets.randbelow(1 << 40)
    for seed in (*range(5), *range(first, first + PROGRAMS)):
        check(device, seed, request.config.rootpath)
