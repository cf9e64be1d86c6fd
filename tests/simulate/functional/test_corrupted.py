"""A program or a weight that was altered: the first tensor that differs is named, and the instruction that wrote it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fixgrad.compiler import MemoryLayout
from fixgrad.machine.encoding import disassemble
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.network.state_arrays import state_from_arrays, state_to_arrays
from fixgrad.simulate.functional import FunctionalExecutor, Verification, functional_subject, reference_subject, verify


@pytest.fixture
def verified(step: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], Verification]:
    """The comparison with the reference of a step whose memory was spoiled before it ran."""
    build = MemoryLayout.build_image

    def compare(spoil: Callable[[Any], None]) -> Verification:
        def spoiled(*arguments: Any) -> Any:
            image = build(*arguments)
            spoil(image)
            return image

        monkeypatch.setattr(MemoryLayout, "build_image", spoiled)
        program = step.program
        copy = state_from_arrays(program.network, *state_to_arrays(step.state))
        reference = reference_subject(ReferenceExecutor(program.network, copy, program.recipe, 1))
        return verify(program.network, [reference, functional_subject(FunctionalExecutor(program, step.state, 1))], [step.batch])

    return compare


def test_nothing_spoiled_is_equal(verified: Any) -> None:
    assert verified(lambda image: None).equal


def test_an_altered_instruction_is_the_one_that_is_named(step: Any, verified: Any) -> None:
    index = step.first("POST", mode=0, layer=1)
    altered = step.program.instructions[index].replace(rectify=0)
    address = step.program.layout.regions["program"].address + 128 * index

    def spoil(image: Any) -> None:
        image[address : address + 128] = np.frombuffer(altered.encode(), np.uint8)

    found = verified(spoil).first_mismatch
    assert (found.layer, found.phase, found.kind, found.tensor) == ("b", "ff", "activation", "b")
    assert found.got < found.expected == 0
    assert found.instruction.startswith(f"{index}: POST ")


@pytest.mark.parametrize(
    ("region", "layer", "kind"),
    [("operand/a", "a", "activation"), ("stored/b", "b", "momentum"), ("momentum/b", "b", "momentum")],
)
def test_an_altered_weight_shows_where_it_is_used_first(step: Any, verified: Any, region: str, layer: str, kind: str) -> None:
    address = step.program.layout.regions[region].address

    def spoil(image: Any) -> None:
        image[address + 2] ^= 64

    result = verified(spoil)
    found = result.first_mismatch
    assert not result.equal
    assert (found.layer, found.kind) == (layer, kind)
    assert found.expected != found.got
    position, _, text = found.instruction.partition(": ")
    assert text == disassemble(step.program.instructions[int(position)])
