"""Standards are data, and impossible data are refused with the value and the limit."""

import tomllib
from importlib import resources
from typing import Any

import pytest

from fixgrad.errors import DataError, UsageError
from fixgrad.simulate.dram import available_standards, load_standard, standard_from_table


def ddr4_table() -> dict[str, Any]:
    file = resources.files("fixgrad.simulate.dram") / "data" / "ddr4_2400.toml"
    return tomllib.loads(file.read_text("utf-8"))


def test_what_comes_with_the_package() -> None:
    assert available_standards() == ("ddr4_2400", "hbm2", "sdr_133")


@pytest.mark.parametrize(
    ("name", "gb_per_s", "burst_bytes", "page_bytes", "banks", "capacity"),
    [
        ("ddr4_2400", 19.2, 64, 8192, 16, 8 << 30),
        ("hbm2", 460.8 / 32, 32, 1024, 16, 256 << 20),
        ("sdr_133", 0.2666666, 16, 1024, 4, 32 << 20),
    ],
)
def test_sizes_and_peaks(name: str, gb_per_s: float, burst_bytes: int, page_bytes: int, banks: int, capacity: int) -> None:
    s = load_standard(name)
    assert s.peak_bytes_per_ns == pytest.approx(gb_per_s)
    assert (s.burst_bytes, s.page_bytes, s.banks, s.capacity_bytes) == (burst_bytes, page_bytes, banks, capacity)


def test_the_reference_timings() -> None:
    t = load_standard("ddr4_2400").timing
    assert (t.burst, t.t_ccd_s, t.t_ccd_l, t.t_faw, t.t_rcd, t.t_rp, t.t_ras) == (4, 4, 6, 26, 17, 17, 39)
    assert (t.t_rfc, t.t_refi, t.cl, t.cwl, t.t_wtr_l, t.t_rc) == (420, 9360, 17, 12, 9, 56)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="unknown DRAM standard 'ddr5'; known are ddr4_2400, hbm2, sdr_133"):
        load_standard("ddr5")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("timing", "t_ccd_l", 3, "t_ccd_s = 4 exceeds t_ccd_l = 3"),
        ("timing", "t_rcd", 0, "t_rcd is 0 clocks; it must be at least 1"),
        ("timing", "t_ccd_s", 3, "t_ccd_s = 3 is shorter than a burst of 4 clocks"),
        ("timing", "t_rfc", 9360, "t_rfc = 9360 leaves no time in t_refi = 9360"),
        ("organisation", "banks_per_group", 17, "68 banks; the scheduler holds at most 64"),
        ("organisation", "columns", 1020, "a row of 1020 columns is not a whole number of bursts of 8"),
        ("organisation", "clock_mhz", 0.0, "clock_mhz is 0.0; it must be positive"),
        ("organisation", "command_buses", 3, "command_buses is 3; it must be 1 or 2"),
        ("organisation", "rows", 0, "rows is 0; it must be at least 1"),
        ("controller", "queue_depth", 0, "queue_depth is 0; it must be 1 to 256"),
        ("controller", "write_high", 41, "write_high = 41"),
        ("controller", "front_end_ns", -1.0, "front_end_ns is -1.0"),
    ],
)
def test_impossible_tables_are_refused(section: str, key: str, value: float, message: str) -> None:
    table = ddr4_table()
    table[section][key] = value
    with pytest.raises(DataError, match=message):
        standard_from_table(table)


def test_missing_and_unknown_keys_are_named() -> None:
    table = ddr4_table()
    del table["timing"]["t_faw"]
    with pytest.raises(DataError, match="t_faw"):
        standard_from_table(table)
    table = ddr4_table()
    table["timing"]["t_typo"] = 3
    with pytest.raises(DataError, match="t_typo"):
        standard_from_table(table)
    table = ddr4_table()
    del table["organisation"]
    with pytest.raises(DataError, match="ddr4_2400: the key 'organisation' is missing"):
        standard_from_table(table)
