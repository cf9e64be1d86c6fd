"""Reads the words of one operand where the walk says, in the longest bursts that its order allows."""

from dataclasses import replace

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.axi import MemoryPorts, Reader
from fixgrad.gateware.axi.burst import FAULT
from fixgrad.gateware.axi.client import ReadPort
from fixgrad.gateware.axi.streams import Fifo, connect_payload
from fixgrad.gateware.post.plan import lane_shift, offset_bits
from fixgrad.machine import Machine
from fixgrad.machine.instructions import ADDRESS_BITS

#: Words of a run at most, and runs that wait for the reader.
RUN_WORDS = 16
_RUNS = 4
#: Transfers under way, and beats of a channel that are asked for ahead: more than a memory's latency of them.
_TRANSFERS, _BEATS = 8, 128


def run_layout(machine: Machine) -> data.StructLayout:
    """Words that follow one another: offset of the first, in words, and how many."""
    return data.StructLayout({"offset": offset_bits(machine), "count": range(RUN_WORDS + 1)})


class Runs(wiring.Component):
    """Puts offsets together. A run ends where the next word lies elsewhere, at a multiple of `RUN_WORDS`, or if `flush` is high.

    Members:
        i: in, stream of offsets. flush: in, what waits for further words is not to wait any more.
        o: out, stream of `run_layout`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(
            {
                "i": In(stream.Signature(offset_bits(machine))),
                "flush": In(1),
                "o": Out(stream.Signature(run_layout(machine))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        offset, run, complete, has_run = self.i.payload, Signal(run_layout(self.machine)), Signal(), Signal()
        held, joins, leaves = Signal(), Signal(), Signal()
        m.d.comb += [
            # Once offered, a run stays as it is.
            joins.eq(has_run & ~complete & ~held & ~self.flush & (offset == run.offset + run.count)),
            leaves.eq(has_run & (complete | held | self.flush | (self.i.valid & ~joins))),
            self.o.valid.eq(leaves),
            self.o.payload.eq(run),
            # Does not follow from `i.valid`, which may wait for other operands' `ready`.
            self.i.ready.eq(~has_run | joins | self.o.ready),
        ]
        m.d.sync += held.eq(leaves & ~self.o.ready)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [has_run.eq(1), complete.eq(offset[: ceil_log2(RUN_WORDS)].all())]
            with m.If(joins):
                m.d.sync += run.count.eq(run.count + 1)
            with m.Else():
                m.d.sync += [run.offset.eq(offset), run.count.eq(1)]
        with m.Elif(leaves & self.o.ready):
            m.d.sync += has_run.eq(0)
        return m


class OperandReader(wiring.Component):
    """One operand.

    Args:
        machine: gives the memory and the lanes. most: bytes of a code, 1, or 2 where a map may be `wide`.

    Members:
        base: in, address of the map, steady while words are asked for; wide: in, likewise: 2 bytes a code.
        offsets: in, stream of words to read, in words of the map. flush: in, see `Runs`.
        words: out, stream of words, `most` bytes a lane; those of one byte a code are in the lower half.
        low, limit, stop, fault, quiet, port: see `fixgrad.gateware.axi.reader.Reader`; low: the first address of the memory.
    """

    def __init__(self, machine: Machine, most: int) -> None:
        self.machine, self.most, self.memory = machine, most, MemoryPorts.of(machine)
        ports = self.memory
        super().__init__(
            {
                "base": In(ADDRESS_BITS),
                "wide": In(1),
                "offsets": In(stream.Signature(offset_bits(machine))),
                "flush": In(1),
                "words": Out(stream.Signature(8 * most * machine.lanes)),
                "low": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "fault": Out(stream.Signature(FAULT, always_ready=True)),
                "quiet": Out(1),
                "port": Out(ReadPort(ports)).array(ports.channels),
            }
        )

    @property
    def shape(self) -> tuple[object, ...]:
        """What tells it from other readers: see `fixgrad.gateware.pe.sharing`."""
        return self.memory, self.machine.lanes, self.most

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports, lanes, shift = self.memory, self.machine.lanes, lane_shift(self.machine)
        m.submodules.runs = runs = Runs(self.machine)
        m.submodules.queue = queue = Fifo(run_layout(self.machine), _RUNS)
        m.submodules.reader = reader = self._reader()
        connect_payload(m, self.offsets, runs.i)
        connect_payload(m, runs.o, queue.i)
        for mine, inner in zip(self.port, reader.port, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)
        run, command, wide = queue.o.payload, reader.commands.payload, self.wide if self.most > 1 else Const(0, 1)
        m.d.comb += [
            runs.flush.eq(self.flush),
            reader.base.eq(self.low),
            reader.limit.eq(self.limit),
            reader.stop.eq(self.stop),
            self.fault.valid.eq(reader.fault.valid),
            self.fault.payload.eq(reader.fault.payload),
            self.quiet.eq(reader.quiet),
            command.address.eq(self.base + (Mux(wide, run.offset << 1, run.offset) << shift)),
            command.length.eq(Mux(wide, run.count << 1, run.count) << shift),
            command.size.eq(Mux(wide, self._piece_bytes(2), self._piece_bytes(1))),
            reader.commands.valid.eq(queue.o.valid),
            queue.o.ready.eq(reader.commands.ready),
        ]
        # A word wider than a beat is put together, piece by piece; the last one needs no register.
        counts = [max(lanes * size // ports.port_bytes, 1) for size in (1, self.most)]
        pieces, place, is_whole = counts[1], Signal(range(max(counts[1], 2))), Signal()
        element = reader.o.payload.data
        m.d.comb += [
            is_whole.eq(place == Mux(wide, pieces - 1, counts[0] - 1)),
            self.words.valid.eq(reader.o.valid & is_whole),
            reader.o.ready.eq(~is_whole | self.words.ready),
        ]
        with m.If(reader.o.valid & reader.o.ready):
            m.d.sync += place.eq(Mux(is_whole, 0, place + 1))
        earlier = [Signal(len(element), name=f"piece_{index}") for index in range(pieces - 1)]
        for index, register in enumerate(earlier):
            with m.If(reader.o.valid & (place == index)):
                m.d.sync += register.eq(element)
        m.d.comb += self.words.payload.eq(Cat(*(Mux(place == index, element, each) for index, each in enumerate(earlier)), element))
        return m

    def _piece_bytes(self, size: int) -> int:
        """What leaves the reader at once: a word of codes of `size` bytes, or a beat of it."""
        return min(self.machine.lanes * size, self.memory.port_bytes)

    def _reader(self) -> Reader:
        ports, lanes = self.memory, self.machine.lanes
        largest, smallest = self._piece_bytes(self.most), self._piece_bytes(1)
        beats = min(max(RUN_WORDS * self.most * lanes // ports.port_bytes, 1), ports.burst_beats)
        return Reader(
            replace(ports, burst_beats=beats),
            largest,
            length_bits=ceil_log2(RUN_WORDS * self.most * lanes) + 1,
            bursts=max(_BEATS // beats, 4),
            transfers=_TRANSFERS,
            granule=smallest,
            in_block_ram=True,
        )


def code(word: Value, lane: int, wide: Value) -> Value:
    """The code of a lane, signed, 16 bits."""
    narrow = word.word_select(lane, 8).as_signed()
    return Mux(wide, word.word_select(lane, 16).as_signed(), narrow)[:16].as_signed()


def slice_of(word: Value, number: Value, bits: int) -> Value:
    """`bits` bits of a word, from `number` times as many on."""
    count = len(word) // bits
    return word if count == 1 else Array([word[bits * index : bits * (index + 1)] for index in range(count)])[number]
