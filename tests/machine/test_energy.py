"""Energy: the data, the calibration on the talk's board, and steps worked out by hand."""

import tomllib
from importlib import resources
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.errors import DataError, UsageError
from fixgrad.machine.energy import (
    Design,
    StepCounts,
    board_calibration,
    dram_joules,
    energy_of_step,
    mac_joules,
    sram_bit_pj,
)
from fixgrad.machine.energy_calibration import Unknown, calibrate
from fixgrad.machine.energy_data import Interval, Kind, energy_table_from, load_energy_table
from fixgrad.machine.operator_cost import TALK_CLAIM, multiplier_savings, operators_of

TABLE = load_energy_table()
TALK = Design("XCKU115", 199_111, 1024, 250.0, "ddr4_2400", 2)
TALK_MACS = 6_811_179_418


def raw_table() -> dict[str, Any]:
    file = resources.files("fixgrad.machine") / "data" / "energy.toml"
    return tomllib.loads(file.read_text("utf-8"))


# Data


@pytest.mark.parametrize(
    ("name", "picojoules"),
    [
        ("int8_add", 0.03), ("int32_add", 0.1), ("fp32_add", 0.9),
        ("int8_multiply", 0.2), ("int32_multiply", 3.1), ("fp32_multiply", 3.7),
        ("sram_64bit_read_8KB", 10), ("sram_64bit_read_32KB", 20), ("sram_64bit_read_1MB", 100),
    ],
)  # fmt: skip
def test_horowitz(name: str, picojoules: float) -> None:
    found = TABLE.coefficients[name]
    assert (found.value, found.unit, found.kind, found.date) == (picojoules, "pJ", Kind.PUBLISHED, "2014-02")
    assert found.source.startswith("Horowitz")


def test_every_coefficient_says_where_it_comes_from() -> None:
    for c in TABLE.coefficients.values():
        assert c.low <= c.value <= c.high
        assert c.source
        assert len(c.date) == 7
        # What nobody published is marked, and its interval is wide.
        assert (c.kind is Kind.ASSUMED) == (c.source.startswith(("no source", "IDD4")))
        assert c.kind is not Kind.ASSUMED or c.high >= 1.5 * c.low


def test_the_anchor_is_the_talks() -> None:
    a = TABLE.anchor
    assert (a.watts, a.luts, a.clock_mhz, a.dram_channels) == (29.0, 199_111, 250.0, 2)
    assert a.joules == pytest.approx(1.33, abs=0.002)
    per_image = {  # MACs of one image and phase, and the share kept
        "conv1": (1_769_472, 0.9), "conv2": (18_874_368, 0.6), "conv3_1": (18_874_368, 0.7),
        "conv3_2": (37_748_736, 0.6), "conv4_1": (18_874_368, 0.5), "conv4_2": (37_748_736, 0.3),
        "conv5_1": (9_437_184, 0.1), "conv5_2": (9_437_184, 0.1),
        "dense6": (262_144, 0.1), "dense7": (262_144, 0.1), "dense8": (5_120, 0.1),
    }  # fmt: skip
    macs = sum(32 * (2 if name == "conv1" else 3) * n * kept for name, (n, kept) in per_image.items())
    assert a.macs == pytest.approx(macs, rel=1e-9)
    assert a.dram_bytes_high == pytest.approx(38.4e9 * 0.027635, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 5.0}, r"coefficient int8_add: 5.0 <= 0.03 <= 0.03 does not hold"),
        ({"value": -1.0, "low": -1.0}, "does not hold, or is negative"),
        ({"source": ""}, "coefficient int8_add: unit, date and source must be given"),
        ({"typo": 1}, "typo"),
        ({"kind": "guessed"}, "'guessed' is not a valid Kind"),
        ({"name": "int32_add"}, "coefficient int32_add is given twice"),
    ],
)
def test_bad_data_are_refused(change: dict[str, object], message: str) -> None:
    table = raw_table()
    table["coefficient"][0].update(change)
    with pytest.raises(DataError, match=message):
        energy_table_from(table)


