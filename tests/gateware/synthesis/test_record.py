"""The recorded syntheses: their limits, on the page as recorded, and still what Yosys says."""

import json
from pathlib import Path

import pytest

from fixgrad.gateware.pe.lane import Lane
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.gateware.pe.sharing import Sharing
from fixgrad.gateware.synthesis import Part, synthesise
from fixgrad.gateware.synthesis.parts import TITLES
from fixgrad.gateware.synthesis.technology import ULTRASCALE
from fixgrad.machine import talk
from fixgrad.machine.presets import ECP5_85F, KCU1500

DOCS = Path(__file__).parents[3] / "docs"
RECORD = json.loads((DOCS / "results" / "synthesis-kcu1500.json").read_text())
PARTS = {part["name"]: part for part in RECORD["parts"]}
BOARD = json.loads((DOCS / "results" / "synthesis-ecp5-85f.json").read_text())


def test_all_are_within_the_limits_asked_of_it() -> None:
    total = RECORD["total"]
    assert total["ff"] <= talk.LIMITS.ff
    assert total["blocks"] <= talk.LIMITS.blocks
    assert total["dsp"] <= talk.LIMITS.dsp
    assert total["lut"] + total["lut_ram"] <= talk.LIMITS.lut
    assert RECORD["within_limits"] is True


def test_the_parts_add_up_and_stand_as_often_as_the_machine_has_them() -> None:
    for resource, total in RECORD["total"].items():
        assert total == sum(part["count"] * part["one"][resource] for part in RECORD["parts"])
    assert PARTS[TITLES["lane"]]["count"] == KCU1500.macs
    assert PARTS[TITLES["pe"]]["count"] == KCU1500.pes
    assert PARTS[TITLES["compute_unit"]]["count"] == KCU1500.groups
    assert PARTS[TITLES["post_lane"]]["count"] == KCU1500.post_processors * KCU1500.lanes


def test_the_page_has_what_was_recorded() -> None:
    page = (DOCS / "synthesis.md").read_text()
    for name, part in PARTS.items():
        one = part["one"]
        line = next(line for line in page.splitlines() if line.startswith(name))
        shown = line.removeprefix(name).split()
        blocks = f"{one['blocks']:,g}"
        assert shown[:6] == [f"{part['count']:,}", *(f"{one[key]:,}" for key in ("lut", "lut_ram", "ff", "dsp")), blocks]


@pytest.mark.slow
def test_a_lane_still_takes_what_was_recorded() -> None:
    """Of all parts the one that counts most, a thousand times: one DSP block and no register beside it."""
    sharing = Sharing()
    name = sharing.module(Lane(PeShape.of(KCU1500)))
    (found,) = synthesise((Part(name, 1, sharing.blocks[name], ()),), ULTRASCALE)
    counts = ULTRASCALE.counts(found.cells)
    assert (counts.dsp, counts.ff) == (1, 0)
    one = PARTS[TITLES["lane"]]["one"]
    assert (counts.lut, counts.lut_ram, counts.blocks) == (one["lut"], one["lut_ram"], one["blocks"])


def test_the_board_was_routed_at_its_clock_and_packed() -> None:
    placed = BOARD["placed"]
    assert placed["fmax_mhz"] >= placed["target_mhz"] == ECP5_85F.clock_mhz
    assert placed["meets_target"] is BOARD["within_limits"] is True
    assert placed["used"]["DP16KD"]["used"] == BOARD["total"]["blocks"]
    assert placed["used"]["MULT18X18D"]["used"] == BOARD["total"]["dsp"]
    assert placed["used"]["TRELLIS_COMB"]["used"] + placed["spacers"] <= placed["used"]["TRELLIS_COMB"]["available"]
    assert placed["bitstream_bytes"] > 1_000_000


def test_the_board_is_the_preset() -> None:
    count = {part["name"]: part["count"] for part in BOARD["parts"]}
    assert (count[TITLES["lane"]], count[TITLES["pe"]], count[TITLES["compute_unit"]]) == (
        ECP5_85F.macs,
        ECP5_85F.pes,
        ECP5_85F.groups,
    )


@pytest.mark.parametrize("page", ["docs/synthesis.md", "README.md"])
def test_the_pages_have_what_the_board_takes(page: str) -> None:
    text = (DOCS.parent / page).read_text()
    total, placed = BOARD["total"], BOARD["placed"]
    for number in (total["lut"] + total["lut_ram"], total["ff"], placed["bitstream_bytes"]):
        assert f"{number:,}" in text
    assert f"{placed['fmax_mhz']:.2f} MHz" in text
