"""Differences between two devices are found, explained, shrunk to a few instructions, and kept in a file."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fixgrad.errors import DataError
from fixgrad.machine import preset
from fixgrad.machine.device import Outcome
from fixgrad.machine.encoding import decode_program
from fixgrad.machine.generate import RandomProgram, random_program
from fixgrad.machine.generate_file import load_case, save_case
from fixgrad.machine.instructions import INSTRUCTION_BYTES
from fixgrad.machine.registers import ErrorCode
from fixgrad.simulate.differential import difference, memory_after, shrunk
from fixgrad.simulate.functional import FunctionalDevice

TINY = preset("tiny")


class Faulty(FunctionalDevice):
    """A machine whose LOSS gives a wrong error to the first lane."""

    def run(self, address: int, instructions: int) -> Outcome:
        outcome = super().run(address, instructions)
        program = decode_program(self.read_memory(address, instructions * INSTRUCTION_BYTES).tobytes())
        for each in program:
            if each.name == "LOSS":
                self._memory[each.target] ^= 1
        return outcome


class Stopping(FunctionalDevice):
    """A machine that knows no LOSS."""

    def run(self, address: int, instructions: int) -> Outcome:
        program = decode_program(self.read_memory(address, instructions * INSTRUCTION_BYTES).tobytes())
        index = next((i for i, each in enumerate(program) if each.name == "LOSS"), None)
        return super().run(address, instructions) if index is None else Outcome(ErrorCode.ILLEGAL_OPCODE, index)


def with_loss() -> RandomProgram:
    programs = (random_program(TINY, seed) for seed in range(100))
    return next(p for p in programs if any(each.name == "LOSS" for each in p.instructions[:-20]))


def test_equal_devices_do_not_differ() -> None:
    program = with_loss()
    assert difference(program, memory_after(program), FunctionalDevice(TINY, 1 << 20)) is None


def test_a_difference_is_shrunk_to_the_instruction_that_makes_it(tmp_path: Path) -> None:
    program, device = with_loss(), Faulty(TINY, 1 << 20)
    found = difference(program, memory_after(program), device)
    assert found is not None
    assert "written by instruction" in found.reason
    assert "LOSS" in found.reason

    def fails(candidate: RandomProgram) -> bool:
        return difference(candidate, memory_after(candidate), device) is not None

    small = shrunk(program, fails)
    assert fails(small)
    assert len(small.instructions) < len(program.instructions)
    # A LOSS whose entry of the step table was never loaded would be a fault of the program.
    assert [each.name for each in small.instructions] == ["LOAD_PARAMS", "LOSS", "HALT"]

    path = tmp_path / "failures" / "case.npz"
    save_case(small, path, "LOSS is wrong")
    again = load_case(path)
    assert again.instructions == small.instructions
    assert again.machine == TINY
    assert again.regions == small.regions
    assert np.array_equal(again.image, small.image)
    assert fails(again)
    listing = path.with_suffix(".txt").read_text()
    assert "LOSS is wrong" in listing
    assert str(small.instructions[0]) in listing


def test_a_shrunk_program_keeps_the_order_that_it_needs() -> None:
    """Whatever is left out of a program, its memory does not depend on the pace of its units."""

    def changed(candidate: RandomProgram) -> NDArray[np.bool_]:
        return memory_after(candidate) != candidate.image

    for seed in range(2):
        program = random_program(TINY, seed)
        last = np.flatnonzero(changed(program))[-1]
        small = shrunk(program, lambda candidate, last=last: bool(changed(candidate)[last]))  # type: ignore[misc]
        assert len(small.instructions) < len(program.instructions)
        assert difference(small, memory_after(small), FunctionalDevice(TINY, 1 << 20)) is None


def test_a_machine_that_stops_differs() -> None:
    program = with_loss()
    found = difference(program, memory_after(program), Stopping(TINY, 1 << 20))
    assert found is not None
    assert found.address is None
    assert found.reason.startswith("the opcode is of no kind of instruction: instruction ")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nothing"])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "case.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"case\.npz"):
        load_case(path)
    with pytest.raises(DataError, match="No such file"):
        load_case(tmp_path / "none.npz")
