"""Reads what NG needs for each word of errors: the activation that masks it and the place of its window's maximum.

    run ahead   the walk's items become runs of words as they come; each run is read of the mask, then of the places
    queues      the words wait in one queue each, so a mask may be ahead of its places by a run
"""

from dataclasses import replace

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.axi import MemoryPorts, Reader
from fixgrad.gateware.axi.burst import FAULT, FaultKind
from fixgrad.gateware.axi.client import ReadPort
from fixgrad.gateware.axi.streams import Fifo, connect_payload
from fixgrad.gateware.post.plan import lane_shift, offset_bits
from fixgrad.machine import Machine
from fixgrad.machine.instructions import ADDRESS_BITS

#: Words of a run at most, and words that each queue holds: two runs.
RUN_WORDS = 16
QUEUE_WORDS = 2 * RUN_WORDS
#: Transfers of which the reader has taken the command and not yet given the last word.
_TRANSFERS = 8
#: Beats of a channel that are asked for ahead.
_BEATS = 32


def run_layout(machine: Machine) -> data.StructLayout:
    """Words that follow one another: offset of the first, how many, the post-processors that want them, the instruction."""
    return data.StructLayout(
        {"offset": offset_bits(machine), "count": range(RUN_WORDS + 1), "active": machine.post_processors, "of": 1}
    )


def map_run_layout() -> data.StructLayout:
    """A run of one post-processor: address of the first word, words, whether they are places, the instruction."""
    return data.StructLayout({"address": ADDRESS_BITS, "count": range(RUN_WORDS + 1), "places": 1, "of": 1})