def test_missing_data_are_refused() -> None:
    table = raw_table()
    del table["anchor"]["watts"]
    with pytest.raises(DataError, match="watts"):
        energy_table_from(table)
    with pytest.raises(UsageError, match="no energy coefficient 'fp8_add'"):
        TABLE["fp8_add"]


# Memory


def test_sram_by_size() -> None:
    assert sram_bit_pj(8192) == pytest.approx(10 / 64)
    assert sram_bit_pj(32768) == pytest.approx(20 / 64)
    assert sram_bit_pj(1 << 20) == pytest.approx(100 / 64)
    assert sram_bit_pj(16384) == pytest.approx(200**0.5 / 64)  # halfway on a logarithmic scale
    assert sram_bit_pj(512) == sram_bit_pj(8192)
    assert sram_bit_pj(4 << 20) > sram_bit_pj(1 << 20)


def picojoules_a_bit(standard: str, share_of_peak: float, peak: float, misses_a_byte: float) -> Interval:
    """A channel that streams for a second."""
    moved = peak * share_of_peak
    return dram_joules(standard, moved, moved * misses_a_byte, 1, 1.0) * (1e12 / (8 * moved))


def test_dram_per_bit_against_the_simulator() -> None:
    """DRAMsim3: 1,350 mW streaming reads at .951, 1,617 mW random 64 B at .582 of 19.2 GB/s, without I/O."""
    io = TABLE["ddr4_io"].value
    streaming = picojoules_a_bit("ddr4_2400", 0.951, 19.2e9, 1 / 8192).value - io
    random = picojoules_a_bit("ddr4_2400", 0.582, 19.2e9, 1 / 64).value - io
    assert streaming == pytest.approx(1.350 / (0.951 * 19.2e9 * 8) * 1e12, rel=0.06)
    assert random == pytest.approx(1.617 / (0.582 * 19.2e9 * 8) * 1e12, rel=0.06)
    # As that simulator prints them, a clock of 0.833 ns taken for 1 ns: the 10-12 and 22 pJ/bit that are passed around.
    assert 10 <= streaming * 1.2 <= 12
    assert 20 <= random * 1.2 <= 23


def test_hbm2_per_bit() -> None:
    found = picojoules_a_bit("hbm2", 0.92, 14.4e9, 0.0)
    assert found.value - TABLE["hbm2_io"].value == pytest.approx(3.9)


def test_a_resting_memory_costs_its_background() -> None:
    assert dram_joules("ddr4_2400", 0, 0, 2, 0.1).value == pytest.approx(2 * 0.5 * 0.1)


# Calibration


def test_one_power_fixes_one_number() -> None:
    calibration = board_calibration()
    assert calibration.fixed == ("logic_clock", "logic_toggle")
    met = sum(calibration.left[n].value * u.quantity for n, u in calibration.unknowns.items())
    assert met == pytest.approx(29 * 0.04591, rel=1e-12)
    for name, unknown in calibration.unknowns.items():
        left = calibration.left[name]
        assert unknown.prior.low <= left.low <= left.value <= left.high <= unknown.prior.high
        if name not in calibration.fixed:
            assert left.value == unknown.prior.value
    # Clock and toggling share what is left alike, which is an assumption: their intervals stay wide.
    clock = calibration.left["logic_clock"]
    assert clock.high / clock.low > 10


