"""Proofs by a model checker: SymbiYosys with Z3, both from PyPI.

A property is a component with `Assert` and `Assume` statements in it. The checker either finds inputs that break an assertion
within so many cycles from the start, or (in mode `prove`) shows by induction that there are none for any number of cycles.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from amaranth.lib import wiring

from fixgrad.gateware.simulation.emit import TOP, ToolError, netlist, run_tool


def prove(component: wiring.Component, depth: int, *, bounded: bool = False) -> None:
    """Shows that no assertion of the component can fail.

    Args:
        component: with assertions; its inputs may be anything that its assumptions allow.
        depth: cycles of the base case, and of the induction.
        bounded: only look for failures in the first `depth` cycles.

    Raises:
        ToolError: an assertion fails, or the induction does not hold; the message ends with what the checker said.
    """
    mode = "bmc" if bounded else "prove"
    config = f"[options]\nmode {mode}\ndepth {depth}\n[engines]\nsmtbmc z3\n"
    # Registers begin at their initial values and there is no reset later: so the checker searches less.
    script = f"read_rtlil {TOP}.il\nproc\ndelete -input {TOP}/aresetn\ncd {TOP}\nconnect -set aresetn 1'1\ncd\n"
    script += f"prep -top {TOP}\nmemory_map\nopt -fast\n"
    config += f"[script]\n{script}[files]\n{TOP}.il\n"
    with tempfile.TemporaryDirectory(prefix="fixgrad-proof-") as name:
        folder = Path(name)
        (folder / f"{TOP}.il").write_text(netlist(component).top)
        (folder / "proof.sby").write_text(config)
        tools = {option: _tool(f"yowasp-{program}") for option, program in (("yosys", "yosys"), ("smtbmc", "yosys-smtbmc"))}
        options = [word for option, path in tools.items() for word in (f"--{option}", path)]
        path = os.pathsep.join([str(Path(_tool("z3")).parent), os.environ.get("PATH", "")])
        run_tool([_tool("yowasp-sby"), "-f", *options, "proof.sby"], folder, {**os.environ, "PATH": path})


def _tool(name: str) -> str:
    """A program beside this Python's own, or on the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ToolError(f"{name} is not installed: install fixgrad[test]")
    return found
