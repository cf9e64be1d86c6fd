"""A machine's Verilog with everything that goes with it: register map, C header, a script for Vivado, a page of what is what."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fixgrad.errors import UsageError
from fixgrad.gateware.axi.ports import Port
from fixgrad.gateware.machine import Accelerator
from fixgrad.gateware.simulation.emit import TOP, Netlist, netlist, reads, yosys
from fixgrad.gateware.synthesis.parts import CORE
from fixgrad.machine import Machine, identity
from fixgrad.machine.registers import as_json, c_header

#: A device, as a machine names it -> the whole part number of its board, for Vivado.
VIVADO_PARTS: Mapping[str, str] = MappingProxyType({"XCKU115": "xcku115-flvb2104-2-e", "XCU280": "xcu280-fsvh2892-2L-e"})
_MODULE = re.compile(r"^module (\S+?)[ (;].*?^endmodule\n", re.MULTILINE | re.DOTALL)


def emit(machine: Machine, folder: Path, *, force: bool = False) -> tuple[Path, ...]:
    """Writes the files of a machine into a folder, which is made if need be.

    Returns:
        The files.

    Raises:
        UsageError: one of them exists, and `force` is not given; nothing is written then.
        ToolError: Yosys failed or is missing.
    """
    top = top_name(machine)
    names = ["README.md", "registers.json", "registers.h", "vivado.tcl", f"rtl/{top}.v"]
    existing = [name for name in names if (folder / name).exists()]
    if existing and not force:
        raise UsageError(f"{folder / existing[0]} exists: choose another folder, or --force to replace it")
    design = netlist(Accelerator(machine), machine.device.block_kind)
    files = {f"rtl/{name}": text for name, text in verilog_files(design, machine).items()}
    ports = [_outer(port.name, machine) for port in design.ports]
    files |= {
        "registers.json": as_json(machine),
        "registers.h": c_header(machine),
        "vivado.tcl": _vivado(machine, sorted(files)),
        "README.md": _readme(machine, sorted(files), dict(zip(ports, design.ports, strict=True))),
    }
    for old in (folder / "rtl").glob("*.v"):  # a machine with other blocks may have been here
        old.unlink()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return tuple(folder / name for name in files)


def top_name(machine: Machine) -> str:
    """The name of the top module: letters, digits and underscores."""
    return f"fixgrad_{re.sub(r'[^A-Za-z0-9]', '_', machine.name)}"


def verilog_files(design: Netlist, machine: Machine) -> dict[str, str]:
    """Verilog: the top, each of its units and each shared block in a file of its own, with names that need no escape.

    Raises:
        ToolError: Yosys failed or is missing.
    """
    top = top_name(machine)

    def renamed(match: re.Match[str]) -> str:
        return f"{match[1]}\\{_module_name(match[2], top)}"

    read, files = reads(design)
    files = {name: re.sub(r"^(module |\s+cell )\\(\S+)", renamed, text, flags=re.MULTILINE) for name, text in files.items()}
    # The passes of Amaranth's own back end, as for the simulation.
    script = f"{read}hierarchy -check -top {top}\nproc -nomux -norom\nmemory_collect\n"
    script += "attrmap -remove generator -remove src -remove amaranth.hierarchy -remove amaranth.decoding\n"
    text = yosys(f"{script}write_verilog -norename -noattr all.v\n", files, ("all.v",))["all.v"]
    if machine.memory.channels == 1:
        text = text.replace("m_axi_0_", "m_axi_")
    found: dict[str, list[str]] = {}
    homes = [*(_module_name(name, top) for name in design.blocks), *_units(design, top)]
    for match in _MODULE.finditer(text):
        home = max((each for each in homes if f"{match[1]}_".startswith(f"{each}_")), key=len, default=top)
        found.setdefault(f"{home}.v", []).append(match[0])
    return {name: "\n".join(modules) for name, modules in found.items()}


def _module_name(name: str, top: str) -> str:
    """What a module of the netlist is called in Verilog; cells of Yosys keep their names."""
    if name.startswith("$"):
        return name
    inner = re.sub(r"\W", "_", name.removeprefix(CORE).removeprefix(TOP).removeprefix("."))
    if name == TOP:
        return top
    if name == CORE:
        return f"{top}_core"
    return f"{top}_{inner}" if name.startswith(f"{CORE}.") else inner


def _units(design: Netlist, top: str) -> list[str]:
    return [_module_name(name, top) for name in re.findall(rf"^module \\({re.escape(CORE)}\.[^.\s]+)$", design.top, re.MULTILINE)]


def _outer(name: str, machine: Machine) -> str:
    return name.replace("m_axi_0_", "m_axi_") if machine.memory.channels == 1 else name


def _vivado(machine: Machine, sources: list[str]) -> str:
    part = VIVADO_PARTS.get(machine.device.part)
    period = 1000 / machine.clock_mhz
    choice = f'set part "{part}"' if part else 'error "give the part: vivado -mode batch -source vivado.tcl -tclargs PART"'
    files = " \\\n    ".join(f"[file join $here {name}]" for name in sources)
    return f"""# A Vivado project of the machine {machine.name}, synthesised out of context.