def test_the_anchor_gives_its_own_power_back() -> None:
    """All intervals of the parts are wide, that of the known whole is not."""
    a = TABLE.anchor
    moved = (a.dram_bytes_low + a.dram_bytes_high) // 2
    counts = StepCounts(TALK_MACS, {8192: 72 * TALK_MACS}, moved, moved // 8192)
    found = energy_of_step(counts, TALK, a.seconds)
    assert found.total.value == pytest.approx(a.joules, rel=1e-3)
    assert found.watts.value == pytest.approx(29.0, rel=1e-3)
    assert found.total.high - found.total.low < 0.15 * found.total.value
    parts = (found.mac, found.buffers, found.dram, found.logic, found.static)
    assert sum(p.value for p in parts) == pytest.approx(found.total.value)
    assert sum(p.high - p.low for p in parts) > 5 * (found.total.high - found.total.low)
    assert found.per_image(32).value == pytest.approx(found.total.value / 32)


def test_parts_by_hand() -> None:
    counts = StepCounts(1_000_000_000, {8192: 10**11, 32768: 10**10}, 10**8, 20_000, 10**7, 10**6)
    found = energy_of_step(counts, TALK, 0.02)
    assert found.mac.value == pytest.approx(1e9 * (0.2 + 0.1) * 7 * 0.5 * 1e-12)
    assert found.mac.low == pytest.approx(1e9 * 0.3 * 2 * 0.3 * 1e-12)
    assert found.buffers.value == pytest.approx((1e11 * 10 / 64 + 1e10 * 20 / 64) * 3 * 0.5 * 1e-12)
    assert found.dram.value == pytest.approx((8e8 * (5.4 + 4) + 2e4 * 3470) * 1e-12 + 2 * 0.5 * 0.02)
    assert found.static.value == pytest.approx(4.0 * 0.02)
    left = board_calibration().left
    cycles, in_use = 5_000_000, 1e9 / (1024 * 5e6)
    logic = 199_111 * cycles * (left["logic_clock"].value + in_use * left["logic_toggle"].value)
    soft = (1e7 * 3 * 0.1 + 1e6 * (3.1 + 3 * 0.1)) * 14 * 0.5 * 1e-12
    assert found.logic.value == pytest.approx(logic + soft)


def test_a_faster_step_of_the_same_work_costs_less() -> None:
    counts = StepCounts(TALK_MACS, {8192: 72 * TALK_MACS}, 54_000_000, 10_000)
    slow, fast = (energy_of_step(counts, TALK, s) for s in (0.0459, 0.0275))
    assert fast.total.value < slow.total.value
    assert fast.watts.value > slow.watts.value
    assert fast.mac == slow.mac
    assert fast.static.value < slow.static.value


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5), st.lists(st.floats(0, 10), min_size=6, max_size=6))
def test_bounds_hold_for_random_choices(quantities: list[float], asked: list[float]) -> None:
    """No choice of the unknowns that meets the known sum lies outside the bounds (sampled, not solved)."""
    known = {f"k{i}": Unknown(Interval(1.0, 0.5, 2.0), q) for i, q in enumerate(quantities)}
    joules = 3 * sum(quantities)
    calibration = calibrate(joules, known, {"rest": (Interval(1.0, 1.0, 1.0), 2.0)})
    new = dict(zip(calibration.unknowns, asked, strict=False))
    bounds = calibration.bounds(new)
    rng = np.random.default_rng(0)
    for _ in range(50):
        chosen = {f"k{i}": float(rng.uniform(0.5, 2.0)) for i in range(len(quantities))}
        chosen["rest"] = (joules - sum(chosen[f"k{i}"] * q for i, q in enumerate(quantities))) / 2.0
        total = sum(new.get(n, 0.0) * c for n, c in chosen.items())
        assert bounds.low - 1e-9 <= total <= bounds.high + 1e-9


def test_bounds_are_reached() -> None:
    """Two unknowns, 10 J known: 2 a + b = 10 with a in [1, 4]; another step of a + b costs 6 (a = 4) to 9 (a = 1)."""
    calibration = calibrate(10.0, {"a": Unknown(Interval(2, 1, 4), 2.0)}, {"b": (Interval(1, 1, 1), 1.0)})
    assert calibration.left["b"] == Interval(6.0, 2.0, 8.0)
    assert calibration.bounds({"a": 1.0, "b": 1.0}) == Interval(8.0, 6.0, 9.0)
    assert calibration.bounds({"a": 2.0, "b": 1.0}) == Interval(10.0, 10.0, 10.0)


