"""Cuts a transfer of any start and length in bytes into bursts that AXI4 and the memory's channels allow."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.errors import UsageError
from fixgrad.gateware.axi.bus import BOUNDARY_BYTES, MAX_BURST_BEATS
from fixgrad.machine import Machine
from fixgrad.machine.instructions import ADDRESS_BITS


class FaultKind(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What went wrong with a transfer."""

    OUTSIDE = 0
    READ = 1
    WRITE = 2


#: What failed, and the first byte of the burst (of the transfer, for OUTSIDE).
FAULT = data.StructLayout({"kind": FaultKind, "address": ADDRESS_BITS})


@dataclass(frozen=True, slots=True)
class MemoryPorts:
    """The memory as the DMA engines see it.

    Attributes:
        port_bytes: bytes of a beat, a power of two.
        channels: ports, a power of two.
        interleave: bytes after which addresses move on to the next channel, a power of two.
        burst_beats: longest burst, a power of two.
        address_bits: width of a byte address of the whole memory.
    """

    port_bytes: int
    channels: int = 1
    interleave: int = BOUNDARY_BYTES
    burst_beats: int = 16
    address_bits: int = ADDRESS_BITS

    def __post_init__(self) -> None:
        for name in ("port_bytes", "channels", "interleave", "burst_beats"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise UsageError(f"memory ports: {name} is {value}: choose a power of two")
        if self.burst_beats > MAX_BURST_BEATS:
            raise UsageError(f"memory ports: burst_beats is {self.burst_beats}: AXI4 allows {MAX_BURST_BEATS}")
        if self.port_bytes > self.burst_bytes:
            raise UsageError(f"memory ports: interleave is {self.interleave}: choose at least port_bytes, {self.port_bytes}")

    @classmethod
    def of(cls, machine: Machine) -> "MemoryPorts":
        """The ports of a machine."""
        memory = machine.memory
        return cls(memory.port_bytes, memory.channels, memory.interleave)

    @property
    def burst_bytes(self) -> int:
        """A burst lies within an aligned block of so many bytes, so it crosses neither 4 KB nor a channel's stripe."""
        return min(self.port_bytes * self.burst_beats, BOUNDARY_BYTES, self.interleave)

    @property
    def offset_bits(self) -> int:
        """Bits of an address that choose a byte of a beat."""
        return ceil_log2(self.port_bytes)

    @property
    def channel_bits(self) -> int:
        """Bits of an address that choose the channel."""
        return ceil_log2(self.channels)

    @property
    def local_bits(self) -> int:
        """Width of an address within a channel."""
        return self.address_bits - self.channel_bits

    def channel(self, address: Value) -> Value:
        """The channel of a byte address."""
        low = ceil_log2(self.interleave)
        return address[low : low + self.channel_bits]

    def local(self, address: Value) -> Value:
        """The address within its channel: without the bits that choose it."""
        low = ceil_log2(self.interleave)
        return Cat(address[:low], address[low + self.channel_bits :])


def transfer_layout(ports: MemoryPorts, length_bits: int) -> data.StructLayout:
    """A transfer: first byte and number of bytes. One of no bytes is dropped."""
    return data.StructLayout({"address": ports.address_bits, "length": length_bits})


def burst_layout(ports: MemoryPorts) -> data.StructLayout:
    """A burst: the first byte it wants, beats less one, and whether it ends its transfer."""
    return data.StructLayout({"address": ports.address_bits, "beats": 8, "last": 1})


class BurstSplitter(wiring.Component):
    """Bursts of transfers, one a cycle.

    A transfer that does not lie in [base, limit) yields no burst but a fault. While `stop` is high none begins.

    Members:
        i: transfers. o: bursts.
        base, limit: the memory that may be touched.
        stop: no burst is offered any more.
        fault: a transfer that was refused, see `FAULT`.
    """

    def __init__(self, ports: MemoryPorts, length_bits: int) -> None:
        self.memory, self.length_bits = ports, length_bits
        super().__init__(
            {
                "i": In(stream.Signature(transfer_layout(ports, length_bits))),
                "o": Out(stream.Signature(burst_layout(ports))),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "fault": Out(stream.Signature(FAULT, always_ready=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports = self.memory
        address, left, active = Signal(ports.address_bits), Signal(self.length_bits), Signal()
        block, shift = ports.burst_bytes, ports.offset_bits
        block_bits = ceil_log2(block)

        offset, room = Signal(block_bits), Signal(range(block + 1))
        taken, is_last = Signal(range(block + 1)), Signal()
        m.d.comb += [
            offset.eq(address[:block_bits]),
            room.eq(block - offset),
            is_last.eq(left <= room),
            taken.eq(Mux(is_last, left, room)),
            self.o.valid.eq(active & ~self.stop),
            self.o.payload.address.eq(address),
            self.o.payload.beats.eq(((offset + taken - 1) >> shift) - (offset >> shift)),
            self.o.payload.last.eq(is_last),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [address.eq(address + taken), left.eq(left - taken), active.eq(~is_last)]

        transfer = self.i.payload
        end = Signal(unsigned(max(ports.address_bits, self.length_bits) + 1))
        is_inside = Signal()
        m.d.comb += [
            end.eq(transfer.address + transfer.length),
            # A limit beyond the last address would let a transfer wrap around to address 0.
            is_inside.eq((transfer.address >= self.base) & (end <= self.limit) & (end <= 1 << ports.address_bits)),
            self.i.ready.eq(~active),
            self.fault.payload.kind.eq(FaultKind.OUTSIDE),
            self.fault.payload.address.eq(transfer.address),
        ]
        with m.If(self.i.valid & self.i.ready & (transfer.length != 0)):
            m.d.comb += self.fault.valid.eq(~is_inside)
            m.d.sync += [address.eq(transfer.address), left.eq(transfer.length), active.eq(is_inside)]
        return m
