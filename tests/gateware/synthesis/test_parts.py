"""Parts of a design, what they take, and the cache of results."""

from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fixgrad.errors import UsageError
from fixgrad.gateware.machine import Accelerator
from fixgrad.gateware.pe.sharing import shared
from fixgrad.gateware.simulation.emit import netlist
from fixgrad.gateware.synthesis import Counts, Technology, parts_of, run, synthesise
from fixgrad.gateware.synthesis.technology import ECP5, ULTRASCALE, technology_of
from fixgrad.machine import Machine
from fixgrad.machine.presets import ECP5_85F, FORMAL, KCU1500


class Inner(wiring.Component):
    """Registers, `bits` of them."""

    def __init__(self, bits: int) -> None:
        self.shape = bits
        super().__init__({"i": In(bits), "o": Out(bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.o.eq(self.i)
        return m


class Middle(wiring.Component):
    """Three inner ones in a row, and a multiplier behind them."""

    def __init__(self) -> None:
        self.shape = None
        super().__init__({"i": In(8), "o": Out(16)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        at = self.i
        for number in range(3):
            inner = Inner(8)
            m.submodules[f"inner_{number}"] = shared(inner, platform)
            m.d.comb += inner.i.eq(at)
            at = inner.o
        product = Signal(16)
        m.d.sync += product.eq(at * self.i)
        m.d.comb += self.o.eq(product)
        return m


class Outer(wiring.Component):
    """Two middle ones and a unit of its own."""

    def __init__(self) -> None:
        super().__init__({"i": In(8), "o": Out(16)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        first, second, unit = Middle(), Middle(), Inner(16)
        m.submodules.first, m.submodules.second = shared(first, platform), shared(second, platform)
        m.submodules.unit = unit
        m.d.comb += [first.i.eq(self.i), second.i.eq(first.o), unit.i.eq(first.o + second.o), self.o.eq(unit.o)]
        return m


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIXGRAD_CACHE", str(tmp_path / "cache"))


def test_each_block_is_one_part_and_counted_as_often_as_it_stands() -> None:
    parts = parts_of(netlist(Outer()))
    assert [(part.name, part.count, part.black_boxes) for part in parts] == [
        ("inner", 6, ()),
        ("middle", 2, ("inner",)),
        ("top.core.unit", 1, ()),
        ("top", 1, ("top.core.unit", "middle")),
    ]


@pytest.mark.parametrize("chosen", [pytest.param(ULTRASCALE, marks=pytest.mark.slow), ECP5], ids=lambda chosen: chosen.name)
def test_parts_add_up_to_the_design(chosen: Technology, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, told = parts_of(netlist(Outer())), []
    mapped = synthesise(parts, chosen, lambda done, of, running: told.append((done, of)))
    counts = {each.part.name: chosen.counts(each.cells) for each in mapped}
    assert counts["inner"] == Counts(ff=8)
    assert (counts["inner"].dsp, counts["middle"].dsp) == (0, 1)
    assert counts["top.core.unit"].ff == 16
    total = sum((chosen.counts(each.cells).times(each.part.count) for each in mapped), Counts())
    assert total.dsp == 2
    assert told[0] == (0, 4)
    assert run.are_kept(parts, chosen)

    def no_yosys(*_: object) -> None:
        raise AssertionError("the results are in the cache")

    monkeypatch.setattr(run, "yosys", no_yosys)
    assert synthesise(parts, chosen) == mapped


def test_a_cell_that_is_not_known_is_refused() -> None:
    assert ULTRASCALE.counts({"RAMB18E2": 3, "LUT6": 4, "RAM32M16": 2}) == Counts(lut=4, lut_ram=16, blocks=1.5)
    with pytest.raises(UsageError, match=r"URAM288: it is not known what this cell of UltraScale takes"):
        ULTRASCALE.counts({"URAM288": 1})


def test_the_family_follows_from_the_device() -> None:
    assert technology_of(ECP5_85F) is ECP5
    assert technology_of(KCU1500) is ULTRASCALE
    with pytest.raises(UsageError, match=r"block_kind is 'M20K'"):
        technology_of(KCU1500.with_changes(device=KCU1500.device.__class__("S10", "M20K", 1, 1, 1, 1)))


def test_every_module_of_a_machine_is_in_one_part() -> None:
    machine: Machine = FORMAL
    design = netlist(Accelerator(machine))
    parts = parts_of(design)
    headings = [line for part in parts for line in part.text.splitlines() if line.startswith("module ")]
    boxes = [name for part in parts for name in part.black_boxes]
    whole = [line for text in (*design.blocks.values(), design.top) for line in text.splitlines() if line.startswith("module ")]
    assert len(headings) - len(boxes) == len(whole)
    assert {part.name: part.count for part in parts}["lane"] == machine.macs
    assert {"top.core.load", "top.core.front_end", "top.core.post", "top.core.update"} <= {part.name for part in parts}
