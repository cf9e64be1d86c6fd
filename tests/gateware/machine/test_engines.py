"""The smallest machine on both simulators, which share nothing but Amaranth's output: the same memory in the same cycles."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fixgrad.gateware.simulation import Engine, RtlDevice
from fixgrad.machine import preset
from fixgrad.machine.generate import random_program
from fixgrad.simulate.differential import difference, memory_after

FORMAL = preset("formal")


@pytest.mark.slow
def test_verilator_and_cxxrtl_agree_in_every_cycle(make_device: Callable[..., RtlDevice]) -> None:
    devices: list[RtlDevice] = [make_device(FORMAL, engine=engine) for engine in Engine]
    for seed in range(2):
        program = random_program(FORMAL, seed)
        expected = memory_after(program)
        for device in devices:
            found = difference(program, expected, device)
            assert found is None, found.reason
        first, second = (device.run(program.program_address, len(program.instructions)) for device in devices)
        assert first.cycles == second.cycles
        assert first.causes == second.causes


@pytest.mark.slow
def test_a_waveform(make_device: Callable[..., RtlDevice], tmp_path: Path) -> None:
    """Of all parts of which the simulation is made."""
    path = tmp_path / "formal.vcd"
    program = random_program(FORMAL, 1)
    device: RtlDevice = make_device(FORMAL, trace=path)
    assert difference(program, memory_after(program), device) is None
    device.bench.close()
    text = path.read_text()
    assert "m_axi_0_arvalid" in text
    assert "group_0" in text
