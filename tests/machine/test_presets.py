"""The machines that come with fixgrad are what they say, and fit their chips."""

import pytest

from fixgrad.errors import UsageError
from fixgrad.machine import PRESETS, Machine, explain_mismatch, identity, preset
from fixgrad.machine.resources import resources_of
from fixgrad.simulate.bounds import memory_rate


def test_the_talks_machine() -> None:
    machine = preset("kcu1500")
    assert (machine.groups, machine.pes_per_group, machine.lanes, machine.clock_mhz) == (8, 4, 32, 250.0)
    assert (machine.macs, machine.peak_gops) == (1024, 512.0)
    assert (machine.memory.standard, machine.memory.channels) == ("ddr4_2400", 2)
    assert (machine.device.dsp, machine.device.blocks, machine.device.lut, machine.device.ff) == (
        5520,
        2160,
        663_360,
        1_326_720,
    )


def test_the_test_machines() -> None:
    tiny, formal = preset("tiny"), preset("formal")
    assert (tiny.groups, tiny.pes_per_group, tiny.lanes) == (2, 2, 4)
    assert (formal.groups, formal.pes_per_group, formal.lanes) == (1, 1, 1)
    smaller = {"input_words": 16, "lane_words": 16, "kernel_words": 16, "gradient_words": 32, "param_words": 8}
    assert all(getattr(formal, name) == least for name, least in smaller.items())


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_its_chip_and_has_a_memory(name: str) -> None:
    machine = preset(name)
    assert machine.name == name
    resources_of(machine).check()
    assert memory_rate(machine) > 0
    assert Machine.from_dict(machine.to_dict()) == machine


def test_presets_have_identities_of_their_own() -> None:
    assert len({identity(machine) for machine in PRESETS.values()}) == len(PRESETS)


def test_an_unknown_preset_is_refused_with_the_names() -> None:
    with pytest.raises(UsageError, match=r"machine 'kcu150' is unknown: did you mean kcu1500\? choose kcu1500, tiny, formal, "):
        preset("kcu150")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kcu1500", "59f74652725bcfa5"),
        ("tiny", "7f056c99c1d69663"),
        ("formal", "70b692efd2671fa1"),
        ("ecp5-85f", "fd9eeae8e7e26235"),
    ],
)
def test_an_elementwise_unit_elsewhere_changes_nothing_of_a_machine_without(name: str, expected: str) -> None:
    assert identity(PRESETS[name]) == expected


def test_a_machine_with_an_elementwise_unit_is_another_one() -> None:
    for name in ("tiny", "kcu1500"):
        machine, graph = PRESETS[name], PRESETS[f"{name}-graph"]
        assert "elementwise_lanes: none here" in explain_mismatch(machine, graph)
        assert "instruction_set" in explain_mismatch(machine, graph)
        assert Machine.from_dict(graph.to_dict()) == graph
    with pytest.raises(UsageError, match="elementwise_lanes is 3: choose 0 or a divisor of 4 lanes"):
        PRESETS["tiny"].with_changes(elementwise_lanes=3)
