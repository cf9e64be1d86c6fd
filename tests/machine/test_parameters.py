"""A machine is refused unless every parameter makes sense, and the message names the one that does not."""

import dataclasses
import json
import re
from typing import Any

import pytest

from fixgrad.errors import DataError, UsageError
from fixgrad.machine import Machine, preset
from fixgrad.machine.files import changed, load_machine, machine_named, parameter_names, save_machine

TINY = preset("tiny")


def test_sizes_that_follow() -> None:
    machine = preset("kcu1500")
    assert (machine.pes, machine.macs, machine.peak_gops) == (32, 1024, 512.0)
    assert (machine.half_lane_words, machine.half_gradient_words) == (256, 1024)
    assert machine.microseconds(1000) == 4.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 0}, "machine tiny: groups is 0: choose 1 to 64"),
        ({"lanes": 65}, "machine tiny: lanes is 65: choose 1 to 64"),
        ({"lanes": True}, "machine tiny: lanes is True: choose 1 to 64"),
        ({"input_words": 1.5}, "machine tiny: input_words is 1.5: choose 16 to 16384"),
        ({"lane_words": 129}, "machine tiny: lane_words is 129: choose an even number, for two halves"),
        ({"pes_per_group": 3}, "machine tiny: pes_per_group is 3: choose 1, 2 or 4, which split a rectangle evenly"),
        ({"groups": 4, "post_processors": 3}, "machine tiny: 4 groups do not divide among 3 post-processors"),
        ({"clock_mhz": 0.0}, "machine tiny: clock_mhz is 0.0: choose 1 to 1000"),
        ({"clock_mhz": float("nan")}, "machine tiny: clock_mhz is nan: choose 1 to 1000"),
        ({"banks": 2}, "machine tiny has no parameter 'banks': it has name, groups, "),
    ],
)
def test_what_makes_no_machine(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        TINY.with_changes(**change)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("memory", {"interleave": 96}, "memory.interleave is 96: choose a power of two"),
        ("memory", {"interleave": 32}, "memory.interleave is 32: choose 64 to 1073741824"),
        ("memory", {"channels": 0}, "memory.channels is 0: choose 1 to 64"),
        ("memory", {"port_bytes": 48}, "memory.port_bytes is 48: choose a power of two"),
        ("device", {"dsp": -1}, "device.dsp is -1: choose 0 to "),
        ("latencies", {"compute": 0}, "latencies.compute is 0: choose 1 to 1000"),
    ],
)
def test_parts_are_checked_too(part: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        dataclasses.replace(getattr(TINY, part), **change)


def test_a_dictionary_gives_the_machine_back_and_its_digest_follows_every_value() -> None:
    assert Machine.from_dict(TINY.to_dict()) == TINY
    assert Machine.from_dict(TINY.to_dict()).digest() == TINY.digest()
    digests = {TINY.digest()}
    names = parameter_names(TINY.to_dict())
    for name in names:
        digests.add(changed(TINY, [f"{name}={_another(name)}"]).digest())
    assert len(digests) == 1 + len(names)


def _another(name: str) -> object:
    """A value of a parameter that tiny has not."""
    value: Any = TINY.to_dict()
    for part in name.split("."):
        value = value[part]
    if isinstance(value, str):
        return value + "x"
    return {"pes_per_group": 4, "post_processors": 2}.get(name, value * 2 if value else 1)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v.pop("groups"), "groups is missing: give an integer"),
        (lambda v: v.pop("memory"), "memory is missing: give an object"),
        (lambda v: v["memory"].pop("channels"), "memory.channels is missing: give an integer"),
        (lambda v: v.update(group=2), "group is no parameter of a machine: choose name, groups, "),
        (lambda v: v["device"].update(bram=2), "device.bram is no parameter of a machine: choose device.part, "),
        (lambda v: v.update(groups="2"), "groups is '2': give an integer"),
        (lambda v: v.update(groups=None), "groups is None: give an integer"),
        (lambda v: v.update(groups=True), "groups is True: give an integer"),
        (lambda v: v.update(name=3), "name is 3: give a text"),
        (lambda v: v.update(memory=3), "memory is 3: give an object of parameters"),
        (lambda v: v["memory"].update(channels=0), "memory.channels is 0: choose 1 to 64"),
    ],
)
def test_a_file_with_a_wrong_parameter_names_file_and_parameter(tmp_path: Any, edit: Any, message: str) -> None:
    values = TINY.to_dict()
    edit(values)
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        Machine.from_dict(values)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=f"^{re.escape(f'machine file {path}: {message}')}"):
        load_machine(path)


def test_latencies_may_be_left_out_and_a_whole_clock_is_a_number() -> None:
    values = TINY.to_dict()
    del values["latencies"]
    values["clock_mhz"] = 100
    assert Machine.from_dict(values) == TINY


def test_a_saved_machine_is_the_same_machine(tmp_path: Any) -> None:
    machine = changed(TINY, ["name=mine", "groups=4", "memory.channels=2", "clock_mhz=125"])
    assert (machine.groups, machine.memory.channels, machine.clock_mhz) == (4, 2, 125.0)
    path = tmp_path / "mine.json"
    save_machine(machine, path)
    assert load_machine(path) == machine_named(str(path)) == machine
    save_machine(TINY, path)
    assert load_machine(path) == TINY
    assert [item.name for item in tmp_path.iterdir()] == ["mine.json"]
    assert machine_named("kcu1500") is preset("kcu1500")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("groups", "'groups' sets nothing: write NAME=VALUE, such as groups=4"),
        ("group=4", "'group' is no parameter of a machine: did you mean groups? choose name, "),
        ("memory=4", "'memory' is no parameter of a machine: "),
        ("groups=four", "groups is 'four': give an integer"),
        ("groups=65", "machine tiny: groups is 65: choose 1 to 64"),
        ("memory.interleave=100", "memory.interleave is 100: choose a power of two"),
    ],
)
def test_settings_that_cannot_be(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        changed(TINY, [setting])


def test_files_that_are_none(tmp_path: Any) -> None:
    missing, text, deep = tmp_path / "missing.json", tmp_path / "text.json", tmp_path / "deep.json"
    text.write_text("{groups: 4}")
    deep.write_text("[" * 100_000)
    for path, message in (
        (missing, "No such file or directory: give a JSON file or one of kcu1500, "),
        (text, "is not JSON: Expecting property name"),
        (deep, "is not JSON"),
    ):
        with pytest.raises(DataError, match=f"machine file {re.escape(str(path))}:? {message}"):
            load_machine(path)
    with pytest.raises(DataError, match="No such file or directory"):
        save_machine(TINY, tmp_path / "no" / "such.json")
