"""The read DMA engine: transfers in, elements out."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, ShapeLike, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.axi.burst import FAULT, BurstSplitter, FaultKind, MemoryPorts, transfer_layout
from fixgrad.gateware.axi.client import ReadPort
from fixgrad.gateware.axi.streams import BlockFifo, Fifo, SkidBuffer, connect_payload
from fixgrad.gateware.axi.window import ByteWindow, WordWindow, element_layout

#: Transfers that may be under way in one engine.
TRANSFERS = 4


class Reader(wiring.Component):
    """Reads transfers of any start and length and gives their elements in order.

    Several bursts are outstanding, over all channels. Each has its room in a FIFO of its channel before it is asked for, so
    data never wait on the bus, whatever the consumer does. Elements leave at one a cycle without a gap between transfers.

    Args:
        ports: the memory.
        element_bytes: largest element, at most a beat.
        length_bits: width of a transfer's length.
        bursts: outstanding bursts of each channel. transfers: transfers under way.
        granule: bytes, a power of two, of which element sizes are multiples: elements begin at the granule that holds a
            transfer's first byte, and end with the one that holds its last. Large granules cost less to move.
        in_block_ram: data wait in block RAM instead of LUTs; `bursts` is a power of two then.
        tag_bits: width of the tag that a command carries to its elements and faults.

    Members:
        commands: address and length in bytes, `size` of an element in bytes (at least 1), `tag`. Of no bytes: nothing happens.
        o: elements.
        base, limit, stop: see `BurstSplitter`.
        fault: a transfer outside of the memory, or a burst that the memory answered with an error (its elements still come).
        fault_tag: with `fault`: of the transfer; only if there are tags.
        quiet: no burst is outstanding.
        port: to the interconnect, one for each channel.
    """

    def __init__(
        self,
        ports: MemoryPorts,
        element_bytes: int,
        *,
        length_bits: int = 24,
        bursts: int = 4,
        transfers: int = TRANSFERS,
        granule: int = 1,
        in_block_ram: bool = False,
        tag_bits: int = 0,
    ) -> None:
        self.memory, self.element_bytes, self.length_bits, self.bursts = ports, element_bytes, length_bits, bursts
        self.transfers, self.granule, self.in_block_ram, self.tag_bits = transfers, granule, in_block_ram, tag_bits
        self._tag: dict[str, ShapeLike] = {"tag": tag_bits} if tag_bits else {}
        transfer = transfer_layout(ports, length_bits).members
        command = data.StructLayout({**transfer, "size": range(element_bytes + 1), **self._tag})
        super().__init__(
            {
                "commands": In(stream.Signature(command)),
                "o": Out(stream.Signature(element_layout(element_bytes, tag_bits))),
                **({"fault_tag": Out(tag_bits)} if tag_bits else {}),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "fault": Out(stream.Signature(FAULT, always_ready=True)),
                "quiet": Out(1),
                "port": Out(ReadPort(ports)).array(ports.channels),
            }
        )

    @property
    def shape(self) -> tuple[object, ...]:
        """What tells it from other engines: see `fixgrad.gateware.pe.sharing`."""
        sizes = self.element_bytes, self.length_bits, self.bursts, self.transfers
        return self.memory, *sizes, self.granule, self.in_block_ram, self.tag_bits

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports = self.memory
        m.submodules.splitter = splitter = BurstSplitter(ports, self.length_bits)
        m.submodules.window = window = self._window()
        m.submodules.spans = spans = Fifo(window.spans.payload.shape(), self.transfers, patient=True)
        order_layout = data.StructLayout({"channel": ports.channel_bits, "address": ports.address_bits, **self._tag})
        m.submodules.order = order = Fifo(order_layout, self.bursts * ports.channels, patient=True)
        connect_payload(m, spans.o, window.spans)
        m.d.comb += [
            Value.cast(self.o.payload).eq(Value.cast(window.o.payload)),
            self.o.valid.eq(window.o.valid),
            window.o.ready.eq(self.o.ready),
            splitter.base.eq(self.base),
            splitter.limit.eq(self.limit),
            splitter.stop.eq(self.stop),
        ]
        self._accept(m, splitter, spans)
        may_issue = self._channels(m, splitter, order, window)
        burst, channel = splitter.o.payload, ports.channel(splitter.o.payload.address)
        m.d.comb += [
            splitter.o.ready.eq(may_issue & order.i.ready),
            order.i.valid.eq(splitter.o.valid & may_issue),
            order.i.payload.channel.eq(channel),
            order.i.payload.address.eq(burst.address),
        ]
        self._tags(m, splitter, spans, order)
        return m

    def _window(self) -> ByteWindow | WordWindow:
        sizes = self.memory.port_bytes, self.element_bytes, self.length_bits
        if self.granule == self.element_bytes:
            return WordWindow(*sizes, tag_bits=self.tag_bits)
        return ByteWindow(*sizes, granule=self.granule, tag_bits=self.tag_bits)

    def _tags(self, m: Module, splitter: BurstSplitter, spans: Fifo, order: Fifo) -> None:
        """A transfer's tag goes with its span and with its bursts, which the splitter makes of one transfer after another."""
        if not self.tag_bits:
            return
        tag = Signal(self.tag_bits)
        with m.If(splitter.i.valid & splitter.i.ready):
            m.d.sync += tag.eq(self.commands.payload.tag)
        m.d.comb += [
            spans.i.payload.tag.eq(self.commands.payload.tag),
            order.i.payload.tag.eq(tag),
            self.fault_tag.eq(Mux(splitter.fault.valid, self.commands.payload.tag, order.o.payload.tag)),
        ]

    def _accept(self, m: Module, splitter: BurstSplitter, spans: Fifo) -> None:
        """A transfer goes to the splitter, and what to take of its beats to the window."""
        command, span = self.commands.payload, spans.i.payload
        is_taken = self.commands.valid & splitter.i.ready & spans.i.ready
        m.d.comb += [
            splitter.i.valid.eq(self.commands.valid & spans.i.ready),
            splitter.i.payload.address.eq(command.address),
            splitter.i.payload.length.eq(command.length),
            spans.i.valid.eq(is_taken & (command.length != 0) & ~splitter.fault.valid),
            span.skip.eq(command.address[: self.memory.offset_bits]),
            span.length.eq(_whole_granules(command.address, command.length, self.granule)),
            span.size.eq(command.size),
            self.commands.ready.eq(splitter.i.ready & spans.i.ready),
        ]

    def _channels(self, m: Module, splitter: BurstSplitter, order: Fifo, window: ByteWindow | WordWindow) -> Value:
        """Requests and data of each channel; returns whether the burst at hand may be asked for."""
        ports = self.memory
        beat = data.StructLayout({"data": 8 * ports.port_bytes, "error": 1, "last": 1})
        burst_beats = ports.burst_bytes // ports.port_bytes
        is_issued = splitter.o.valid & splitter.o.ready
        room, arrived, beats, outstanding = [], [], [], []
        for index, port in enumerate(self.port):
            m.submodules[f"request_{index}"] = request = SkidBuffer(port.ar.payload.shape())
            beats_of = BlockFifo if self.in_block_ram else Fifo
            m.submodules[f"data_{index}"] = fifo = beats_of(beat, self.bursts * burst_beats)
            mine = Signal(name=f"mine_{index}")
            free = Signal(range(self.bursts + 1), init=self.bursts, name=f"free_{index}")
            waiting = Signal(range(self.bursts + 1), name=f"waiting_{index}")
            m.d.comb += [
                mine.eq(is_issued & (ports.channel(splitter.o.payload.address) == index)),
                request.i.valid.eq(mine),
                request.i.payload.address.eq(ports.local(splitter.o.payload.address)),
                request.i.payload.beats.eq(splitter.o.payload.beats),
                Value.cast(fifo.i.payload).eq(Value.cast(port.r.payload)),
                fifo.i.valid.eq(port.r.valid),
            ]
            connect_payload(m, request.o, port.ar)
            freed = fifo.o.valid & fifo.o.ready & fifo.o.payload.last
            m.d.sync += [
                free.eq(free - mine + freed),
                waiting.eq(waiting + mine - (port.r.valid & port.r.payload.last)),
            ]
            room.append((free != 0) & request.i.ready)
            arrived.append(fifo.o.valid)
            beats.append(fifo.o)
            outstanding.append(waiting != 0)
        m.d.comb += self.quiet.eq(~_any(outstanding))
        self._merge(m, order, window, beats, splitter)
        return _pick(room, ports.channel(splitter.o.payload.address))

    def _merge(
        self,
        m: Module,
        order: Fifo,
        window: ByteWindow | WordWindow,
        beats: list[stream.Interface],
        splitter: BurstSplitter,
    ) -> None:
        """Beats of the channels in the order of the bursts; errors become faults."""
        turn = order.o.payload.channel if self.memory.channels > 1 else Signal(1)
        is_error, ends = Signal(), Signal()
        with m.Switch(turn):
            for index, beat in enumerate(beats):
                with m.Case(index):
                    m.d.comb += [
                        window.beats.payload.eq(beat.payload.data),
                        window.beats.valid.eq(beat.valid & order.o.valid),
                        beat.ready.eq(window.beats.ready & order.o.valid),
                        is_error.eq(beat.payload.error),
                        ends.eq(beat.payload.last),
                    ]
        moves = window.beats.valid & window.beats.ready
        m.d.comb += [
            order.o.ready.eq(moves & ends),
            self.fault.valid.eq(splitter.fault.valid | (moves & is_error)),
            self.fault.payload.kind.eq(Mux(splitter.fault.valid, FaultKind.OUTSIDE, FaultKind.READ)),
            self.fault.payload.address.eq(Mux(splitter.fault.valid, splitter.fault.payload.address, order.o.payload.address)),
        ]


def _whole_granules(address: Value, length: Value, granule: int) -> Value:
    """Bytes of the granules that a transfer touches."""
    low = ceil_log2(granule)
    if not low:
        return length
    return Cat(Const(0, low), (address[:low] + length + granule - 1)[low:])


def _any(bits: list[Value]) -> Value:
    found: Value = Value.cast(0)
    for bit in bits:
        found = found | bit
    return found


def _pick(bits: list[Value], index: Value) -> Value:
    return bits[0] if len(bits) == 1 else Array(bits)[index]
