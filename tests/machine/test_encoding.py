"""Instructions as objects, bytes and text: round trips for every kind, and what is refused."""

import copy
import pickle
import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.machine import (
    Instruction,
    InstructionError,
    ProgramError,
    decode,
    decode_program,
    disassemble,
    disassemble_program,
    encode_program,
    explain_mismatch,
    identity,
    identity_record,
    instruction_set_digest,
    preset,
)
from fixgrad.machine import encoding as encoding_module
from fixgrad.machine.encoding import LABELS, layout, used_bits
from fixgrad.machine.instructions import BY_NAME, HEADER, INSTRUCTION_BYTES, KINDS, Kind, Unit

NAMES = [kind.name for kind in KINDS]
PADDED = [name for name in NAMES if used_bits(name) < 8 * INSTRUCTION_BYTES]


@st.composite
def instructions(draw: st.DrawFn) -> Instruction:
    name = draw(st.sampled_from(NAMES))
    places = list(layout(name).values())[1:]
    return Instruction(name, **{p.field.name: draw(st.integers(p.low, p.high)) for p in places})


@given(instructions())
def test_encode_then_decode_gives_the_same_instruction(instruction: Instruction) -> None:
    data = instruction.encode()
    assert len(data) == INSTRUCTION_BYTES
    assert decode(data) == instruction
    assert hash(decode(data)) == hash(instruction)
    assert decode(data).encode() == data


@given(st.lists(instructions(), max_size=6))
def test_a_program_is_its_instructions_one_after_another(program: list[Instruction]) -> None:
    data = encode_program(program)
    assert len(data) == INSTRUCTION_BYTES * len(program)
    assert decode_program(data) == program


@given(st.binary(min_size=INSTRUCTION_BYTES, max_size=INSTRUCTION_BYTES))
def test_any_bytes_are_refused_or_are_exactly_an_encoding(data: bytes) -> None:
    try:
        instruction = decode(data)
    except ProgramError:
        return
    assert instruction.encode() == data


@pytest.mark.parametrize("name", NAMES)
def test_fields_lie_one_after_another_from_bit_0(name: str) -> None:
    bit = 0
    for field in (*HEADER, *BY_NAME[name].fields):
        place = layout(name)[field.name]
        if field.name != "opcode":
            word = int.from_bytes(Instruction(name, **{field.name: place.high}).encode(), "little")
            assert word == BY_NAME[name].opcode | place.high << bit
        bit += field.bits
    assert bit == used_bits(name) <= 8 * INSTRUCTION_BYTES


def test_a_field_across_byte_borders_by_hand() -> None:
    data = Instruction("LOAD_PARAMS", layer=0xAB, source=0x123456789A, count=3).encode()
    source, count = layout("LOAD_PARAMS")["source"].bit, layout("LOAD_PARAMS")["count"].bit
    assert data[:2] == bytes([1, 0xAB])
    assert int.from_bytes(data, "little") == 1 | 0xAB << 8 | 0x123456789A << source | 3 << count


def test_what_is_not_given_is_zero_and_fields_are_attributes() -> None:
    instruction = Instruction("COMPUTE", mode=2, wait_load=7, out3_right=16)
    assert (instruction.mode, instruction.wait_load, instruction.out3_right, instruction.clear) == (2, 7, 16, 0)
    assert (instruction.name, instruction.unit, instruction.opcode) == ("COMPUTE", Unit.COMPUTE, 5)
    assert instruction.kind is BY_NAME["COMPUTE"]
    assert instruction.to_dict()["mode"] == 2


def test_integers_of_numpy_become_plain_integers() -> None:
    instruction = Instruction("LOAD_PARAMS", count=np.int16(12))
    assert instruction == Instruction("LOAD_PARAMS", count=12)
    assert type(instruction.count) is int


@pytest.mark.parametrize("name", NAMES)
def test_every_field_takes_its_limits_and_nothing_beyond(name: str) -> None:
    for place in list(layout(name).values())[1:]:
        field = place.field.name
        for value in (place.low, place.high):
            assert getattr(decode(Instruction(name, **{field: value}).encode()), field) == value
        for value in (place.low - 1, place.high + 1):
            message = f"{name}: {field} is {value}: it must be {place.low} to {place.high}"
            with pytest.raises(InstructionError, match=f"^{re.escape(message)}$"):
                Instruction(name, **{field: value})


