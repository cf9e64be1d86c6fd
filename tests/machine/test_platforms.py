"""Published platforms: the talk's table entry by entry, validation, and times at published rates."""

import tomllib
from importlib import resources
from typing import Any

import pytest

from fixgrad.errors import DataError, UsageError
from fixgrad.machine.energy_data import Kind
from fixgrad.machine.platforms import Function, at_published_rate, load_platforms, platform, platforms_from

TALK_OPS_PER_IMAGE = 3 * 9.811e9 / 32
"""FF, NG and WG of the talk's VGG-11, nothing skipped."""


def raw_table() -> dict[str, Any]:
    file = resources.files("fixgrad.machine") / "data" / "platforms.toml"
    return tomllib.loads(file.read_text("utf-8"))


@pytest.mark.parametrize(
    ("key", "device", "function", "numbers", "sparse", "gops", "watts", "efficiency"),
    [
        ("tcad18", "XC7Z020", "inference", "fixed 8", False, 84.3, 3.5, 24.1),
        ("fpga17", "GX1150", "inference", "fixed 8/16", False, 645.25, 21.2, 30.43),
        ("ese", "KU060", "inference", "fixed 12", True, 2516, 41, 61.4),
        ("fcnn-inference", "Maxeler MPC-X", "inference", "float 32", False, 62.06, None, None),
        ("fcnn-training", "Maxeler MPC-X", "training", "float 32", False, 7.01, 27.3, 0.27),
        ("fpt17", "ZU19EG", "training", "float 32", False, 86.12, 14.2, 6.05),
        ("fpdeep", "VC709", "training", "fixed 16", False, 1022, 32, 31.97),
        ("talk-inference", "KCU1500", "inference", "fixed 8", True, 897.5, 29, 30.95),
        ("talk-training", "KCU1500", "training", "fixed 8/24", True, 641.1, 29, 22.11),
        ("titan-x", "GM200", "training", "float 32", False, 1252, 150, 8.4),
    ],
)
def test_the_talks_table(
    key: str,
    device: str,
    function: str,
    numbers: str,
    sparse: bool,
    gops: float,
    watts: float | None,
    efficiency: float | None,
) -> None:
    p = platform(key)
    assert (p.device, p.function.value, p.numbers, p.sparse) == (device, function, numbers, sparse)
    assert (p.gops, p.watts, p.gops_per_watt) == (gops, watts, efficiency)
    assert p.verified


def test_the_others() -> None:
    assert [platform(f"eta-{n}").gops for n in ("vgg16", "resnet20", "resnet18")] == [610.98, 658.64, 811.24]
    assert platform("xu22").gops_per_watt == 118.4
    assert platform("xu22").power == pytest.approx(1024 / 118.4)
    assert platform("ef-train").power == pytest.approx(47 / 6.09)
    assert (platform("darkfpga").gops, platform("darkfpga").verified) == (1417, False)
    speed_ups = {p.key: p.speed_up for p in load_platforms() if p.gops is None}
    assert speed_ups == {
        "sat-bdwp": 1.75,
        "procrustes": 4.0,
        "eager-pruning": 1.91,
        "sparsetrain": 2.7,
        "tensordash": 1.95,
    }


def test_slips_are_noted() -> None:
    assert not platform("fcnn-training").consistent
    assert "0.257" in platform("fcnn-training").notes
    assert "10.176" in platform("talk-training").notes
    assert "2.86" in platform("talk-training").notes
    assert platform("talk-training").kind is Kind.SIMULATED
    # 641.1 GOP/s = 3 * 9.81 GOP over the total of the three phases, as the note says.
    gops = 3 * 9.81 / (10.931 + 10.988 + 23.993) * 1000
    assert gops == pytest.approx(641.1, rel=1e-3)
    unverified = [p for p in load_platforms() if not p.verified]
    assert all(p.notes for p in unverified)


def test_times_at_published_rates() -> None:
    times = {t.platform.key: t for t in at_published_rate(Function.TRAINING, TALK_OPS_PER_IMAGE, batch=32)}
    assert "tcad18" not in times
    talk, dark = times["talk-training"], times["darkfpga"]
    assert talk.seconds_per_step == pytest.approx(0.04591, rel=1e-3)
    assert talk.seconds_per_image == pytest.approx(0.04591 / 32, rel=1e-3)
    assert talk.joules_per_image == pytest.approx(1.331 / 32, rel=1e-3)
    assert dark.joules_per_image is None
    assert times["titan-x"].joules_per_image == pytest.approx(TALK_OPS_PER_IMAGE / 1252e9 * 150)
    assert times["procrustes"].seconds_per_image is None
    inference = at_published_rate(Function.INFERENCE, TALK_OPS_PER_IMAGE / 3)
    assert [t.platform.key for t in inference] == ["tcad18", "fpga17", "ese", "fcnn-inference", "talk-inference"]
    assert inference[0].seconds_per_step == pytest.approx(9.811 / 32 / 84.3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gops": -1.0}, "platform tcad18: gops is -1.0; it must be positive"),
        ({"watts": 7.0}, r"platform tcad18: 84.3 GOP/s at 7.0 W is not 24.1 GOP/s/W"),
        ({"kind": "guessed"}, "platform tcad18: 'guessed' is not a valid Kind"),
        ({"kind": "assumed"}, "platform tcad18: kind is assumed; choose measured, simulated or published"),
        ({"function": "both"}, "platform tcad18: 'both' is not a valid Function"),
        ({"speed_up": 2.0}, "platform tcad18: speed_up and speed_up_over go together"),
        ({"source": ""}, "platform tcad18: key, name, device and source must be given"),
        ({"colour": "red"}, "colour"),
        ({"key": "fpga17"}, "platform fpga17 is given twice"),
    ],
)
def test_bad_data_are_refused(change: dict[str, object], message: str) -> None:
    table = raw_table()
    table["platform"][0].update(change)
    with pytest.raises(DataError, match=message):
        platforms_from(table)


def test_missing_data_are_refused() -> None:
    table = raw_table()
    del table["platform"][0]["gops"]
    with pytest.raises(DataError, match="platform tcad18: neither gops nor speed_up is given"):
        platforms_from(table)
    del table["platform"][0]["function"]
    with pytest.raises(DataError, match="platform tcad18: 'function' is missing"):
        platforms_from(table)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown platform 'tpu'; known are tcad18, fpga17"):
        platform("tpu")
    with pytest.raises(UsageError, match="0 OP an image and a batch of 1"):
        at_published_rate(Function.TRAINING, 0)
    with pytest.raises(UsageError, match="a batch of 0"):
        at_published_rate(Function.TRAINING, 1e9, batch=0)
