"""Spacers: cells without wires that keep a placer from filling every tile, so that the router finds its way between the others.

nextpnr packs an ECP5's tiles full, eight LUTs in each, and leaves the rest of the chip empty. Around full tiles wires are scarce:
of this machine at 59 % of the LUTs its router never got rid of some 6,000 wires that two nets wanted. A spacer is a LUT that
nothing is connected to, fixed at a place, so nothing else comes there. They stand in every second row, in the last slices of its
tiles; in the rows between there are none, since a carry chain needs the slices of neighbouring tiles in unbroken order.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

#: Where an LFE5U-85F has tiles with four slices, A to D, of two LUTs: the other rows between these have memory and multipliers.
_ROWS = [row for row in range(2, 95) if row not in range(10, 95, 12)]
_COLUMNS = range(4, 124)
_LUTS = 83_640
#: LUTs that nextpnr takes for a cell; of LUT RAM, four that are read and two that are blocked by its write port.
_LUTS_OF = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6}
#: Which slices to keep free, the most first, and shares of the chip: a design below the one has room without them, and above the
#: other placement does not end.
_SLICES = ("CD", "D")
_ROOMY, _FULL = 0.3, 0.92


def luts_placed(cells: Mapping[str, Any]) -> int:
    """LUTs that nextpnr takes for the cells of a netlist."""
    kinds = Counter(cell["type"] for cell in cells.values())
    return sum(number * kinds[kind] for kind, number in _LUTS_OF.items())


def spaced(netlist: str, top: str) -> tuple[str, int]:
    """A netlist for nextpnr with as many spacers as the chip has room for, and how many these are.

    Args:
        netlist: JSON, as Yosys writes it.
        top: the module in it.
    """
    design = json.loads(netlist)
    cells = design["modules"][top]["cells"]
    taken = luts_placed(cells)
    if taken < _ROOMY * _LUTS:
        return netlist, 0
    for slices in _SLICES:
        places = list(_places(slices))
        if taken + len(places) <= _FULL * _LUTS:
            cells |= {f"spacer_{place}": _spacer(place) for place in places}
            return json.dumps(design), len(places)
    return netlist, 0


def _places(slices: str) -> Iterator[str]:
    for row in _ROWS:
        if row % 2:
            yield from (f"X{column}/Y{row}/SLICE{each}.K{lut}" for column in _COLUMNS for each in slices for lut in (0, 1))


def _spacer(place: str) -> dict[str, object]:
    """As nextpnr packs a LUT: the place of one that it has yet to pack would be forgotten."""
    return {
        "hide_name": 0,
        "type": "TRELLIS_COMB",
        "parameters": {"INITVAL": "0" * 16, "MODE": "LOGIC", "CCU2_INJECT1": "NO", "WREMUX": "WRE"},
        "attributes": {"BEL": place},
        "port_directions": {},
        "connections": {},
    }
