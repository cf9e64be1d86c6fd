"""A host behind a byte stream: it reads and writes the machine's registers and its memory.

A request is a byte of `Request`, four bytes of address, and for a write the data; an answer is a byte with the AXI response
(0: done), and for a read the data. All numbers are little-endian. Registers have 4 bytes, a memory word has those of a beat.
A byte that is no request is ignored, so a host finds its place again by sending zeros.
"""

from enum import IntEnum

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from fixgrad.gateware.axi.bus import Axi4LiteSignature, Axi4Signature, Burst
from fixgrad.gateware.axi.streams import Fifo, connect_payload
from fixgrad.gateware.synthesis.board.serial import Receiver, Sender

_ADDRESS_BYTES, _REGISTER_BYTES = 4, 4
#: Bytes from the host that wait while an access goes on.
_WAITING_BYTES = 32


class Request(IntEnum):
    """The first byte of a request."""

    READ_REGISTER = 0x52
    WRITE_REGISTER = 0x57
    READ_MEMORY = 0x72
    WRITE_MEMORY = 0x77


class HostBridge(wiring.Component):
    """Requests to bus accesses, one at a time.

    Args:
        registers: signature of the control port. memory: signature of the memory port; a word is a beat of it.

    Members:
        requests, answers: streams of bytes.
        s_axi: to the control port. m_axi: to the memory.
    """

    def __init__(self, registers: Axi4LiteSignature, memory: Axi4Signature) -> None:
        self.word_bytes = memory.data_bytes
        super().__init__(
            {
                "requests": In(stream.Signature(8)),
                "answers": Out(stream.Signature(8)),
                "s_axi": Out(registers),
                "m_axi": Out(memory),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        most = max(self.word_bytes, _REGISTER_BYTES)
        operation, address, data = Signal(8), Signal(8 * _ADDRESS_BYTES), Signal(8 * most)
        left, place, response = Signal(range(max(most, _ADDRESS_BYTES) + 1)), Signal(range(most)), Signal(2)
        is_write, is_memory = Signal(), Signal()
        size = Mux(is_memory, self.word_bytes, _REGISTER_BYTES)
        byte = self.requests
        m.d.comb += [
            is_write.eq((operation == Request.WRITE_REGISTER) | (operation == Request.WRITE_MEMORY)),
            is_memory.eq((operation == Request.READ_MEMORY) | (operation == Request.WRITE_MEMORY)),
        ]
        self._drive(m, address, data)
        # Of both buses the same channels: (AXI4-Lite, AXI4), the one that is meant has the handshake.
        both = self.s_axi, self.m_axi
        done = {name: Signal(name=f"{name}_done") for name in ("aw", "w")}
        with m.FSM():
            with m.State("REQUEST"):
                m.d.comb += byte.ready.eq(1)
                m.d.sync += [operation.eq(byte.payload), left.eq(_ADDRESS_BYTES)]
                with m.If(byte.valid & Cat(byte.payload == each for each in Request).any()):
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.comb += byte.ready.eq(1)
                with m.If(byte.valid):
                    m.d.sync += [address.eq(Cat(address[8:], byte.payload)), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.d.sync += [left.eq(size), place.eq(0), done["aw"].eq(0), done["w"].eq(0)]
                        m.next = "READ"
                        with m.If(is_write):
                            m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += byte.ready.eq(1)
                with m.If(byte.valid):
                    m.d.sync += [data.word_select(place, 8).eq(byte.payload), place.eq(place + 1), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "WRITE"
            with m.State("WRITE"):
                for bus, chosen in zip(both, (~is_memory, is_memory), strict=True):
                    for name, finished in done.items():
                        channel = getattr(bus, name)
                        m.d.comb += channel.valid.eq(chosen & ~finished)
                        with m.If(channel.valid & channel.ready):
                            m.d.sync += finished.eq(1)
                    m.d.comb += bus.b.ready.eq(chosen)
                    with m.If(chosen & bus.b.valid):
                        m.d.sync += [response.eq(bus.b.payload.resp), left.eq(0)]
                        m.next = "STATUS"
            with m.State("READ"):
                for bus, chosen in zip(both, (~is_memory, is_memory), strict=True):
                    m.d.comb += [bus.ar.valid.eq(chosen & ~done["aw"]), bus.r.ready.eq(chosen)]
                    with m.If(bus.ar.valid & bus.ar.ready):
                        m.d.sync += done["aw"].eq(1)
                    with m.If(chosen & bus.r.valid):
                        m.d.sync += [response.eq(bus.r.payload.resp), data.eq(bus.r.payload.data), left.eq(size)]
                        m.next = "STATUS"
            with m.State("STATUS"):
                m.d.comb += [self.answers.valid.eq(1), self.answers.payload.eq(response)]
                with m.If(self.answers.ready):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [self.answers.valid.eq(left != 0), self.answers.payload.eq(data[:8])]
                with m.If(left == 0):
                    m.next = "REQUEST"
                with m.Elif(self.answers.ready):
                    m.d.sync += [data.eq(data[8:]), left.eq(left - 1)]
        return m

    def _drive(self, m: Module, address: Signal, data: Signal) -> None:
        registers, memory = self.s_axi, self.m_axi
        for channel in (registers.aw, registers.ar, memory.aw, memory.ar):
            m.d.comb += channel.payload.addr.eq(address)
        for channel in (memory.aw, memory.ar):
            m.d.comb += [channel.payload.size.eq(exact_log2(self.word_bytes)), channel.payload.burst.eq(Burst.INCR)]
        for bus, size in ((registers, _REGISTER_BYTES), (memory, self.word_bytes)):
            m.d.comb += [bus.w.payload.data.eq(data), bus.w.payload.strb.eq((1 << size) - 1)]
        m.d.comb += memory.w.payload.last.eq(1)


class SerialHost(wiring.Component):
    """A `HostBridge` behind a serial line.

    Args:
        registers, memory: as there. divisor: cycles of a bit.

    Members:
        received, sent: the lines from and to the host. s_axi, m_axi: as there.
    """

    def __init__(self, registers: Axi4LiteSignature, memory: Axi4Signature, divisor: int) -> None:
        self.divisor, self.bridge = divisor, HostBridge(registers, memory)
        super().__init__({"received": In(1, init=1), "sent": Out(1, init=1), "s_axi": Out(registers), "m_axi": Out(memory)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bridge = bridge = self.bridge
        m.submodules.receiver = receiver = Receiver(self.divisor)
        m.submodules.waiting = waiting = Fifo(8, _WAITING_BYTES)
        m.submodules.sender = sender = Sender(self.divisor)
        m.d.comb += [receiver.line.eq(self.received), self.sent.eq(sender.line)]
        connect_payload(m, receiver.o, waiting.i)
        connect_payload(m, waiting.o, bridge.requests)
        connect_payload(m, bridge.answers, sender.i)
        wiring.connect(m, bridge.s_axi, wiring.flipped(self.s_axi))
        wiring.connect(m, bridge.m_axi, wiring.flipped(self.m_axi))
        return m
