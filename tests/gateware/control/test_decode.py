"""The decoder against the encoder and the checks, instruction by instruction."""

from dataclasses import dataclass
from random import Random

import numpy as np
import pytest

from fixgrad.gateware.control.checks import checks
from fixgrad.gateware.control.decode import Decode
from fixgrad.gateware.control.layouts import (
    WAIT_UNITS,
    body_bits,
    body_layout,
    elementwise_entry_layout,
    instruction_layout,
    step_entry_layout,
)
from fixgrad.gateware.simulation import Bench, netlist
from fixgrad.machine import PRESETS, Machine, preset
from fixgrad.machine.encoding import Instruction, layout, used_bits
from fixgrad.machine.generate import random_instruction, random_program
from fixgrad.machine.instructions import ALL_KINDS, ALL_STEP_PARAMETERS, HEADER, STEP_PARAMETERS, kinds_of
from fixgrad.machine.registers import ErrorCode

TINY = preset("tiny")
#: Without an elementwise unit, and with one.
MACHINES = (TINY, preset("tiny-graph"))


def as_int(value: object) -> int:
    return int.from_bytes(value.tobytes(), "little") if isinstance(value, np.ndarray) else int(value)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Decoder:
    """A decoder, and the machine that it is of."""

    machine: Machine
    bench: Bench


@pytest.fixture(scope="module", params=MACHINES, ids=lambda machine: machine.name)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return Decoder(request.param, Bench(netlist(Decode(request.param)), quick=True))


def decode(decoder: Decoder, instructions: list[bytes]) -> list[dict[str, int]]:
    """What the decoder makes of instructions; their places count from 0."""
    bench = decoder.bench
    source, sink = bench.source("i"), bench.sink("o")
    bench.reset()
    records = np.zeros(len(instructions), source.dtype)
    records["index"] = range(len(instructions))
    records["word"] = np.frombuffer(b"".join(instructions), np.uint8).reshape(-1, 128)
    source.push(records)
    assert sink.wait(len(instructions), 10 * len(instructions) + 10)
    found, _ = sink.pop()
    return [{name: as_int(record[name]) for name in found.dtype.names} for record in found]


def legal(machine: Machine, instruction: Instruction) -> bool:
    return all(check.holds(instruction.to_dict()) for check in checks(machine)[instruction.name])


def test_every_field_of_every_kind_arrives(decoder: Decoder) -> None:
    random = Random(1)
    instructions = [random_instruction(random, kind.name) for kind in kinds_of(decoder.machine) for _ in range(200)]
    found = decode(decoder, [instruction.encode() for instruction in instructions])
    illegal = 0
    for index, (instruction, record) in enumerate(zip(instructions, found, strict=True)):
        assert record["index"] == index
        assert ErrorCode(record["error"]) is (ErrorCode.NONE if legal(decoder.machine, instruction) else ErrorCode.OUT_OF_RANGE)
        illegal += not legal(decoder.machine, instruction)
        assert record["opcode"] == instruction.kind.opcode
        assert record["halt"] == (instruction.name == "HALT")
        assert record["units"] == sum(1 << place for place, unit in enumerate(WAIT_UNITS) if unit is instruction.unit)
        waits = [record["waits"] >> 24 * place & 0xFFFFFF for place in range(4)]
        assert waits == [getattr(instruction, f"wait_{unit}") for unit in WAIT_UNITS]
        if instruction.name == "UPDATE":
            assert record["group"] == instruction.group
        if instruction.name != "HALT":
            fields = body_layout(instruction.name).from_bits(record["body"] & (1 << body_layout(instruction.name).size) - 1)
            for field in instruction.kind.fields:
                assert fields[field.name] == getattr(instruction, field.name), (instruction.name, field.name)
    assert 100 < illegal < len(instructions) - 100


def test_every_check_at_its_limit_and_behind_it(decoder: Decoder) -> None:
    """Each field alone: its greatest allowed value, and the next one."""
    cases = []
    for name, of_kind in checks(decoder.machine).items():
        for check in of_kind:
            others = {check.unless[0]: check.unless[1] ^ 1} if check.unless else {}
            if not check.terms:
                least = [Instruction(name, **{**others, check.plus[0]: -check.limit - below}) for below in (0, 1)]
                cases += [(instruction, legal(decoder.machine, instruction)) for instruction in least]
                assert [check.holds(instruction.to_dict()) for instruction in least] == [True, False]
            elif not check.plus:
                values = [{**others, check.terms[-1]: value} for value in (check.limit, check.limit + 1)]
                fitting = [v for v in values if all(layout(name)[f].high >= value for f, value in v.items())]
                cases += [(Instruction(name, **v), legal(decoder.machine, Instruction(name, **v))) for v in fitting]
            else:
                low, high = check.terms[0], check.plus[0]
                cases += [(Instruction(name, **{low: 5, high: value}), value >= 5) for value in (4, 5, 6)]
    found = decode(decoder, [instruction.encode() for instruction, _ in cases])
    assert len(cases) > 60
    for (instruction, good), record in zip(cases, found, strict=True):
        assert record["error"] == (0 if good else ErrorCode.OUT_OF_RANGE), str(instruction)
    assert decode(decoder, [Instruction("UPDATE", pe=7).encode()])[0]["error"] == 0


def test_every_opcode_of_no_kind_and_every_bit_of_padding(decoder: Decoder) -> None:
    unknown = [opcode for opcode in range(256) if opcode not in {kind.opcode for kind in kinds_of(decoder.machine)}]
    found = decode(decoder, [bytes([opcode]) + bytes(range(127)) for opcode in unknown])
    assert {record["error"] for record in found} == {ErrorCode.ILLEGAL_OPCODE}
    for name in (kind.name for kind in kinds_of(decoder.machine)):
        word = int.from_bytes(Instruction(name).encode(), "little")
        dirty = [(word | 1 << bit).to_bytes(128, "little") for bit in range(used_bits(name), 1024)]
        assert {record["error"] for record in decode(decoder, dirty)} == {ErrorCode.NONZERO_PADDING}


@pytest.mark.parametrize("seed", range(10))
def test_programs_of_the_generator_pass(seed: int) -> None:
    """The checks refuse nothing that a program needs."""
    for machine in PRESETS.values():
        if machine.name in ("tiny", "ecp5-85f"):
            for instruction in random_program(machine, seed).instructions:
                assert all(check.holds(instruction.to_dict()) for check in checks(machine)[instruction.name]), str(instruction)


def test_layouts_follow_the_tables() -> None:
    for kind in ALL_KINDS:
        fields = instruction_layout(kind.name)
        assert fields.size == used_bits(kind.name)
        assert {name: field.offset for name, field in fields} == {n: place.bit for n, place in layout(kind.name).items()}
        assert [name for name, _ in body_layout(kind.name)] == [field.name for field in kind.fields]
    assert [name for name, _ in instruction_layout("HALT")] == [field.name for field in HEADER]
    for unit in WAIT_UNITS:
        for machine in MACHINES:
            longest = max(body_layout(kind.name).size for kind in kinds_of(machine) if kind.unit is unit)
            assert body_bits(unit, machine) == longest
            assert body_bits(unit) == longest or machine.elementwise_lanes
    for entry, parameters in ((step_entry_layout(), STEP_PARAMETERS), (elementwise_entry_layout(), ALL_STEP_PARAMETERS)):
        assert {name: (field.offset, field.width) for name, field in entry} == {
            p.name: (8 * p.offset, 8 * p.bytes) for p in parameters
        }
