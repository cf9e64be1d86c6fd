"""Sends bursts whose beats are here, and counts what the memory has still to acknowledge of each of two instructions."""

from amaranth.hdl import Array, Cat, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.burst import MemoryPorts
from fixgrad.gateware.axi.client import WritePort
from fixgrad.gateware.axi.streams import Fifo, SkidBuffer, connect_payload
from fixgrad.gateware.axi.writer import steer

#: Bursts of a channel that wait for their responses. They may be as short as a beat.
OUTSTANDING = 32


def sent_burst_layout(ports: MemoryPorts) -> data.StructLayout:
    """A burst: address of its first beat, beats less one, its instruction; or the end of that instruction."""
    return data.StructLayout({"address": ports.address_bits, "beats": 8, "of": 1, "end": 1})


def beat_layout(ports: MemoryPorts, piece_bytes: int) -> data.StructLayout:
    """A beat and which of its pieces are to be written."""
    return data.StructLayout({"data": 8 * ports.port_bytes, "strobe": ports.port_bytes // piece_bytes})


class PairedBurstSender(wiring.Component):
    """As `fixgrad.gateware.axi.writer.BurstSender`, but for bursts of two instructions whose ends are told apart.

    Members:
        bursts: in, stream of bursts and ends, each burst when all its beats are in `beats` (in, stream).
        stop: in, no burst begins any more.
        completed, forget: see `WordWriter`. quiet: out, every burst has been answered.
        failed: out, a burst was answered with an error: failed_address, failed_of (out).
        port: to the interconnect.
    """

    def __init__(self, ports: MemoryPorts, piece_bytes: int) -> None:
        self.memory, self.piece_bytes = ports, piece_bytes
        super().__init__(
            {
                "bursts": In(stream.Signature(sent_burst_layout(ports))),
                "beats": In(stream.Signature(beat_layout(ports, piece_bytes))),
                "stop": In(1),
                "completed": Out(2),
                "forget": In(2),
                "quiet": Out(1),
                "failed": Out(1),
                "failed_address": Out(ports.address_bits),
                "failed_of": Out(1),
                "port": Out(WritePort(ports)).array(ports.channels),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports, burst = self.memory, self.bursts.payload
        channel, newest = Signal(max(ports.channel_bits, 1)), Signal(max(ports.channel_bits, 1))
        m.d.comb += channel.eq(ports.channel(burst.address))
        m.submodules.following = following = Fifo(data.StructLayout({"channel": channel.shape(), "beats": 8}), 2)
        issues, may_issue = Signal(), Signal()
        waiting, requests = self._channels(m, channel, issues)
        ready = [request.i.ready & fifo.i.ready for request, fifo in zip(requests, waiting, strict=True)]
        m.d.comb += [
            may_issue.eq(
                ~burst.end
                & ~self.stop
                & following.i.ready
                & ((following.level == 0) | (newest == channel))
                & (Array(ready)[channel] if len(ready) > 1 else ready[0])
            ),
            issues.eq(self.bursts.valid & may_issue),
            self.bursts.ready.eq(may_issue | burst.end),
            following.i.valid.eq(issues),
            following.i.payload.channel.eq(channel),
            following.i.payload.beats.eq(burst.beats),
        ]
        with m.If(issues):
            m.d.sync += newest.eq(channel)
        strobe = Cat(*(bit.replicate(self.piece_bytes) for bit in self.beats.payload.strobe))
        m.d.comb += self.beats.ready.eq(steer(m, following, self.port, self.beats.payload.data, strobe))
        self._answers(m, issues, waiting)
        return m

    def _channels(self, m: Module, channel: Value, issues: Value) -> tuple[list[Fifo], list[SkidBuffer]]:
        """Requests of each channel, and the bursts that it has still to answer."""
        ports, burst = self.memory, self.bursts.payload
        layout = data.StructLayout({"address": ports.address_bits, "of": 1})
        waiting, requests = [], []
        for index, port in enumerate(self.port):
            m.submodules[f"request_{index}"] = request = SkidBuffer(port.aw.payload.shape())
            m.submodules[f"waiting_{index}"] = fifo = Fifo(layout, OUTSTANDING)
            mine = issues & (channel == index)
            m.d.comb += [
                request.i.valid.eq(mine),
                request.i.payload.address.eq(ports.local(burst.address)),
                request.i.payload.beats.eq(burst.beats),
                fifo.i.valid.eq(mine),
                fifo.i.payload.address.eq(burst.address),
                fifo.i.payload.of.eq(burst.of),
                fifo.o.ready.eq(port.b.valid),
            ]
            connect_payload(m, request.o, port.aw)
            waiting.append(fifo)
            requests.append(request)
        return waiting, requests

    def _answers(self, m: Module, issues: Value, waiting: list[Fifo]) -> None:
        """Counts of unanswered bursts, and the ends of instructions."""
        burst, ended, empty = self.bursts.payload, Signal(2), Signal(2)
        for of in range(2):
            unanswered = Signal(range(OUTSTANDING * len(waiting) + 1), name=f"unanswered_{of}")
            answers = sum((port.b.valid & (fifo.o.payload.of == of) for port, fifo in zip(self.port, waiting, strict=True)), 0)
            m.d.sync += unanswered.eq(unanswered + (issues & (burst.of == of)) - answers)
            m.d.comb += empty[of].eq(unanswered == 0)
            with m.If(self.forget[of]):
                m.d.sync += ended[of].eq(0)
            with m.Elif(self.bursts.valid & burst.end & (burst.of == of)):
                m.d.sync += ended[of].eq(1)
        m.d.comb += [self.completed.eq(ended & empty), self.quiet.eq(empty.all())]
        for port, fifo in zip(self.port, waiting, strict=True):
            with m.If(port.b.valid & port.b.payload.error):
                m.d.comb += [
                    self.failed.eq(1),
                    self.failed_address.eq(fifo.o.payload.address),
                    self.failed_of.eq(fifo.o.payload.of),
                ]