class Runs(wiring.Component):
    """Puts offsets together. A run ends where the next word lies elsewhere or is of others, at a multiple of `RUN_WORDS`,
    and with the POST.

    Members:
        i: in, stream of {offset, active, of, ends}.
        o: out, stream of `run_layout`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        word = {"offset": offset_bits(machine), "active": machine.post_processors, "of": 1, "ends": 1}
        super().__init__(
            {"i": In(stream.Signature(data.StructLayout(word))), "o": Out(stream.Signature(run_layout(machine)))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word, run, complete, has_run = self.i.payload, Signal(run_layout(self.machine)), Signal(), Signal()
        joins, leaves = Signal(), Signal()
        m.d.comb += [
            joins.eq(has_run & ~complete & (word.offset == run.offset + run.count) & (word.active == run.active)),
            leaves.eq(has_run & (complete | (self.i.valid & ~joins))),
            self.o.valid.eq(leaves),
            self.o.payload.eq(run),
            self.i.ready.eq(~leaves | self.o.ready),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [has_run.eq(1), complete.eq(word.ends | word.offset[: ceil_log2(RUN_WORDS)].all())]
            with m.If(joins):
                m.d.sync += run.count.eq(run.count + 1)
            with m.Else():
                m.d.sync += [run.offset.eq(word.offset), run.count.eq(1), run.active.eq(word.active), run.of.eq(word.of)]
        with m.Elif(leaves & self.o.ready):
            m.d.sync += has_run.eq(0)
        return m


def _reader(ports: MemoryPorts, lanes: int) -> Reader:
    """Bursts as long as a run, and at least 32 beats and four bursts under way: more than a memory's latency of them.

    Maps begin at a multiple of a word's largest power of two, so pieces that are one need no byte moved.
    """
    beats = min(max(RUN_WORDS * lanes // ports.port_bytes, 1), ports.burst_beats)
    piece = min(lanes, ports.port_bytes)
    return Reader(
        replace(ports, burst_beats=beats),
        piece,
        length_bits=ceil_log2(RUN_WORDS * lanes) + 1,
        bursts=max(_BEATS // beats, 4),
        granule=piece & -piece,
        in_block_ram=True,
    )


class MapReader(wiring.Component):
    """Mask and places of one post-processor.

    Members:
        run: in, stream of {address, count, places, of}: a run of the mask (or of the places), and its instruction.
        mask, places: out, streams of words. mask_level, places_level: out, words that wait.
        base, limit, stop, fault, quiet, port: see `fixgrad.gateware.axi.reader.Reader`. fault_of: out, the instruction.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.memory = machine, MemoryPorts.of(machine)
        ports = self.memory
        super().__init__(
            {
                "run": In(stream.Signature(map_run_layout())),
                "mask": Out(stream.Signature(8 * machine.lanes)),
                "places": Out(stream.Signature(8 * machine.lanes)),
                "mask_level": Out(range(QUEUE_WORDS + 1)),
                "places_level": Out(range(QUEUE_WORDS + 1)),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "fault": Out(stream.Signature(FAULT, always_ready=True)),
                "fault_of": Out(1),
                "quiet": Out(1),
                "port": Out(ReadPort(ports)).array(ports.channels),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports, lanes = self.memory, self.machine.lanes
        piece_bytes = min(lanes, ports.port_bytes)
        m.submodules.reader = reader = _reader(ports, lanes)
        kind = data.StructLayout({"places": 1, "of": 1})
        m.submodules.kinds = kinds = Fifo(kind, _TRANSFERS)
        for mine, inner in zip(self.port, reader.port, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)
        run, command = self.run.payload, reader.commands.payload
        m.d.comb += [
            reader.base.eq(self.base),
            reader.limit.eq(self.limit),
            reader.stop.eq(self.stop),
            self.quiet.eq(reader.quiet),
            command.address.eq(run.address),
            command.length.eq(run.count << lane_shift(self.machine)),
            command.size.eq(piece_bytes),
            reader.commands.valid.eq(self.run.valid & kinds.i.ready),
            self.run.ready.eq(reader.commands.ready & kinds.i.ready),
            kinds.i.valid.eq(self.run.valid & self.run.ready),
            kinds.i.payload.places.eq(run.places),
            kinds.i.payload.of.eq(run.of),
            self.fault.valid.eq(reader.fault.valid),
            self.fault.payload.eq(reader.fault.payload),
            self.fault_of.eq(Mux(reader.fault.payload.kind == FaultKind.OUTSIDE, run.of, kinds.o.payload.of)),
        ]
        self._queues(m, reader, kinds, lanes // piece_bytes)
        return m

    def _queues(self, m: Module, reader: Reader, kinds: Fifo, pieces: int) -> None:
        """Words to the queue that their run is for; a word wider than a beat is put together first."""
        element, earlier = reader.o.payload, Signal(8 * self.machine.lanes)
        place, is_whole, word = Signal(range(max(pieces, 2))), Signal(), Signal(8 * self.machine.lanes)
        m.d.comb += is_whole.eq(place == pieces - 1)
        if pieces > 1:
            m.d.comb += word.eq(Cat(earlier, element.data)[len(element.data) :])
            with m.If(reader.o.valid & reader.o.ready):
                m.d.sync += [earlier.eq(word), place.eq(Mux(is_whole, 0, place + 1))]
        else:
            m.d.comb += word.eq(element.data)
        queues = []
        for name, out, level in (("mask", self.mask, self.mask_level), ("places", self.places, self.places_level)):
            m.submodules[name] = queue = Fifo(8 * self.machine.lanes, QUEUE_WORDS)
            mine: Value = kinds.o.payload.places == (name == "places")
            m.d.comb += [
                queue.i.payload.eq(word),
                queue.i.valid.eq(reader.o.valid & is_whole & mine & kinds.o.valid),
                level.eq(queue.level),
            ]
            connect_payload(m, queue.o, out)
            queues.append(queue)
        mask, places = queues
        room = Mux(kinds.o.payload.places, places.i.ready, mask.i.ready)
        m.d.comb += [
            reader.o.ready.eq(~is_whole | room),
            kinds.o.ready.eq(reader.o.valid & reader.o.ready & element.last),
        ]
