"""Machines of the user's own: JSON files with the parameters of `Machine`, checked one by one."""

import json
import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fixgrad.errors import DataError, UsageError
from fixgrad.machine.parameters import Machine
from fixgrad.machine.presets import PRESETS, preset


def machine_named(text: str) -> Machine:
    """The preset of that name, or the machine in that JSON file.

    Raises:
        UsageError: neither a preset nor a file whose name ends with .json.
        DataError: the file is missing or damaged, or a parameter in it is wrong.
    """
    return load_machine(Path(text)) if text.lower().endswith(".json") else preset(text)


def load_machine(path: Path) -> Machine:
    """The machine in a JSON file.

    Raises:
        DataError: missing, no JSON, or a parameter that is missing, unknown or out of range: file and parameter are named.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise DataError(f"machine file {path}: {problem.strerror}: give a JSON file or one of {', '.join(PRESETS)}") from None
    except (ValueError, RecursionError) as problem:
        raise DataError(f"machine file {path} is not JSON: {problem}") from None
    try:
        return Machine.from_dict(values)
    except UsageError as problem:
        raise DataError(f"machine file {path}: {problem}") from None


def save_machine(machine: Machine, path: Path) -> None:
    """Write a machine as JSON, whole or not at all; an existing file is replaced."""
    text = json.dumps(machine.to_dict(), indent=2) + "\n"
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as problem:
        beside.unlink(missing_ok=True)
        raise DataError(f"machine file {path}: {problem.strerror}") from None


def changed(machine: Machine, settings: Iterable[str]) -> Machine:
    """A copy with parameters set from text, as ``groups=4`` or ``memory.channels=1``.

    Raises:
        UsageError: no such parameter, or a value that does not suit it.
    """
    values = machine.to_dict()
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"{setting!r} sets nothing: write NAME=VALUE, such as groups=4")
        place, key = _place(values, name.strip())
        place[key] = _parsed(text.strip(), name.strip(), place[key])
    return Machine.from_dict(values)


def _place(values: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The dictionary that holds a parameter, and its key there."""
    known = parameter_names(values)
    if name not in known:
        close = get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"{name!r} is no parameter of a machine: {hint}choose {', '.join(known)}")
    *outer, key = name.split(".")
    for part in outer:
        values = values[part]
    return values, key


def parameter_names(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of all parameters in a machine's dictionary."""
    names: list[str] = []
    for name, value in values.items():
        names += parameter_names(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [f"{prefix}{name}"]
    return names


def _parsed(text: str, name: str, like: object) -> object:
    """A value of the type that the parameter has now."""
    if isinstance(like, str):
        return text
    kind, what = (float, "a number") if isinstance(like, float) else (int, "an integer")
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}: give {what}") from None
