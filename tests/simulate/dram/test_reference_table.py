"""Both models against the published shares of the peak bandwidth, entry by entry."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fixgrad.errors import UsageError
from fixgrad.simulate.dram import AddressMap, Fidelity, load_standard, refresh_share
from fixgrad.simulate.dram.patterns import ReferencePattern, comparison_table, measured_share, reference_patterns

ShareOf = Callable[[str, ReferencePattern, Fidelity, AddressMap], float]

ENTRIES = [
    pytest.param(name, pattern, address_map, id=f"{name}, {address_map.value}, {pattern.name}")
    for name in ("ddr4_2400", "hbm2")
    for pattern in reference_patterns(name)
    for address_map in pattern.shares
]


def test_the_table_is_whole() -> None:
    ddr4 = reference_patterns("ddr4_2400")
    assert [p.name for p in ddr4] == [
        "sequential", "alternating 4 KB", "alternating 16 KB", "alternating 64 KB",
        "random 64 B", "random 256 B", "random 1 KB", "random 4 KB",
        "stride 128 B", "stride 1 KB", "stride 8 KB", "stride 64 KB",
    ]  # fmt: skip
    assert [p.shares[AddressMap.COLUMN_LOWEST] for p in ddr4] == [
        0.78, 0.66, 0.72, 0.76, 0.58, 0.94, 0.93, 0.85, 0.95, 0.95, 0.57, 0.136,
    ]  # fmt: skip
    assert [p.shares[AddressMap.BANK_GROUP_LOWEST] for p in ddr4] == [
        0.95, 0.92, 0.94, 0.946, 0.58, 0.58, 0.57, 0.93, 0.95, 0.61, 0.46, 0.136,
    ]  # fmt: skip


@pytest.mark.parametrize("fidelity", Fidelity)
@pytest.mark.parametrize(("name", "pattern", "address_map"), ENTRIES)
def test_within_three_percent(
    name: str, pattern: ReferencePattern, address_map: AddressMap, fidelity: Fidelity, share_of: ShareOf
) -> None:
    share = share_of(name, pattern, fidelity, address_map)
    assert abs(share / pattern.shares[address_map] - 1) <= 0.03


@pytest.mark.parametrize("name", ["ddr4_2400", "hbm2"])
def test_the_page_shows_this_table(name: str, share_of: ShareOf) -> None:
    table = comparison_table(reference_patterns(name), partial(share_of, name))
    page = Path(__file__).parents[3] / "docs" / "dram.md"
    assert table in page.read_text("utf-8")


def test_the_stated_formulas() -> None:
    """The formulas that the reference gives beside its table, in its own numbers."""
    standard = load_standard("ddr4_2400")
    t = standard.timing
    ceiling = 1 - t.t_rfc / t.t_refi
    assert round(ceiling, 3) == 0.955
    assert ceiling - (1 - refresh_share(standard)) == pytest.approx((t.t_rp + t.t_rcd) / t.t_refi)
    assert round(16 / t.t_faw * ceiling, 3) == 0.588
    by_name = {p.name: p for p in reference_patterns()}

    def closed(name: str) -> float:
        return measured_share(by_name[name], Fidelity.CLOSED_FORM, AddressMap.BANK_GROUP_LOWEST)

    assert closed("random 64 B") == pytest.approx(16 / t.t_faw * ceiling, rel=0.03)
    for size in (4, 16, 64):
        bursts = size * 1024 // 64
        assert closed(f"alternating {size} KB") == pytest.approx(8 * bursts / (8 * bursts + 28) * ceiling, rel=0.03)
    same_bank = 4 / (t.t_ras + t.t_rp) * ceiling  # one burst a row, all in one bank
    stride = ReferencePattern("stride", 128 * 1024, {})
    assert measured_share(stride, Fidelity.CLOSED_FORM, AddressMap.BANK_GROUP_LOWEST, bursts=4000) == pytest.approx(
        same_bank, rel=0.03
    )
    assert measured_share(stride, Fidelity.BANK_LEVEL, AddressMap.BANK_GROUP_LOWEST, bursts=4000) == pytest.approx(
        same_bank, rel=0.03
    )


def test_unknown_patterns_are_named() -> None:
    with pytest.raises(UsageError, match="no reference patterns for the DRAM standard 'sdr_133'"):
        reference_patterns("sdr_133")
    with pytest.raises(UsageError, match="unknown pattern 'zigzag'"):
        list(ReferencePattern("zigzag", 64, {}).transfers(load_standard("ddr4_2400"), 8))