def test_signed_fields_are_twos_complement(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Kind("SHIFT", 77, Unit.POST, (encoding_module.Field("by", 6, "", signed=True),), "", "")
    monkeypatch.setitem(encoding_module.BY_NAME, kind.name, kind)
    monkeypatch.setitem(encoding_module.BY_OPCODE, kind.opcode, kind)
    for value in (-32, -1, 0, 31):
        data = Instruction("SHIFT", by=value).encode()
        assert int.from_bytes(data, "little") == 77 | (value % 64) << layout("SHIFT")["by"].bit
        assert decode(data).by == value
    with pytest.raises(InstructionError, match="by is 32: it must be -32 to 31"):
        Instruction("SHIFT", by=32)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("COMPUT", {}, "instruction 'COMPUT' is unknown: choose HALT, "),
        ("HALT", {"mode": 1}, "HALT has no field 'mode': it has opcode, layer, "),
        ("HALT", {"layer": 1.0}, "HALT: layer is 1.0: it must be an integer"),
        ("HALT", {"layer": None}, "HALT: layer is None: it must be an integer"),
        ("HALT", {"opcode": 5}, "HALT: opcode is 5: it must be 0; leave it out"),
    ],
)
def test_wrong_names_and_types_are_refused(name: str, fields: dict[str, int], message: str) -> None:
    with pytest.raises(InstructionError, match=f"^{re.escape(message)}"):
        Instruction(name, **fields)


def test_an_instruction_cannot_be_changed_but_replaced_and_copied() -> None:
    instruction = Instruction("UPDATE", group=3, count=9)
    with pytest.raises(AttributeError, match="immutable"):
        instruction.count = 10  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        del instruction.kind
    with pytest.raises(AttributeError, match="UPDATE has no field 'mode'"):
        _ = instruction.mode
    assert instruction.replace(count=10).count == 10
    assert instruction.count == 9
    assert copy.deepcopy(instruction) == copy.copy(instruction) == pickle.loads(pickle.dumps(instruction)) == instruction
    assert instruction != instruction.replace(count=10)
    assert eval(repr(instruction)) == instruction


@pytest.mark.parametrize(
    ("data", "position", "message"),
    [
        (b"", None, None),
        (bytes(127), 0, r"instruction 0 \(byte 0\): 127 bytes: an instruction has 128"),
        (bytes(130), 128, r"instruction 1 \(byte 128\): 2 bytes: an instruction has 128"),
        (bytes(256) + b"\xfe" + bytes(127), 256, r"instruction 2 \(byte 256\): opcode 254 is illegal: it must be one of 0, 1,"),
        (bytes(127) + b"\x80", 0, r"HALT has bit 1023 set: bits from \d+ on must be zero"),
    ],
)
def test_bytes_that_are_no_instruction(data: bytes, position: int | None, message: str | None) -> None:
    if message is None:
        assert decode_program(data) == []
        return
    with pytest.raises(ProgramError, match=message) as caught:
        decode_program(data)
    assert caught.value.position == position


@pytest.mark.parametrize("name", PADDED)
def test_the_first_bit_after_the_last_field_must_be_zero(name: str) -> None:
    word = int.from_bytes(Instruction(name).encode(), "little") | 1 << used_bits(name)
    with pytest.raises(ProgramError, match=f"{name} has bit {used_bits(name)} set"):
        decode(word.to_bytes(INSTRUCTION_BYTES, "little"))


def test_disassembly_shows_what_is_not_zero() -> None:
    assert disassemble(Instruction("HALT")) == "HALT"
    instruction = Instruction("LOAD_PARAMS", wait_post=3, source=0x1000, count=12)
    assert disassemble(instruction) == str(instruction) == "LOAD_PARAMS wait_post=3 source=0x1000 count=12"
    assert disassemble_program([instruction, Instruction("HALT")]).splitlines()[1] == "     1  HALT"


def test_twenty_thousand_instructions_encode_in_half_a_second() -> None:
    fields = {p.field.name: p.high for p in list(layout("COMPUTE").values())[1:]}
    program = [Instruction("COMPUTE", **fields)] * 20_000
    start = time.process_time()
    data = encode_program(program)
    assert time.process_time() - start < 0.5
    assert len(data) == 20_000 * INSTRUCTION_BYTES


def test_identity_ignores_labels_and_nothing_else() -> None:
    machine = preset("tiny")
    assert re.fullmatch(r"[0-9a-f]{16}", identity(machine))
    assert identity(machine.with_changes(name="mine", board="mine", device=preset("kcu1500").device)) == identity(machine)
    for field, value in identity_record(machine)["machine"].items():
        if isinstance(value, int) and field not in LABELS:
            changed = machine.with_changes(**{field: value * 2 if field != "post_processors" else 2})
            assert identity(changed) != identity(machine), field
            assert explain_mismatch(machine, changed) == f"{field}: {value} here, {getattr(changed, field)} there"
    assert explain_mismatch(machine, machine) == ""


def test_a_mismatch_names_nested_fields_and_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = preset("tiny")
    record = identity_record(machine)
    record["machine"]["memory"]["channels"] = 4
    assert explain_mismatch(machine, record) == "memory.channels: 1 here, 4 there"
    before = instruction_set_digest(machine)
    monkeypatch.setattr(encoding_module, "INSTRUCTION_SET_VERSION", -1)
    assert instruction_set_digest(machine) != before
    old = {**identity_record(machine), "instruction_set": before}
    assert explain_mismatch(old, machine) == f"instruction_set: {before} here, {instruction_set_digest(machine)} there"
