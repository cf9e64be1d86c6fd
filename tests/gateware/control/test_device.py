"""The host's side: the same driver on the RTL, with both engines, and on the functional simulator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixgrad.gateware.simulation import Device, DeviceError, DramTiming, Engine, Hostility, Netlist, RtlDevice
from fixgrad.machine import identity, preset
from fixgrad.machine.encoding import Instruction, encode_program
from fixgrad.machine.instructions import Unit
from fixgrad.machine.registers import Cause, ErrorCode
from fixgrad.simulate.functional import FunctionalDevice

TINY = preset("tiny")
PROGRAM = [Instruction("LOAD_PARAMS", source=0, count=2), Instruction("COMPUTE", wait_load=1), Instruction("HALT", wait_load=1)]


def rtl(design: Netlist, engine: Engine = Engine.VERILATOR, **options: Any) -> RtlDevice:
    return RtlDevice(TINY, design, memory_bytes=1 << 20, engine=engine, quick=True, **options)


MAKE: dict[str, Callable[[Netlist], Device]] = {
    "rtl": rtl,
    "hostile rtl": lambda design: rtl(design, timing=DramTiming(30, 10, 12000, 4), hostility=Hostility(7, 200, 9, True)),
    "functional": lambda _: FunctionalDevice(TINY, 1 << 20),
}


@pytest.mark.parametrize("name", MAKE)
def test_one_driver_for_every_device(front_end_design: Netlist, name: str) -> None:
    device = MAKE[name](front_end_design)
    program = [instruction for instruction in PROGRAM if instruction.name != "COMPUTE"]
    data = np.arange(100, dtype=np.uint8)
    device.write_memory(0x200, data)
    outcome = device.run_program(0x1000, program)
    assert outcome.error is ErrorCode.NONE
    assert (device.read_memory(0x200, 100) == data).all()
    assert device.read_memory(0x1000, 384).tobytes()[:256] == encode_program(program)
    assert device.read_register("LANES") == TINY.lanes
    with pytest.raises(DeviceError, match=r"bytes 0xfffff to 0x100001 are outside of the device's memory of 0x100000 bytes"):
        device.write_memory((1 << 20) - 1, data[:2])


def test_an_outcome_tells_cycles_and_causes(front_end_design: Netlist) -> None:
    with rtl(front_end_design) as device:
        outcome = device.run_program(0x1000, PROGRAM)
    assert outcome.error is ErrorCode.NONE
    assert outcome.cycles > 30
    assert sum(outcome.causes[Unit.LOAD].values()) == outcome.cycles
    assert outcome.causes[Unit.COMPUTE][Cause.DEPENDENCY] > 0
    assert outcome.explain(b"") == f"the program ended after {outcome.cycles} cycles"


@pytest.mark.slow
def test_both_engines_count_the_same_cycles(front_end_design: Netlist) -> None:
    outcomes = [rtl(front_end_design, engine).run_program(0x1000, PROGRAM) for engine in Engine]
    assert outcomes[0].cycles == outcomes[1].cycles
    assert outcomes[0].causes == outcomes[1].causes


def test_an_outcome_explains_what_went_wrong(front_end_design: Netlist) -> None:
    with rtl(front_end_design) as device:
        bad = [Instruction("LOAD_PARAMS"), Instruction("POST", param=TINY.param_words, images=2), Instruction("HALT")]
        outcome = device.run_program(0x1000, bad)
        text = outcome.explain(encode_program(bad))
        assert text == "a group, PE or memory entry that this machine does not have: instruction 1, POST param=64 images=2"
        device.bench.fault(0x1000, 0x1001, 3)
        outcome = device.run_program(0x1000, PROGRAM)
        assert (outcome.error, outcome.address) == (ErrorCode.MEMORY_READ, 0x1000)
        assert outcome.explain(encode_program(PROGRAM)).startswith(
            "the memory answered a read with an error at 0x1000: instruction "
        )
        device.bench.clear_faults()
        outcome = device.run(0x1000, 2)
        assert outcome.explain(encode_program(PROGRAM[:2])).endswith("instruction 2, behind the program's end")
        assert outcome.error is ErrorCode.NO_HALT


def test_another_machine_is_named_by_what_differs(front_end_design: Netlist) -> None:
    with rtl(front_end_design) as device:
        device.machine = TINY.with_changes(lanes=8, kernel_words=128)
        with pytest.raises(
            DeviceError, match=r"another machine than tiny .*: lanes is 4 there, 8 here; kernel_words is 64 there, 128 here"
        ):
            device.run_program(0x1000, PROGRAM)
        device.machine = TINY.with_changes(clock_mhz=99.0)
        assert identity(device.machine) != identity(TINY)
        with pytest.raises(DeviceError, match="its memory, its latencies or its instruction set differ"):
            device.run_program(0x1000, PROGRAM)


def test_refused_accesses_and_silence_are_errors(front_end_design: Netlist) -> None:
    with rtl(front_end_design, limit=500) as device:
        with pytest.raises(DeviceError, match="the write of 0x1 to register LANES was refused with response 2"):
            device.write_register("LANES", 1)
        device.bench.set("hang", 1)
        with pytest.raises(DeviceError, match="tiny raises no interrupt: STATUS is 0x1; reset it"):
            device.run_program(0x1000, PROGRAM)


@pytest.mark.slow
def test_a_waveform_of_a_program(front_end_design: Netlist, tmp_path: Path) -> None:
    path = tmp_path / "program.vcd"
    with RtlDevice(TINY, front_end_design, memory_bytes=1 << 20, quick=True, trace=path) as device:
        device.run_program(0x1000, PROGRAM)
    assert "m_axi_0_arvalid" in path.read_text()
