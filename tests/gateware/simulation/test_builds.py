"""Builds: cached by content, the same from both engines, with a waveform on request; and messages where a tool fails."""

from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import Fifo, connect_payload
from fixgrad.gateware.cache import cache_folder
from fixgrad.gateware.pe.sharing import shared
from fixgrad.gateware.simulation import Bench, BenchError, Engine, Hostility, Netlist, ToolError, build, netlist, verilog
from fixgrad.gateware.simulation.emit import run_tool


class Twin(wiring.Component):
    """A FIFO that may be shared."""

    shape = (70, 3)

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(70)), "o": Out(stream.Signature(70))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = Fifo(*self.shape)
        connect_payload(m, self.i, fifo.i)
        connect_payload(m, fifo.o, self.o)
        return m


VALUES = [index * 0x1_2345_6789_ABCD_EF01 & (1 << 70) - 1 for index in range(300)]


def through(design: Netlist, engine: Engine, trace: Path | None = None) -> tuple[list[int], list[int]]:
    """What a queue gives back, and when, with rests at both ends."""
    with Bench(design, engine, trace=trace, quick=True) as bench:
        bench.reset()
        source, sink = bench.source("i", Hostility(1, 200, 6)), bench.sink("o", Hostility(2, 200, 6))
        records = np.zeros(len(VALUES), source.dtype)
        records["payload"] = [np.frombuffer(value.to_bytes(12, "little"), np.uint8) for value in VALUES]
        source.push(records)
        assert sink.wait(len(VALUES), 10_000)
        found, cycles = sink.pop()
        bench.check()
        return [int.from_bytes(row.tobytes(), "little") for row in found["payload"]], [int(cycle) for cycle in cycles]


def test_both_engines_give_the_same_cycle_by_cycle(queue: Netlist) -> None:
    values, cycles = through(queue, Engine.VERILATOR)
    assert values == VALUES
    assert through(queue, Engine.CXXRTL) == (values, cycles)


@pytest.mark.slow
@pytest.mark.parametrize("engine", list(Engine))
def test_a_waveform_shows_every_cycle(queue: Netlist, engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "wave.vcd"
    _, cycles = through(queue, engine, path)
    text = path.read_text()
    assert "aclk" in text
    assert "payload" in text
    assert f"#{2 * cycles[-1]}\n" in text


def test_without_trace_there_is_no_waveform(queue: Netlist, tmp_path: Path) -> None:
    with Bench(queue, quick=True) as bench, pytest.raises(BenchError, match="this build writes no waveform: build with trace"):
        bench._check(bench.call("bench_trace", str(tmp_path / "x.vcd").encode()))


def test_a_build_is_made_once_for_each_content(queue: Netlist, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build(queue, quick=True)
    assert made.is_relative_to(cache_folder())
    before = made.stat().st_ino
    monkeypatch.setattr("fixgrad.gateware.simulation.builds._make", lambda *_: pytest.fail("built again"))
    assert build(queue, quick=True) == made
    assert made.stat().st_ino == before
    changed = Netlist(queue.top.replace("fifo", "fofi"), queue.blocks, queue.ports)
    for design, engine, options in (
        (changed, Engine.VERILATOR, {}),
        (queue, Engine.CXXRTL, {"trace": True}),
        (Netlist(queue.top, {"pe": "x"}, queue.ports), Engine.VERILATOR, {}),
    ):
        with pytest.raises(pytest.fail.Exception, match="built again"):
            build(design, engine, **options, quick=False)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIXGRAD_CACHE", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("FIXGRAD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "fixgrad"


def test_emitting_twice_gives_the_same_text(queue: Netlist) -> None:
    assert netlist(Fifo(8, 4)).top == netlist(Fifo(8, 4)).top
    text = verilog(queue)
    assert "module top(" in text
    assert text == verilog(queue)


def test_ports_have_clean_names(wires: Netlist) -> None:
    names = [port.name for port in wires.ports]
    for channel, signals in (("aw", "id addr len size burst cache prot valid ready"), ("r", "id data resp last valid ready")):
        assert {f"m_axi_{channel}{signal}" for signal in signals.split()} <= set(names)
    by_name = {port.name: port for port in wires.ports}
    assert (by_name["m_axi_awready"].is_input, by_name["m_axi_awvalid"].is_input) == (True, False)
    assert (by_name["m_axi_rdata"].is_input, by_name["m_axi_rdata"].bits) == (True, 64)
    assert names[:2] == ["aclk", "aresetn"]


class Twins(wiring.Component):
    """Two queues that are the same block."""

    def __init__(self) -> None:
        super().__init__({name: flow(stream.Signature(70)) for name, flow in (("i", In), ("o", Out))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        queues = [Twin(), Twin()]
        for name, queue in zip(("first", "second"), queues, strict=True):
            m.submodules[name] = shared(queue, platform)
        connect_payload(m, self.i, queues[0].i)
        connect_payload(m, queues[0].o, queues[1].i)
        connect_payload(m, queues[1].o, self.o)
        return m


@pytest.mark.parametrize("engine", [Engine.VERILATOR, pytest.param(Engine.CXXRTL, marks=pytest.mark.slow)])
def test_shared_blocks_are_built_once(engine: Engine) -> None:
    twins = netlist(Twins())
    assert list(twins.blocks) == ["twin"]
    assert twins.top.count("cell \\twin ") == 2
    assert "/* verilator no_inline_module */" in verilog(twins)
    assert through(twins, engine)[0] == VALUES


def test_missing_ports_are_named(queue: Netlist) -> None:
    with Bench(queue, quick=True) as bench:
        with pytest.raises(BenchError, match=r"the chip has no port m_axi_arvalid"):
            bench.attach_memory("m_axi")
        with pytest.raises(BenchError, match=r"the chip has no port 'x_valid': it has aclk, aresetn, "):
            bench.source("x")
        with pytest.raises(BenchError, match="the bench has no memory: allocate it first"):
            bench.memory.sum()
        assert bench.get("level") == 0
    with pytest.raises(BenchError, match="the bench is closed"):
        bench.step()


def test_a_tool_that_fails_or_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no-such-tool is not installed"):
        run_tool(["no-such-tool"], tmp_path)
    with pytest.raises(ToolError, match="sh failed with code 3: it broke"):
        run_tool(["sh", "-c", "echo it broke >&2; exit 3"], tmp_path)