def test_known_bounds_narrow_each_other() -> None:
    """3 J in all, and b takes at least 1: a can not be more than 2 although its own bound is 5."""
    known = {"a": Unknown(Interval(1, 0.5, 5), 1.0), "b": Unknown(Interval(1.5, 1, 2), 1.0)}
    calibration = calibrate(3.0, known, {"c": (Interval(1, 0, 1), 1.0)})
    assert calibration.left["a"].high == 2.0


def test_too_much_known_energy_is_refused() -> None:
    with pytest.raises(DataError, match=r"the known part takes 12.000 J, the whole is 10.000 J"):
        calibrate(10.0, {"a": Unknown(Interval(2, 1, 4), 6.0)}, {"b": (Interval(1, 1, 1), 1.0)})


# Other chips and errors


@pytest.mark.parametrize(("part", "dram", "channels"), [("XCU280", "hbm2", 8), ("LFE5U-85F", "sdr_133", 1)])
def test_chips_without_a_known_power_get_wider_intervals(part: str, dram: str, channels: int) -> None:
    counts = StepCounts(10**9, {8192: 72 * 10**9}, 10**7)
    found = energy_of_step(counts, Design(part, 50_000, 1024, 100.0, dram, channels), 0.05)
    parts = (found.mac, found.buffers, found.dram, found.logic, found.static)
    assert found.total.value == pytest.approx(sum(p.value for p in parts))
    assert found.total.high > 2 * found.total.low
    assert found.mac == mac_joules(part) * 1e9


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="no energy coefficients for the chip 'none'; known are XCKU115, XCU280"):
        energy_of_step(StepCounts(1), Design("none", 1, 1, 1.0, "ddr4_2400", 1), 1.0)
    with pytest.raises(UsageError, match="no energy coefficients for the DRAM 'gddr6'"):
        dram_joules("gddr6", 1, 1, 1, 1.0)
    with pytest.raises(UsageError, match="1000 MACs in 1e-06 s do not fit 1 units"):
        energy_of_step(StepCounts(1000), Design("XCKU115", 1, 1, 100.0, "ddr4_2400", 1), 1e-6)
    with pytest.raises(UsageError, match="macs is -1"):
        StepCounts(-1)
    with pytest.raises(UsageError, match="-5 bits in a buffer of 64 bytes"):
        StepCounts(1, {64: -5})
    with pytest.raises(UsageError, match="luts of XCKU115 is 0"):
        Design("XCKU115", 0, 1, 1.0, "ddr4_2400", 1)


# The claim of eight times


def test_eight_times_both_ways() -> None:
    ratios = {s.yardstick: s.ratio for s in multiplier_savings()}
    assert ratios["multiplier energy"] == pytest.approx(3.7 / 0.2)
    assert ratios["multiply and 32-bit accumulate energy"] == pytest.approx(4.6 / 0.3)
    assert ratios["multiplier LUTs"] == pytest.approx(708 / 75)
    assert ratios["multiplier registers"] == pytest.approx(858 / 80)
    assert ratios["multiplier and adder LUTs"] == pytest.approx(1138 / 83)
    closest = min(ratios, key=lambda name: abs(ratios[name] - TALK_CLAIM))
    assert closest == "multiplier LUTs"


def test_the_talks_operator_table() -> None:
    assert operators_of("fp32").multiply_add == (800, 1284, 2)
    assert operators_of("fixed32").multiplier == (1112, 1143, 0)
    assert operators_of("fixed8").multiply_add == (0, 0, 1)
    with pytest.raises(UsageError, match="no operators of format 'fixed7'"):
        operators_of("fixed7")
