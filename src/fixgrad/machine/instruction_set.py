"""How two versions of the instruction set differ, field by field."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from fixgrad.machine.encoding import instruction_set_record
from fixgrad.machine.parameters import Machine

#: Differences that a message lists.
LISTED = 4


def explain_instruction_set(theirs: Mapping[str, Any], machine: Machine) -> str:
    """How a machine's instruction set differs from another one's `instruction_set_record`; empty where it does not.

    ``POST.channels: field 3 of 12 bits here, field 3 of 10 bits there``, and so on; after the first few only how many more.
    """
    found = list(_differences(dict(_flat(instruction_set_record(machine))), dict(_flat(theirs))))
    more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return "; ".join(islice(found, LISTED)) + more


def _differences(mine: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[str]:
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        here, there = mine.get(name, "none"), theirs.get(name, "none")
        if here != there:
            yield f"{name}: {here} here, {there} there"


def _flat(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("version", "bytes", "step_entry_bytes"):
        yield name, str(record[name])
    yield from _fields("header", record["header"])
    for name, (opcode, unit, fields) in record["kinds"].items():
        yield name, f"opcode {opcode} of {unit}"
        yield from _fields(name, fields)
    for name, (offset, size, signed) in record["step_parameters"].items():
        yield f"step table {name}", f"{size} {'signed' if signed else 'unsigned'} bytes at {offset}"


def _fields(owner: str, fields: list[list[Any]]) -> Iterator[tuple[str, str]]:
    for number, (name, bits, signed) in enumerate(fields, start=1):
        yield f"{owner}.{name}", f"field {number} of {bits} {'signed ' if signed else ''}bits"
