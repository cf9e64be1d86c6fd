"""Small chips for the test bench itself."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi import Axi4Signature
from fixgrad.gateware.axi.streams import Fifo, connect_payload
from fixgrad.gateware.simulation import Netlist, netlist

DATA_BYTES = 8


class Wires(wiring.Component):
    """An AXI port whose channels are streams of the chip: the test drives it, rightly or wrongly."""

    def __init__(self) -> None:
        axi = Axi4Signature(address_bits=20, data_bytes=DATA_BYTES, id_bits=2)
        self.axi = axi
        streams = {}
        for name in ("aw", "w", "ar"):
            streams[f"{name}_in"] = In(stream.Signature(axi.members[name].signature.members["payload"].shape))
        for name in ("b", "r"):
            streams[f"{name}_out"] = Out(stream.Signature(axi.members[name].signature.members["payload"].shape))
        super().__init__({"m_axi": Out(axi), **streams})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name in ("aw", "w", "ar"):
            connect_payload(m, getattr(self, f"{name}_in"), getattr(self.m_axi, name))
        for name in ("b", "r"):
            connect_payload(m, getattr(self.m_axi, name), getattr(self, f"{name}_out"))
        return m


@pytest.fixture(scope="session")
def wires() -> Netlist:
    return netlist(Wires())


class Queue(wiring.Component):
    """A FIFO with a payload of 70 bits, wider than any integer of the host."""

    def __init__(self, depth: int = 4) -> None:
        self.depth = depth
        super().__init__({"i": In(stream.Signature(70)), "o": Out(stream.Signature(70)), "level": Out(range(depth + 1))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = Fifo(70, self.depth)
        connect_payload(m, self.i, fifo.i)
        connect_payload(m, fifo.o, self.o)
        m.d.comb += self.level.eq(fifo.level)
        return m


@pytest.fixture(scope="session")
def queue() -> Netlist:
    return netlist(Queue())
