"""Spacers: where they stand, how many, and that the design is left as it was."""

import json

import pytest

from fixgrad.gateware.synthesis.spacers import luts_placed, spaced


def netlist(luts: int) -> str:
    """A module of so many LUTs, a carry chain and a memory among them."""
    kinds = ["CCU2C"] * 100 + ["TRELLIS_DPR16X4"] * 10 + ["TRELLIS_FF"] * 50
    kinds += ["LUT4"] * (luts - 2 * 100 - 6 * 10)
    cells = {f"cell{number}": {"type": kind, "connections": {"Z": [number]}} for number, kind in enumerate(kinds)}
    return json.dumps({"creator": "a test", "modules": {"top": {"cells": cells}}})


def spacers(text: str) -> dict[str, str]:
    """Name -> place of each spacer."""
    cells = json.loads(text)["modules"]["top"]["cells"]
    return {name: cell["attributes"]["BEL"] for name, cell in cells.items() if name.startswith("spacer")}


def test_what_the_placer_takes_for_a_cell() -> None:
    assert luts_placed(json.loads(netlist(1000))["modules"]["top"]["cells"]) == 1000


@pytest.mark.parametrize(
    ("luts", "number"), [(25_000, 0), (25_092, 22_080), (54_868, 22_080), (54_869, 11_040), (65_908, 11_040), (65_909, 0)]
)
def test_as_many_as_there_is_room_for(luts: int, number: int) -> None:
    """None where the chip is roomy; half of every second row, or a quarter of it; none where the chip would be too full."""
    text, found = spaced(netlist(luts), "top")
    assert found == number == len(spacers(text))


def test_they_stand_in_the_last_slices_of_every_second_row() -> None:
    text, _ = spaced(netlist(50_000), "top")
    places = list(spacers(text).values())
    assert len(set(places)) == len(places)
    assert places[:4] == ["X4/Y3/SLICEC.K0", "X4/Y3/SLICEC.K1", "X4/Y3/SLICED.K0", "X4/Y3/SLICED.K1"]
    rows = {int(place.split("/")[1][1:]) for place in places}
    assert rows == set(range(3, 94, 2))


def test_the_design_is_left_as_it_was() -> None:
    before, text = netlist(50_000), spaced(netlist(50_000), "top")[0]
    found = json.loads(text)
    cells = found["modules"]["top"]["cells"]
    found["modules"]["top"]["cells"] = {name: cell for name, cell in cells.items() if not name.startswith("spacer")}
    assert found == json.loads(before)
    assert not any(cell["connections"] for name, cell in cells.items() if name.startswith("spacer"))
