"""Many engines on the memory's AXI4 ports: requests round robin, answers by identifier."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.axi.burst import MemoryPorts
from fixgrad.gateware.axi.bus import Axi4Signature, Burst, Response
from fixgrad.gateware.axi.client import ReadPort, WritePort
from fixgrad.gateware.axi.streams import Arbiter, RoundRobin, SkidBuffer, connect_payload

#: AxCACHE: normal memory, non-cacheable, bufferable (A4.4): what DDR controllers expect.
_CACHE = 0b0011
#: AxPROT: unprivileged, non-secure, data (A4.7).
_PROT = 0b010


def id_bits(engines: int) -> int:
    """Width of the identifiers: an engine's number."""
    return max(1, ceil_log2(engines))


class ReadChannel(wiring.Component):
    """The read half of one AXI4 port, for several engines. The engine's number is the identifier of its bursts.

    Members:
        clients: the engines' ports of this channel.
        ar, r: of the AXI4 port.
        moved: a beat arrives.
    """

    def __init__(self, ports: MemoryPorts, clients: int) -> None:
        self.memory, self.count = ports, clients
        self.axi = Axi4Signature(address_bits=ports.local_bits, data_bytes=ports.port_bytes, id_bits=id_bits(clients))
        super().__init__(
            {
                "clients": In(ReadPort(ports)).array(clients),
                "ar": self.axi.members["ar"],
                "r": self.axi.members["r"],
                "moved": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        request = self.clients[0].ar.payload.shape()
        m.submodules.arbiter = arbiter = Arbiter(request, self.count)
        m.submodules.out = out = SkidBuffer(self.ar.payload.shape())
        for client, i in zip(self.clients, arbiter.i, strict=True):
            connect_payload(m, client.ar, i)
        m.d.comb += [out.i.valid.eq(arbiter.o.valid), arbiter.o.ready.eq(out.i.ready)]
        m.d.comb += _address(self.memory, out.i.payload, arbiter.o.payload, arbiter.source)
        connect_payload(m, out.o, self.ar)
        # Engines ask only for what they have room for: the bus never waits. A register keeps its paths short.
        beat = Signal(self.r.payload.shape())
        valid = Signal()
        m.d.comb += [self.r.ready.eq(1), self.moved.eq(valid)]
        m.d.sync += [beat.eq(self.r.payload), valid.eq(self.r.valid)]
        for index, client in enumerate(self.clients):
            m.d.comb += [
                client.r.valid.eq(valid & (beat.id == index)),
                client.r.payload.data.eq(beat.data),
                client.r.payload.error.eq(_is_error(beat.resp)),
                client.r.payload.last.eq(beat.last),
            ]
        return m


class WriteChannel(wiring.Component):
    """The write half of one AXI4 port, for several engines. From a burst's address on, its engine has the data until its last.

    Members:
        clients: the engines' ports of this channel.
        aw, w, b: of the AXI4 port.
        moved: a beat leaves.
    """

    def __init__(self, ports: MemoryPorts, clients: int) -> None:
        self.memory, self.count = ports, clients
        self.axi = Axi4Signature(address_bits=ports.local_bits, data_bytes=ports.port_bytes, id_bits=id_bits(clients))
        super().__init__(
            {
                "clients": In(WritePort(ports)).array(clients),
                "aw": self.axi.members["aw"],
                "w": self.axi.members["w"],
                "b": self.axi.members["b"],
                "moved": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.choice = choice = RoundRobin(self.count)
        m.submodules.addresses = addresses = SkidBuffer(self.aw.payload.shape())
        m.submodules.beats = beats = SkidBuffer(self.w.payload.shape())
        connect_payload(m, addresses.o, self.aw)
        connect_payload(m, beats.o, self.w)
        owner, owned = Signal.like(choice.choice), Signal()
        ends, grants = Signal(), Signal()
        # The last beat of a burst and the next address go in the same cycle: bursts follow one another without a gap.
        m.d.comb += [
            choice.requests.eq(Cat(*(client.aw.valid for client in self.clients))),
            ends.eq(beats.i.valid & beats.i.ready & beats.i.payload.last),
            grants.eq((~owned | ends) & choice.any & addresses.i.ready),
            choice.take.eq(grants),
            addresses.i.valid.eq(grants),
            self.moved.eq(beats.i.valid & beats.i.ready),
        ]
        with m.If(grants):
            m.d.sync += [owner.eq(choice.choice), owned.eq(1)]
        with m.Elif(ends):
            m.d.sync += owned.eq(0)
        with m.Switch(choice.choice):
            for index, client in enumerate(self.clients):
                with m.Case(index):
                    m.d.comb += client.aw.ready.eq(grants)
                    m.d.comb += _address(self.memory, addresses.i.payload, client.aw.payload, Value.cast(choice.choice))
        with m.Switch(owner):
            for index, client in enumerate(self.clients):
                with m.Case(index):
                    m.d.comb += [
                        beats.i.valid.eq(owned & client.w.valid),
                        client.w.ready.eq(owned & beats.i.ready),
                        beats.i.payload.data.eq(client.w.payload.data),
                        beats.i.payload.strb.eq(client.w.payload.strobe),
                        beats.i.payload.last.eq(client.w.payload.last),
                    ]
        m.d.comb += self.b.ready.eq(1)
        for index, client in enumerate(self.clients):
            m.d.comb += [
                client.b.valid.eq(self.b.valid & (self.b.payload.id == index)),
                client.b.payload.error.eq(_is_error(self.b.payload.resp)),
            ]
        return m


class Interconnect(wiring.Component):
    """All read engines and all write engines on all channels.

    Members:
        readers[engine][channel], writers[engine][channel]: the engines' ports.
        m_axi: the AXI4 ports, one for each channel.
        read_beats, written_beats: beats moved in this cycle, over all channels.
    """

    def __init__(self, ports: MemoryPorts, readers: int, writers: int) -> None:
        self.memory, self.read_engines, self.write_engines = ports, readers, writers
        axi = Axi4Signature(address_bits=ports.local_bits, data_bytes=ports.port_bytes, id_bits=id_bits(max(readers, writers)))
        super().__init__(
            {
                "readers": In(ReadPort(ports)).array(readers, ports.channels),
                "writers": In(WritePort(ports)).array(writers, ports.channels),
                "m_axi": Out(axi).array(ports.channels),
                "read_beats": Out(range(ports.channels + 1)),
                "written_beats": Out(range(ports.channels + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        read_moves, write_moves = [], []
        for channel, axi in enumerate(self.m_axi):
            m.submodules[f"read_{channel}"] = read = ReadChannel(self.memory, self.read_engines)
            m.submodules[f"write_{channel}"] = write = WriteChannel(self.memory, self.write_engines)
            for mine, engine in zip(read.clients, self.readers, strict=True):
                wiring.connect(m, mine, wiring.flipped(engine[channel]))
            for mine, engine in zip(write.clients, self.writers, strict=True):
                wiring.connect(m, mine, wiring.flipped(engine[channel]))
            _connect_resized(m, read.ar, axi.ar)
            _connect_resized(m, axi.r, read.r)
            _connect_resized(m, write.aw, axi.aw)
            _connect_resized(m, write.w, axi.w)
            _connect_resized(m, axi.b, write.b)
            read_moves.append(read.moved)
            write_moves.append(write.moved)
        m.d.comb += [self.read_beats.eq(_sum(read_moves)), self.written_beats.eq(_sum(write_moves))]
        return m


def _connect_resized(m: Module, source: stream.Interface, sink: stream.Interface) -> None:
    """Field by field: identifiers of the two halves may differ in width."""
    m.d.comb += [sink.valid.eq(source.valid), source.ready.eq(sink.ready)]
    for name, _ in sink.payload.shape():
        m.d.comb += Value.cast(sink.payload[name]).eq(Value.cast(source.payload[name]))


def _address(ports: MemoryPorts, to: Value, burst: Value, engine: Value) -> list[Value]:
    return [
        to.id.eq(engine),
        to.addr.eq(burst.address),
        to.len.eq(burst.beats),
        to.size.eq(ports.offset_bits),
        to.burst.eq(Burst.INCR),
        to.cache.eq(_CACHE),
        to.prot.eq(_PROT),
    ]


def _is_error(response: Value) -> Value:
    return (response == Response.SLVERR) | (response == Response.DECERR)


def _sum(bits: Sequence[Value]) -> Value:
    total: Value = Value.cast(0)
    for bit in bits:
        total = total + bit
    return total
