"""Memories that promise nothing for a word that is read and written at once: those that are marked, and no others."""

import re

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import BlockFifo, Fifo
from fixgrad.gateware.simulation import netlist
from fixgrad.gateware.synthesis import Part, synthesise
from fixgrad.gateware.synthesis.collisions import without_promise
from fixgrad.gateware.synthesis.technology import ECP5
from fixgrad.machine.presets import ECP5_85F

WIDTH, DEPTH = 72, 32
KIND = ECP5_85F.device.block_kind


class Both(wiring.Component):
    """A queue whose memory is marked, and a memory that is not."""

    def __init__(self) -> None:
        super().__init__({"data": In(WIDTH), "address": In(5), "write": In(1), "read": Out(WIDTH), "queued": Out(WIDTH)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = BlockFifo(WIDTH, DEPTH)
        m.submodules.memory = memory = Memory(shape=WIDTH, depth=DEPTH, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [queue.i.payload.eq(self.data), queue.i.valid.eq(self.write), queue.o.ready.eq(~self.write)]
        m.d.comb += [write.addr.eq(self.address), write.data.eq(self.data), write.en.eq(self.write), read.addr.eq(self.address)]
        m.d.comb += [self.read.eq(read.data), self.queued.eq(queue.o.payload)]
        return m


def masks(text: str) -> list[str]:
    """The masks of all read ports, in order."""
    return re.findall(r"COLLISION_X_MASK \d+'(\d+)", text)


def test_only_marked_memories_promise_nothing() -> None:
    text = netlist(Both()).top
    assert masks(text) == ["0", "0"]
    changed = without_promise(text)
    assert sorted(masks(changed)) == ["0", "1"]
    modules = {module[1]: module[0] for module in re.finditer(r"^module \\(\S+)\n.*?^end$", changed, re.MULTILINE | re.DOTALL)}
    assert {name.split(".")[-1]: masks(module) for name, module in modules.items() if masks(module)}["queue"] == ["1"]
    # Nothing else is touched.
    assert re.sub(r"COLLISION_X_MASK .*", "", changed) == re.sub(r"COLLISION_X_MASK .*", "", text)


def test_a_patient_queue_takes_blocks_and_next_to_no_registers() -> None:
    text = netlist(Fifo(WIDTH, DEPTH, patient=True), KIND).top
    (found,) = synthesise((Part("top", 1, text, ()),), ECP5)
    counts = ECP5.counts(found.cells)
    assert (counts.blocks, counts.lut_ram) == (2, 0)
    assert counts.ff < WIDTH // 4


def test_an_impatient_one_stays_in_luts() -> None:
    for patient, kind in ((False, KIND), (True, None), (True, "BRAM36")):
        assert "CLK_ENABLE 0" in netlist(Fifo(WIDTH, DEPTH, patient=patient), kind).top
    assert "CLK_ENABLE 0" not in netlist(Fifo(WIDTH, DEPTH, patient=True), KIND).top
