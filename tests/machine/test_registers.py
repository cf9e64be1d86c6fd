"""The register map: offsets, fields, resets, and the C header against a compiler."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fixgrad.errors import UsageError
from fixgrad.machine import identity, preset
from fixgrad.machine.instructions import Unit
from fixgrad.machine.registers import (
    ADDRESS_SPACE,
    CAUSES,
    MAGIC,
    REGISTER_BY_NAME,
    REGISTERS,
    Access,
    ErrorCode,
    as_dict,
    as_json,
    c_header,
    counter_name,
    register,
    reset_value,
)

TINY = preset("tiny")


def test_registers_follow_one_another_and_fit_the_address_space() -> None:
    assert [each.offset for each in REGISTERS] == [4 * index for index in range(len(REGISTERS))]
    assert len(REGISTER_BY_NAME) == len(REGISTERS)
    assert ADDRESS_SPACE / 2 < 4 * len(REGISTERS) <= ADDRESS_SPACE
    assert ADDRESS_SPACE & (ADDRESS_SPACE - 1) == 0


def test_what_a_host_needs_stays_at_its_place() -> None:
    names = "MAGIC VERSION IDENTITY_LOW IDENTITY_HIGH CONTROL STATUS PROGRAM_LOW PROGRAM_HIGH PROGRAM_LENGTH ERROR"
    names += " ERROR_INSTRUCTION INTERRUPT_ENABLE INTERRUPT_STATUS EXPECTED_IDENTITY_LOW EXPECTED_IDENTITY_HIGH"
    names += " MEMORY_BASE_LOW MEMORY_BASE_HIGH MEMORY_LIMIT_LOW MEMORY_LIMIT_HIGH TIMEOUT ERROR_ADDRESS_LOW ERROR_ADDRESS_HIGH"
    assert [register(name).offset for name in names.split()] == list(range(0, 0x58, 4))
    assert register("CONTROL").access is Access.PULSE
    assert register("INTERRUPT_STATUS").access is Access.WRITE_ONE_TO_CLEAR
    writable = {each.name for each in REGISTERS if each.access is Access.READ_WRITE}
    wide = ("EXPECTED_IDENTITY", "MEMORY_BASE", "MEMORY_LIMIT", "PROGRAM")
    pairs = {f"{name}_{half}" for name in wide for half in ("LOW", "HIGH")}
    assert writable == pairs | {"PROGRAM_LENGTH", "INTERRUPT_ENABLE", "TIMEOUT"}


def test_fields_of_a_register_do_not_overlap() -> None:
    for each in REGISTERS:
        taken = list(itertools.chain.from_iterable(range(bits.low, bits.low + bits.width) for bits in each.bits))
        assert len(taken) == len(set(taken))
        assert all(0 <= bit < 32 for bit in taken)


def test_resets_tell_the_host_which_machine_it_has() -> None:
    low, high = (reset_value(register(f"IDENTITY_{half}"), TINY) for half in ("LOW", "HIGH"))
    assert f"{high:08x}{low:08x}" == identity(TINY)
    assert reset_value(register("MAGIC"), TINY) == MAGIC == 0x46584752
    assert reset_value(register("LANES"), TINY) == TINY.lanes
    assert reset_value(register("STATUS"), TINY) == 0
    assert all(0 <= reset_value(each, preset("kcu1500")) < 1 << 32 for each in REGISTERS)


def test_every_unit_that_runs_instructions_counts_where_its_cycles_go() -> None:
    assert set(CAUSES) == set(Unit) - {Unit.CONTROL}
    for unit, causes in CAUSES.items():
        assert f"COMPLETED_{unit.name}" in REGISTER_BY_NAME
        for cause in causes:
            low, high = (register(f"{counter_name(unit, cause)}_{half}") for half in ("LOW", "HIGH"))
            assert high.offset == low.offset + 4


def test_json_holds_the_whole_map() -> None:
    found = json.loads(as_json(TINY))
    assert found == as_dict(TINY)
    assert [entry["name"] for entry in found["registers"]] == [each.name for each in REGISTERS]
    assert found["errors"] == {code.name: code.value for code in ErrorCode}
    assert len({code.text for code in ErrorCode}) == len(ErrorCode)


def test_an_unknown_register_is_named() -> None:
    with pytest.raises(UsageError, match=r"register 'STATE' is unknown: choose MAGIC, "):
        register("STATE")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_c_compiler_sees_the_same_numbers(tmp_path: Path) -> None:
    header = c_header(TINY)
    expected = {f"FIXGRAD_{each.name}": each.offset for each in REGISTERS}
    for each in REGISTERS:
        for bits in each.bits:
            expected[f"FIXGRAD_{each.name}_{bits.name.upper()}"] = (2**bits.width - 1) << bits.low
    expected |= {f"FIXGRAD_ERROR_{code.name}": int(code) for code in ErrorCode}
    expected |= {"FIXGRAD_IDENTITY": int(identity(TINY), 16), "FIXGRAD_MAGIC_VALUE": MAGIC}
    expected["FIXGRAD_ADDRESS_SPACE"] = ADDRESS_SPACE
    assert set(re.findall(r"#define (FIXGRAD_\w+) [^\s]", header)) == set(expected)
    (tmp_path / "fixgrad.h").write_text(header)
    checks = "\n".join(f'_Static_assert({name} == {value}ull, "{name}");' for name, value in expected.items())
    (tmp_path / "check.c").write_text(f'#include "fixgrad.h"\n#include "fixgrad.h"\n{checks}\n')
    command = ["cc", "-std=c11", "-Wall", "-Werror", "-pedantic", "-fsyntax-only", "check.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
