"""What a program must not do is a typed fault that names the instruction."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fixgrad.errors import FixgradError
from fixgrad.machine.encoding import disassemble
from fixgrad.simulate.functional import IllegalInstruction, Order, run

BEYOND = (1 << 40) - 64


def refused(step: Any, instructions: list[Any], index: int, reason: str) -> None:
    """Running the instructions ends at `index`, for `reason`, in program order and in another."""
    for order in (None, Order(seed=2)):
        with pytest.raises(IllegalInstruction, match=reason) as caught:
            step.memory_after(instructions, order)
        fault = caught.value
        assert isinstance(fault, FixgradError)
        assert fault.index == index
        assert fault.text == disassemble(instructions[index])
        assert str(fault).startswith(f"instruction {index}: ")
        assert "\n" not in str(fault)


OUTSIDE = {
    "LOAD_PARAMS": {"source": BEYOND},
    "LOAD_INPUT": {"source": BEYOND},
    "LOAD_ERROR": {"source": BEYOND},
    "LOAD_KERNELS": {"index": BEYOND},
    "POST": {"target": BEYOND},
    "LOSS": {"logits": BEYOND},
    "UPDATE": {"stored": BEYOND},
    "STATISTICS": {"target": BEYOND},
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_memory_ends_where_the_image_does(step: Any, name: str) -> None:
    index = step.first(name) if name != "LOAD_KERNELS" else step.first(name, with_data=1)
    refused(step, step.changed(index, **OUTSIDE[name]), index, "are outside of the memory of 0x")


def test_the_last_byte_of_memory_may_be_read_and_none_behind_it(step: Any) -> None:
    end, index = len(step.image), step.first("LOAD_PARAMS")
    size = 64 * step.program.instructions[index].count
    refused(step, step.changed(index, source=end - size + 1), index, "are outside of the memory")
    with pytest.raises(IllegalInstruction) as caught:
        step.memory_after(step.changed(index, source=end - size))
    assert caught.value.index > index  # what it read there is no step table, which shows later


ON_CHIP: dict[str, tuple[str, dict[str, int], dict[str, int], str]] = {
    "input buffer": ("LOAD_INPUT", {}, {"buffer": 127}, "exceed the buffer of 128"),
    "channel's slot": ("LOAD_INPUT", {}, {"slot_words": 1}, "or a channel its slot"),
    "lane memory": ("LOAD_ERROR", {}, {"lane_base": 63}, "exceed the lane memory of 64"),
    "parameter memory": ("LOAD_PARAMS", {}, {"first": 60}, "exceed the 64 of the parameter memory"),
    "group": ("LOAD_KERNELS", {}, {"group": 5}, "group 5, PE . does not exist: the machine has 2 groups of 2"),
    "accumulators": ("COMPUTE", {"mode": 0}, {"lane_base": 63}, "exceed the lane memory of 64"),
    "compute's input": ("COMPUTE", {"mode": 0}, {"buffer": 120}, "exceed the input buffer of 128"),
    "gradients": ("COMPUTE", {"mode": 2}, {"gradient_base": 250}, "exceed the gradient memory of 256"),
    "step-table entry": ("POST", {}, {"param": 900}, "entry 900 is outside of the parameter memory of 64"),
    "gradient of UPDATE": ("UPDATE", {"from_memory": 0}, {"gradient_base": 255}, "gradients up to .*: the machine has 2 groups of 256"),
    "rectangle": ("COMPUTE", {"mode": 0}, {"out0_top": 3, "out0_bottom": 1}, "rectangle out0 ends before it begins"),
}


@pytest.mark.parametrize("name", ON_CHIP)
def test_each_memory_on_the_chip_ends(step: Any, name: str) -> None:
    kind, where, fields, reason = ON_CHIP[name]
    index = step.first(kind, **where)
    refused(step, step.changed(index, **fields), index, reason)


def test_inputs_that_were_never_loaded(step: Any) -> None:
    load = step.first("LOAD_INPUT")
    instructions = step.changed(load, channels=0)
    refused(step, instructions, step.first("COMPUTE"), r"input channel \d+ at word \d+ of the input buffer was never loaded")


def test_errors_that_were_never_loaded(step: Any) -> None:
    load = step.first("LOAD_ERROR")
    layer = step.program.instructions[load].layer
    index = step.first("COMPUTE", mode=2, layer=layer)
    refused(step, step.changed(load, channels=0), index, r"the errors at word \d+ of the lane memories of group \d were never loaded")


def test_parameters_that_were_never_loaded(step: Any) -> None:
    load = step.first("LOAD_PARAMS")
    refused(step, step.changed(load, count=0), step.first("POST"), "was never loaded into the parameter memory")


def test_a_tap_inside_the_image_finds_its_pixel(step: Any) -> None:
    index = step.first("COMPUTE", mode=0)
    item = step.program.instructions[index]
    instructions = step.changed(index, in0_bottom=item.in0_bottom - 1)
    refused(step, instructions, index, r"input pixel \(\d+, \d+\) is not in the buffer")


def test_accumulators_that_no_one_has_cleared_or_drained(step: Any) -> None:
    first = step.first("COMPUTE", mode=0, clear=1)
    refused(step, step.changed(first, clear=0), first, "was not cleared")
    post = step.first("POST")
    instructions = step.instructions
    instructions[post + 1 : post + 1] = [instructions[post]]
    with pytest.raises(IllegalInstruction, match="has no accumulators to drain"):
        run_in_place(step, instructions)


def run_in_place(step: Any, instructions: list[Any]) -> None:
    """Run a program that is longer than the compiled one, behind the image."""
    from types import SimpleNamespace

    from fixgrad.compiler.program import Instructions
    from fixgrad.machine.encoding import encode_program

    data = np.frombuffer(encode_program(instructions), np.uint8)
    image = np.concatenate([step.image, data])
    place = SimpleNamespace(address=len(step.image), end=len(image))
    stand_in: Any = SimpleNamespace(
        machine=step.program.machine, layout=SimpleNamespace(regions={"program": place}), instructions=Instructions
    )
    run(stand_in, image)


def test_queues_that_run_over_or_dry(step: Any) -> None:
    names = [item.name for item in step.instructions]
    ends = {name: max(index for index, other in enumerate(names) if other == name) for name in ("LOAD_KERNELS", "COMPUTE")}
    refused(step, step.changed(ends["LOAD_KERNELS"], last=0), ends["COMPUTE"], "runs empty before its end mark")
    first = step.first("LOAD_KERNELS")
    refused(step, step.changed(first, count=65), first, r"a kernel queue overflows: \d+ words of 64")


def test_a_gradient_is_taken_once_and_not_before_it_is_there(step: Any) -> None:
    index = step.first("UPDATE", from_memory=0)
    compute = step.first("COMPUTE", mode=2)
    instructions = step.changed(index, wait_compute=0)
    with pytest.raises(IllegalInstruction, match="has not been computed, or has been taken already") as caught:
        step.memory_after(instructions, Order(seed=None, units=tuple(reversed(Order().units))))
    assert caught.value.index == index > compute


def test_a_label_must_be_a_class(step: Any) -> None:
    region, index = step.program.layout.regions["labels"], step.first("LOSS")
    image = step.image.copy()
    image[region.address] = 200
    with pytest.raises(IllegalInstruction, match="label 200 is none of 4 classes") as caught:
        run(step.program, image)
    assert caught.value.index == index


def test_a_program_must_end(step: Any) -> None:
    instructions = step.instructions
    instructions[-1] = instructions[step.first("LOAD_INPUT")].replace(wait_load=0)
    with pytest.raises(IllegalInstruction, match="the program ends without HALT"):
        step.memory_after(instructions)


@pytest.mark.parametrize("spoil", [lambda data: data.fill(255), lambda data: data.__setitem__(127, 255)])
def test_bytes_that_are_no_instruction(step: Any, spoil: Callable[[Any], None]) -> None:
    region = step.program.layout.regions["program"]
    image = step.image.copy()
    spoil(image[region.address + 3 * 128 : region.address + 4 * 128])
    with pytest.raises(FixgradError, match=re.escape("instruction 3 (byte 384): ")):
        run(step.program, image)


def outcome(step: Any, instructions: list[Any]) -> str:
    try:
        step.memory_after(instructions)
    except IllegalInstruction:
        return "fault"
    return "ran"


def test_random_damage_is_a_fault_or_another_result_never_a_crash(step: Any) -> None:
    """Any field of any instruction, set to any value that it holds."""
    from fixgrad.machine.encoding import layout

    rng, outcomes = np.random.default_rng(9), set()
    instructions = step.instructions
    for _ in range(30):
        index = int(rng.integers(len(instructions)))
        places = [place for name, place in layout(instructions[index].name).items() if name != "opcode"]
        place = places[int(rng.integers(len(places)))]
        value = int(rng.integers(place.low, place.high + 1, dtype=np.int64))
        outcomes.add(outcome(step, step.changed(index, **{place.field.name: value})))
    assert outcomes == {"ran", "fault"}
