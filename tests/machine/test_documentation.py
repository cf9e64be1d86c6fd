"""The generated pages are what the tables say, and say all of it."""

import re
from pathlib import Path

import pytest

from fixgrad.machine import decode, disassemble
from fixgrad.machine.documentation import PAGES, instructions_page, main, outdated, registers_page, write
from fixgrad.machine.encoding import layout
from fixgrad.machine.instructions import HEADER, INSTRUCTION_BYTES, KINDS, STEP_PARAMETERS
from fixgrad.machine.registers import REGISTERS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_pages_of_this_checkout_are_up_to_date() -> None:
    assert outdated(DOCS) == [], "run python -m fixgrad.machine.documentation --write"


def test_check_names_what_is_outdated_and_write_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--docs", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("\n") == len(PAGES)
    assert main(["--write", "--docs", str(tmp_path)]) == 0
    assert main(["--check", "--docs", str(tmp_path)]) == 0
    page = tmp_path / "registers.md"
    page.write_text(page.read_text().replace("0x010", "0x014"))
    assert main(["--check", "--docs", str(tmp_path)]) == 1
    assert "registers.md is not what the tables say" in capsys.readouterr().out
    write(tmp_path)
    assert outdated(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_bit_table_of_a_kind_covers_its_fields(kind: object) -> None:
    assert kind in KINDS
    name = kind.name  # type: ignore[attr-defined]
    section = instructions_page().split(f"\n## {name}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+)-(\d+) \| (?:(\d+) x )?(\d+)", section, re.MULTILINE)
    bit = sum(field.bits for field in HEADER)
    for first, last, times, width in rows:
        assert int(first) == bit
        bit = int(last) + 1
        assert bit - int(first) == int(times or 1) * int(width)
    assert bit == max(place.bit + place.field.bits for place in layout(name).values())
    edge = re.compile(r"(in|out)\d_(top|bottom|left|right)")
    for place in list(layout(name).values())[len(HEADER) :]:
        assert edge.match(place.field.name) or f"`{place.field.name}`" in section
    assert kind.loop_nest in section  # type: ignore[attr-defined]


def test_the_example_is_a_real_encoding() -> None:
    page = instructions_page()
    text = re.search(r"As an example, `([^`]*)`", page)
    data = re.search(r"```\n([0-9a-f ]+)\n```", page)
    assert text
    assert data
    assert disassemble(decode(bytes.fromhex(data[1]).ljust(INSTRUCTION_BYTES, b"\0"))) == text[1]


def test_every_step_parameter_and_register_has_its_row() -> None:
    page = instructions_page().split("## The step table")[1]
    for parameter in STEP_PARAMETERS:
        assert re.search(
            rf"^\| {parameter.offset} \| {parameter.bytes}(, signed)? \| `{parameter.name}` \|", page, re.MULTILINE
        )
    for register in REGISTERS:
        assert f"| {register.offset:#05x} | `{register.name}` | {register.access} |" in registers_page()