# This script was never run: there was no Vivado where it was written. Begin with
#   vivado -mode batch -source vivado.tcl [-tclargs PART]
set here [file dirname [file normalize [info script]]]
if {{[llength $argv] > 0}} {{
    set part [lindex $argv 0]
}} else {{
    {choice}
}}
create_project {top_name(machine)} [file join $here vivado] -part $part -force
add_files [list \\
    {files}]
set_property top {top_name(machine)} [current_fileset]
set constraints [file join $here vivado clock.xdc]
set file [open $constraints w]
puts $file "create_clock -name aclk -period {period:.3f} \\[get_ports aclk\\]"
close $file
add_files -fileset constrs_1 $constraints
set_property -name {{STEPS.SYNTH_DESIGN.ARGS.MORE OPTIONS}} -value {{-mode out_of_context}} -objects [get_runs synth_1]
launch_runs synth_1 -jobs 4
wait_on_run synth_1
open_run synth_1
report_utilization -hierarchical -file [file join $here utilisation.txt]
report_timing_summary -file [file join $here timing.txt]
"""


def _readme(machine: Machine, sources: list[str], ports: Mapping[str, Port]) -> str:
    rows = "\n".join(f"| `{name}` | {'in' if port.is_input else 'out'} | {port.bits} |" for name, port in ports.items())
    listed = "\n".join(f"- `{name}`" for name in sources)
    memory = machine.memory
    return f"""# {machine.name}: RTL of a fixgrad machine

Machine `{machine.name}` ({machine.board}), identity `{identity(machine)}`: programs for a machine of another identity are refused.
{machine.groups} groups of {machine.pes_per_group} PEs of {machine.lanes} lanes, made for {machine.clock_mhz:g} MHz.

| file | what |
|---|---|
| `rtl/*.v` | Verilog; the top module is `{top_name(machine)}` in `rtl/{top_name(machine)}.v` |
| `registers.json`, `registers.h` | the registers of the control port, for programs and as a C header |
| `vivado.tcl` | a Vivado project, synthesised out of context. Never run: made without Vivado |

The Verilog comes from Yosys and is not for editing. It uses no vendor's cells; multipliers and memories are inferred.

{listed}

## Ports

`s_axi` is the control port (AXI4-Lite, 32 bits). Each `m_axi` is a port to a memory channel (AXI4, {8 * memory.port_bytes} bits;
bursts of type INCR with whole beats, several outstanding). Channels: {memory.channels}. The memory's addresses are
interleaved over them every {memory.interleave:,} bytes; those of a port count from 0.
`aresetn` is synchronous to `aclk`. `irq` is high until its cause is cleared.

| port | direction | bits |
|---|---|---|
{rows}
"""
