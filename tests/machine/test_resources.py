"""Resources: memories by hand, the limits of the presets, and what is said when a machine is too large."""

import itertools
import json
import re

import pytest

from fixgrad.errors import UsageError
from fixgrad.machine import preset
from fixgrad.machine.files import changed
from fixgrad.machine.resource_estimate import multiplier_slices
from fixgrad.machine.resources import Resources, resources_of

KCU1500 = resources_of(preset("kcu1500"))


def blocks(found: Resources) -> dict[str, float]:
    return {part.name: part.blocks for part in found.parts if part.blocks}


def test_memories_of_the_talks_machine_by_hand() -> None:
    """Halves of BRAM36: 512 x 36, 1024 x 18 or 2048 x 9."""
    assert blocks(KCU1500) == {
        "lane memory": 1024 * 0.5,  # 512 x 32
        "input buffer": 32 * 15 * 0.5,  # 1024 x 256: 15 columns of 18
        "kernel queue": 32 * 3 * 0.5,  # 512 x (72 + 9 + 10 + 2): 3 columns of 36
        "gradient memory": 32 * 4 * 0.5,  # 2048 x 32: 4 columns of 9
        "loss unit": 0.5 + 4 * 0.5 * 1,  # 256 x 17; 4096 x 17: 2 columns of 9, 2 rows
        "memory ports": 2 * 2 * 15 * 0.5,  # 128 x 512: 15 columns of 36
        "parameters and ranges": (4 + 3) * 0.5,  # 1024 x 64: 4 columns of 18; 256 x 96: 3 of 36
        "memory controller": 2 * 25.5,
    }


def test_the_talks_machine_is_within_the_limits_asked_of_it() -> None:
    assert KCU1500.bram36 == KCU1500.blocks == 951 <= 1060
    assert KCU1500.dsp == 1024 + 4 * 6 + 1 + 2 * 3 <= 1100
    # The talk's own: 199,111 LUT and 249,122 registers. The estimate must not be another kind of machine.
    assert 0.6 < KCU1500.lut / 199_111 < 1.3
    assert 0.6 < KCU1500.ff / 249_122 < 1.3


def test_the_small_board_has_room() -> None:
    found = resources_of(preset("ecp5-85f"))
    assert found.blocks <= 208
    assert found.dsp <= 156
    assert found.lut <= 83_640
    assert blocks(found)["lane memory"] == 8  # 512 x 32 in one DP16KD each
    assert found.bram36 == found.blocks / 2


@pytest.mark.parametrize(
    ("settings", "short", "largest"),
    [
        (["groups=32", "lanes=64"], "BRAM36", "lane memory 4096, input buffer "),
        (["groups=64", "lanes=64", "input_words=16", "lane_words=16"], "DSP", "lanes (MACs) 16384, update lane 192"),
    ],
)
def test_what_does_not_fit_is_named_with_the_largest_parts(settings: list[str], short: str, largest: str) -> None:
    found = resources_of(changed(preset("kcu1500"), settings))
    shortfall = next(item for item in found.shortfalls if item.resource == short)
    assert shortfall.needed > shortfall.available
    assert f"{shortfall.needed:g} {short} needed, {shortfall.available:,} available; most of it: {largest}" in str(shortfall)
    message = f"machine kcu1500 does not fit XCKU115: .*{re.escape(str(shortfall))}.*Fewer groups"
    with pytest.raises(UsageError, match=message):
        found.check()


def test_a_machine_without_a_chip_fits_and_has_no_controller() -> None:
    found = resources_of(preset("tiny"))
    assert found.shortfalls == ()
    assert found.dsp == 16 + 1 * 6 + 1
    assert [part.count for part in found.parts if part.name == "memory controller"] == [0]


@pytest.mark.parametrize(
    "name", ["groups", "pes_per_group", "lanes", "input_words", "lane_words", "kernel_words", "gradient_words"]
)
def test_more_of_anything_never_takes_less(name: str) -> None:
    small = preset("tiny")
    doubled = {"input_words": 8, "kernel_words": 16, "lane_words": 16, "gradient_words": 32}.get(name, 2)
    large = small.with_changes(**{name: getattr(small, name) * doubled})
    before, after = resources_of(small), resources_of(large)
    assert after.dsp >= before.dsp
    assert after.blocks >= before.blocks
    assert after.lut >= before.lut or after.blocks > before.blocks  # a deeper memory may move from LUTs to blocks
    assert (after.dsp, after.blocks, after.lut, after.ff) != (before.dsp, before.blocks, before.lut, before.ff)


def test_slices_of_a_multiplier() -> None:
    assert multiplier_slices(8, 8, (27, 18)) == 1
    assert multiplier_slices(27, 18, (27, 18)) == multiplier_slices(18, 27, (27, 18)) == 1
    assert multiplier_slices(32, 9, (27, 18)) == multiplier_slices(32, 9, (18, 18)) == 2
    assert multiplier_slices(35, 18, (18, 18)) == 2
    assert multiplier_slices(36, 18, (18, 18)) == 3
    for a, b in itertools.product(range(1, 70, 7), range(1, 40, 5)):
        assert multiplier_slices(a, b, (27, 18)) <= multiplier_slices(a, b, (18, 18))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("device.block_kind=M20K", "device.block_kind is 'M20K': choose BRAM36, "),
        ("memory.standard=gddr6", "memory.standard is 'gddr6': its controller is unknown; known are ddr4, hbm2, sdr"),
    ],
)
def test_unknown_kinds_are_refused(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        resources_of(changed(preset("kcu1500"), [setting]))


def test_json_adds_up() -> None:
    found = json.loads(json.dumps(KCU1500.to_dict()))
    assert found["fits"] is True
    assert found["dsp"] == sum(part["dsp"] for part in found["parts"])
    assert found["bram36"] == sum(part["blocks"] for part in found["parts"])
    assert all(part["formula"] for part in found["parts"])
