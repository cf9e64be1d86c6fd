"""Random programs in RTL and in the functional simulator: the same memory, byte for byte. Other ones in every run.

A failure is shrunk to a few instructions and saved with its listing in `build/failures`; run it again with
`fixgrad verify --program FILE`.
"""

import secrets
from pathlib import Path

import pytest

from fixgrad.cli.app import main
from fixgrad.gateware.simulation import RtlDevice
from fixgrad.machine import preset
from fixgrad.machine.generate import RandomProgram, random_program
from fixgrad.machine.generate_file import save_case
from fixgrad.simulate.differential import difference, memory_after, shrunk

TINY = preset("tiny")
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


@pytest.mark.parametrize("name", ["tiny", "hostile_tiny", "hostile_graph", pytest.param("hostile_blocks", marks=pytest.mark.slow)])
def test_random_programs(name: str, request: pytest.FixtureRequest) -> None:
    device: RtlDevice = request.getfixturevalue(name)
    first = secrets.randbelow(1 << 40)
    for seed in (*range(5), *range(first, first + PROGRAMS)):
        check(device, seed, request.config.rootpath)


def test_the_command_compares_random_programs_and_saved_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "--random", "3", "--machine", "tiny", "--seed", "2"]) == 0
    assert "equal in every byte of memory after 3 programs on tiny" in capsys.readouterr().out
    program = random_program(TINY, 4)
    save_case(program, tmp_path / "case.npz", "as it is")
    assert main(["verify", "--program", "case.npz"]) == 0
    assert "after a program on tiny" in capsys.readouterr().out
    assert main(["verify", "--program", "case.npz", "--model", "digits"]) == 2
