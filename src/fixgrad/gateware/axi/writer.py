"""The write DMA engine: transfers and their elements in, acknowledgements out."""

from collections.abc import Sequence
from dataclasses import replace

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.burst import FAULT, BurstSplitter, FaultKind, MemoryPorts, burst_layout, transfer_layout
from fixgrad.gateware.axi.client import WritePort
from fixgrad.gateware.axi.reader import TRANSFERS
from fixgrad.gateware.axi.streams import Fifo, SkidBuffer, connect_payload
from fixgrad.gateware.axi.window import BytePacker, span_layout


class Writer(wiring.Component):
    """Writes the elements of transfers of any start and length.

    A burst is offered to the interconnect only when all its beats are here, and only when it cannot end up behind data that
    another channel waits for: so engines that share channels never block one another.

    Args:
        ports: the memory.
        element_bytes: largest element, at most a beat.
        length_bits: width of a transfer's length.
        bursts: bursts that wait for their responses, over all channels.

    Members:
        commands: address and length in bytes, `size` of an element in bytes (at least 1). Of no bytes: nothing happens.
        i: elements; the last one of a transfer may have bytes to spare, which are left out.
        base, limit, stop: see `BurstSplitter`.
        fault: a transfer outside of the memory, or a burst that the memory answered with an error.
        done: a pulse for each transfer of at least one byte, in order, when the memory has acknowledged all of it.
        quiet: every burst has been answered.
        port: to the interconnect, one for each channel.
    """

    def __init__(self, ports: MemoryPorts, element_bytes: int, *, length_bits: int = 24, bursts: int = 8) -> None:
        self.memory, self.element_bytes, self.length_bits, self.bursts = ports, element_bytes, length_bits, bursts
        command = data.StructLayout({**transfer_layout(ports, length_bits).members, "size": range(element_bytes + 1)})
        super().__init__(
            {
                "commands": In(stream.Signature(command)),
                "i": In(stream.Signature(8 * element_bytes)),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "fault": Out(stream.Signature(FAULT, always_ready=True)),
                "done": Out(1),
                "quiet": Out(1),
                "port": Out(WritePort(ports)).array(ports.channels),
            }
        )

    @property
    def shape(self) -> tuple[object, ...]:
        """What tells it from other engines: see `fixgrad.gateware.pe.sharing`."""
        return self.memory, self.element_bytes, self.length_bits, self.bursts

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports = self.memory
        m.submodules.splitter = splitter = BurstSplitter(ports, self.length_bits)
        m.submodules.packer = packer = BytePacker(ports.port_bytes, self.element_bytes, self.length_bits)
        m.submodules.spans = spans = Fifo(span_layout(ports.port_bytes, self.element_bytes, self.length_bits), TRANSFERS)
        m.submodules.sender = sender = BurstSender(ports, 2 * ports.burst_bytes // ports.port_bytes, self.bursts)
        connect_payload(m, spans.o, packer.spans)
        connect_payload(m, packer.o, sender.beats)
        connect_payload(m, splitter.o, sender.bursts)
        connect_payload(m, self.i, packer.i)
        command, span = self.commands.payload, spans.i.payload
        is_taken = self.commands.valid & splitter.i.ready & spans.i.ready
        m.d.comb += [
            splitter.base.eq(self.base),
            splitter.limit.eq(self.limit),
            splitter.stop.eq(self.stop),
            splitter.i.valid.eq(self.commands.valid & spans.i.ready),
            splitter.i.payload.address.eq(command.address),
            splitter.i.payload.length.eq(command.length),
            spans.i.valid.eq(is_taken & (command.length != 0) & ~splitter.fault.valid),
            span.skip.eq(command.address[: ports.offset_bits]),
            span.length.eq(command.length),
            span.size.eq(command.size),
            self.commands.ready.eq(splitter.i.ready & spans.i.ready),
            self.done.eq(sender.done),
            self.quiet.eq(sender.quiet),
            self.fault.valid.eq(splitter.fault.valid | sender.failed),
            self.fault.payload.kind.eq(Mux(splitter.fault.valid, FaultKind.OUTSIDE, FaultKind.WRITE)),
            self.fault.payload.address.eq(Mux(splitter.fault.valid, splitter.fault.payload.address, sender.failed_address)),
        ]
        for mine, inner in zip(self.port, sender.port, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)
        return m


#: Bursts whose addresses are out ahead of their data: a burst of one beat follows another in the next cycle.
FOLLOWING = 4


class BurstSender(wiring.Component):
    """Sends bursts whose beats are made elsewhere.

    Args:
        ports: the memory.
        depth: beats that wait here, at least as many as the longest burst has.
        in_flight: bursts that wait for their responses, over all channels.
        burst: layout of a burst, see `burst_layout`; its address may carry bits above those of the memory.

    Members:
        bursts: in, stream. beats: in, stream: their beats in the same order, with a strobe for each byte.
        done: a pulse for each burst that ends its transfer, in order, when the memory has acknowledged it and all before it.
        failed, failed_address: the memory has answered a burst with an error.
        quiet: every burst has been answered.
        port: to the interconnect, one for each channel.
    """

    def __init__(self, ports: MemoryPorts, depth: int, in_flight: int, burst: data.StructLayout | None = None) -> None:
        self.memory, self.depth, self.in_flight = ports, depth, in_flight
        self.burst = burst or burst_layout(ports)
        beat = data.StructLayout({"data": 8 * ports.port_bytes, "strobe": ports.port_bytes})
        super().__init__(
            {
                "bursts": In(stream.Signature(self.burst)),
                "beats": In(stream.Signature(beat)),
                "done": Out(1),
                "failed": Out(1),
                "failed_address": Out(self.burst["address"].shape),
                "quiet": Out(1),
                "port": Out(WritePort(ports)).array(ports.channels),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.waiting = waiting = Fifo(self.beats.payload.shape(), self.depth)
        address_bits = len(self.failed_address)
        m.submodules.unanswered = unanswered = Unanswered(replace(self.memory, address_bits=address_bits), self.in_flight)
        connect_payload(m, self.beats, waiting.i)
        m.d.comb += [
            self.done.eq(unanswered.done),
            self.quiet.eq(unanswered.empty),
            self.failed.eq(unanswered.failed),
            self.failed_address.eq(unanswered.failed_address),
        ]
        self._issue(m, waiting, unanswered)
        return m

    def _issue(self, m: Module, beats: Fifo, unanswered: "Unanswered") -> None:
        ports = self.memory
        burst = self.bursts.payload
        channel = Signal(max(ports.channel_bits, 1))
        m.d.comb += channel.eq(ports.channel(burst.address))
        # Bursts whose addresses are out and whose data follow; all of them go to the same channel.
        m.submodules.following = following = Fifo(data.StructLayout({"channel": channel.shape(), "beats": 8}), FOLLOWING)
        newest = Signal.like(channel)
        spare = Signal(range(beats.depth + 1))  # beats here that belong to no burst yet
        requests = []
        for index, port in enumerate(self.port):
            m.submodules[f"request_{index}"] = request = SkidBuffer(port.aw.payload.shape())
            connect_payload(m, request.o, port.aw)
            requests.append(request)
        may_issue, is_issued = Signal(), Signal()
        request_ready = Array([request.i.ready for request in requests])[channel] if len(requests) > 1 else requests[0].i.ready
        m.d.comb += [
            may_issue.eq(
                (spare > burst.beats)
                & following.i.ready
                # Or the last of those for another channel goes now.
                & ((following.level == 0) | (newest == channel) | ((following.level == 1) & following.o.ready))
                & unanswered.i.ready
                & request_ready
            ),
            self.bursts.ready.eq(may_issue),
            is_issued.eq(self.bursts.valid & may_issue),
            following.i.valid.eq(is_issued),
            following.i.payload.channel.eq(channel),
            following.i.payload.beats.eq(burst.beats),
            unanswered.i.valid.eq(is_issued),
            unanswered.i.payload.channel.eq(channel),
            unanswered.i.payload.address.eq(burst.address),
            unanswered.i.payload.last.eq(burst.last),
        ]
        arrives = beats.i.valid & beats.i.ready
        m.d.sync += spare.eq(spare + arrives - Mux(is_issued, burst.beats + 1, 0))
        with m.If(is_issued):
            m.d.sync += newest.eq(channel)
        for index, (port, request) in enumerate(zip(self.port, requests, strict=True)):
            m.d.comb += [
                request.i.valid.eq(is_issued & (channel == index)),
                request.i.payload.address.eq(ports.local(burst.address)),
                request.i.payload.beats.eq(burst.beats),
                unanswered.answers[index].eq(port.b.valid),
                unanswered.errors[index].eq(port.b.payload.error),
            ]
        m.d.comb += beats.o.ready.eq(steer(m, following, self.port, beats.o.payload.data, beats.o.payload.strobe))


def steer(m: Module, following: Fifo, ports: Sequence[wiring.PureInterface], beat: Value, strobe: Value) -> Signal:
    """Sends beats to the channel of the burst that they belong to.

    Args:
        following: bursts whose addresses are out, {channel, beats less one}; each has all its beats here.
        ports: write ports, one for each channel.
        beat: the next one. strobe: a bit for each of its bytes.

    Returns:
        whether the beat leaves in this cycle.
    """
    sent, is_last, moves = Signal(8), Signal(), Signal()
    burst = following.o.payload
    ready = Array([port.w.ready for port in ports])[burst.channel] if len(ports) > 1 else ports[0].w.ready
    m.d.comb += [
        is_last.eq(sent == burst.beats),
        moves.eq(following.o.valid & ready),
        following.o.ready.eq(moves & is_last),
    ]
    with m.If(moves):
        m.d.sync += sent.eq(Mux(is_last, 0, sent + 1))
    for index, port in enumerate(ports):
        m.d.comb += [
            port.w.valid.eq(following.o.valid & (burst.channel == index)),
            port.w.payload.data.eq(beat),
            port.w.payload.strobe.eq(strobe),
            port.w.payload.last.eq(is_last),
        ]
    return moves


class Unanswered(wiring.Component):
    """Bursts that wait for their responses: a ring in program order, and for each channel the places of its bursts in it.

    Members:
        i: a burst: its channel, first byte, and whether it ends a transfer.
        answers, errors: for each channel, its oldest burst is answered, and with an error.
        done: the oldest transfer is answered in full.
        failed, failed_address: a burst was answered with an error.
        empty: none waits.
    """

    def __init__(self, ports: MemoryPorts, depth: int) -> None:
        self.memory, self.depth = ports, depth
        burst = data.StructLayout({"channel": max(ports.channel_bits, 1), "address": ports.address_bits, "last": 1})
        super().__init__(
            {
                "i": In(stream.Signature(burst)),
                "answers": In(ports.channels),
                "errors": In(ports.channels),
                "done": Out(1),
                "failed": Out(1),
                "failed_address": Out(ports.address_bits),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.depth
        place = data.StructLayout({"index": range(max(depth, 2)), "address": self.memory.address_bits})
        head, tail, level = Signal(range(max(depth, 2))), Signal(range(max(depth, 2))), Signal(range(depth + 1))
        answered, ends = Signal(depth), Signal(depth)
        push, retire = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(level != depth),
            push.eq(self.i.valid & self.i.ready),
            self.empty.eq(level == 0),
            retire.eq((level != 0) & answered.bit_select(head, 1)),
            self.done.eq(retire & ends.bit_select(head, 1)),
        ]
        m.d.sync += level.eq(level + push - retire)
        with m.If(push):
            m.d.sync += [tail.eq(_next(tail, depth)), ends.bit_select(tail, 1).eq(self.i.payload.last)]
        for index in range(self.memory.channels):
            m.submodules[f"places_{index}"] = places = Fifo(place, depth)
            m.d.comb += [
                places.i.valid.eq(push & (self.i.payload.channel == index)),
                places.i.payload.index.eq(tail),
                places.i.payload.address.eq(self.i.payload.address),
                places.o.ready.eq(self.answers[index]),
            ]
            with m.If(self.answers[index]):
                m.d.sync += answered.bit_select(places.o.payload.index, 1).eq(Const(1))
                with m.If(self.errors[index]):
                    m.d.comb += [self.failed.eq(1), self.failed_address.eq(places.o.payload.address)]
        with m.If(retire):
            m.d.sync += [head.eq(_next(head, depth)), answered.bit_select(head, 1).eq(0)]
        return m


def _next(index: Value, depth: int) -> Value:
    return Mux(index == depth - 1, 0, index + 1)
