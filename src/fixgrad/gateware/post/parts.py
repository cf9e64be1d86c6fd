"""The parts of the POST unit and what lies between them."""

from dataclasses import dataclass, fields
from typing import Self

from amaranth.hdl import Cat, Module, Mux, Value
from amaranth.lib import wiring

from fixgrad.gateware.axi import MemoryPorts
from fixgrad.gateware.axi.streams import Fifo, connect_payload
from fixgrad.gateware.elementwise.elementwise_unit import READERS, ElementwiseUnit
from fixgrad.gateware.loss.loss_sequencer import LossSequencer
from fixgrad.gateware.pe.sharing import shared
from fixgrad.gateware.post.channel_data import VALUE_BYTES, ChannelReads, SumWrites
from fixgrad.gateware.post.drain import Drain
from fixgrad.gateware.post.map_reader import MapReader
from fixgrad.gateware.post.map_requests import MapRequests
from fixgrad.gateware.post.narrow_engines import NarrowEngines, connected
from fixgrad.gateware.post.range_registers import RangeRegisters
from fixgrad.gateware.post.setup import Setup
from fixgrad.gateware.post.statistics_sequencer import StatisticsSequencer
from fixgrad.gateware.post.walk import Walk, item_layout
from fixgrad.gateware.post.word_writer import WordWriter
from fixgrad.machine import Machine

#: Items that wait between the walk and the drain: a memory's latency, and a run that waits for its end.
ITEMS = 128
#: Reports of the unit itself: of a drain, of sums that wrapped, of LOSS.
OWN_REPORTS = 3


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts, each a component; of readers and writers one for each post-processor. `elementwise`: or None."""

    setup: Setup
    walk: Walk
    maps: MapRequests
    reads: ChannelReads
    sums: SumWrites
    drain: Drain
    loss: LossSequencer
    statistics: StatisticsSequencer
    narrow: NarrowEngines
    ranges: RangeRegisters
    items: Fifo
    elementwise: ElementwiseUnit | None
    readers: tuple[MapReader, ...]
    writers: tuple[WordWriter, ...]

    @classmethod
    def of(cls, machine: Machine, reports: int) -> Self:
        """Those of a machine; `reports`: how many others report to the range registers."""
        ports, number, more = MemoryPorts.of(machine), range(machine.post_processors), int(machine.elementwise_lanes > 0)
        return cls(
            Setup(machine),
            Walk(machine),
            MapRequests(machine),
            ChannelReads(machine),
            SumWrites(machine),
            Drain(machine),
            LossSequencer(machine),
            StatisticsSequencer(machine),
            NarrowEngines(machine, 2 + more, 3 + more),
            RangeRegisters(machine, OWN_REPORTS + reports + more),
            Fifo(item_layout(machine), ITEMS, patient=True),
            ElementwiseUnit(machine) if more else None,
            tuple(MapReader(machine) for _ in number),
            tuple(WordWriter(ports, machine.lanes) for _ in number),
        )

    def add_to(self, m: Module, platform: object) -> None:
        """As submodules."""
        if self.elementwise is not None:
            m.submodules.elementwise = shared(self.elementwise, platform)
        for each in fields(self):
            part = getattr(self, each.name)
            if each.name == "elementwise":
                continue
            for number, one in enumerate(part if isinstance(part, tuple) else (part,)):
                m.submodules[f"{each.name}_{number}" if isinstance(part, tuple) else each.name] = one


def connect_streams(m: Module, unit: wiring.Component, parts: Parts) -> None:
    """Between the parts; a step-table reader and first random elements for POST or for LOSS."""
    setup, loss, drain, reads, sums, narrow = parts.setup, parts.loss, parts.drain, parts.reads, parts.sums, parts.narrow
    connect_payload(m, parts.walk.items, parts.maps.i)
    m.d.comb += [
        unit.table.index.valid.eq(setup.table.index.valid | loss.table.index.valid),
        unit.table.index.payload.eq(Mux(loss.busy, loss.table.index.payload, setup.table.index.payload)),
    ]
    for user, mine in ((setup, ~loss.busy), (loss, loss.busy)):
        m.d.comb += [
            user.table.index.ready.eq(unit.table.index.ready & mine),
            user.table.entry.valid.eq(unit.table.entry.valid & mine),
            user.table.entry.payload.eq(unit.table.entry.payload),
        ]
    for index, (table, error) in enumerate(zip(drain.table, sums.errors, strict=True)):
        connect_payload(m, reads.table[index], table)
        connect_payload(m, reads.sums[index], sums.sums[index])
        m.d.comb += [drain.table_level[index].eq(reads.table_level[index]), error.eq(drain.errors[index])]
    m.d.comb += [sums.promise.eq(drain.promise), drain.sums_room.eq(sums.room), loss.sums_room.eq(sums.room)]
    m.d.comb += [loss.random.payload.eq(reads.table[0].payload), loss.random.valid.eq(reads.table[0].valid)]
    with m.If(loss.busy):
        m.d.comb += [
            reads.table[0].ready.eq(loss.random.ready),
            sums.errors[0].eq(loss.errors),
            sums.promise.eq(loss.errors.valid),
        ]
    for source, sink in ((reads.commands, narrow.reads[0]), (sums.commands, narrow.writes[0])):
        connected(m, source, sink, source.payload.values * VALUE_BYTES)
    m.d.comb += [
        reads.values.valid.eq(narrow.values[0].valid),
        narrow.values[0].ready.eq(reads.values.ready),
        reads.values.payload.data.eq(narrow.values[0].payload.data),
        reads.values.payload.last.eq(narrow.values[0].payload.last),
    ]
    statistics = parts.statistics
    for source, sink in (
        (sums.values, narrow.elements[0]),
        (loss.reads, narrow.reads[1]),
        (narrow.values[1], loss.values),
        (loss.writes, narrow.writes[1]),
        (loss.elements, narrow.elements[1]),
        (statistics.writes, narrow.writes[2]),
        (statistics.elements, narrow.elements[2]),
        (statistics.take, parts.ranges.take),
        (parts.ranges.taken, statistics.taken),
        (loss.report, parts.ranges.reports[2]),
    ):
        connect_payload(m, source, sink)
    for index, report in enumerate(unit.reports):
        connect_payload(m, report, parts.ranges.reports[OWN_REPORTS + index])


def connect_engines(m: Module, unit: wiring.Component, parts: Parts, of_drain: Value) -> None:
    """Words of feature maps and their engines; groups; the memory that may be touched."""
    drain = parts.drain
    engines: list[MapReader | WordWriter | NarrowEngines | ElementwiseUnit] = [*parts.readers, *parts.writers, parts.narrow]
    if parts.elementwise is not None:
        engines.append(parts.elementwise)
    for engine in engines:
        m.d.comb += [engine.base.eq(unit.base), engine.limit.eq(unit.limit), engine.stop.eq(unit.stop)]
    m.d.comb += unit.quiet.eq(Cat(engine.quiet for engine in engines).all())
    for index, (reader, writer) in enumerate(zip(parts.readers, parts.writers, strict=True)):
        connect_payload(m, parts.maps.run[index], reader.run)
        connect_payload(m, reader.mask, drain.mask[index])
        connect_payload(m, reader.places, drain.places[index])
        m.d.comb += [
            drain.mask_level[index].eq(reader.mask_level),
            drain.places_level[index].eq(reader.places_level),
            drain.room[index].eq(writer.room),
            writer.word.eq(drain.words[index]),
            writer.of.eq(of_drain),
            writer.close.eq(drain.blocked),
        ]
    own = [*(each.port for each in parts.readers), parts.narrow.read_port]
    for mine, engine in zip(unit.read_ports, own, strict=False):  # those of the elementwise unit follow
        for out, inner in zip(mine, engine, strict=True):
            wiring.connect(m, wiring.flipped(out), inner)
    for mine, engine in zip(unit.write_ports, [*(each.port for each in parts.writers), parts.narrow.write_port], strict=True):
        for out, inner in zip(mine, engine, strict=True):
            wiring.connect(m, wiring.flipped(out), inner)
    for group, (ask, address, word) in enumerate(zip(unit.drain, unit.drain_address, unit.drained, strict=True)):
        m.d.comb += [ask.eq(drain.drain[group]), address.eq(drain.drain_address[group]), drain.drained[group].eq(word)]


def connect_elementwise(m: Module, unit: wiring.Component, parts: Parts, of_drain: Value) -> None:
    """The elementwise unit, if there is one, and what it shares with POST: table, narrow engines, post-processor, writer."""
    mine, drain = parts.elementwise, parts.drain
    if mine is None:
        return
    for source, sink in (
        (mine.reads, parts.narrow.reads[-1]),
        (parts.narrow.values[-1], mine.values),
        (mine.writes, parts.narrow.writes[-1]),
        (mine.elements, parts.narrow.elements[-1]),
        (mine.report, parts.ranges.reports[-1]),
    ):
        connect_payload(m, source, sink)
    with m.If(mine.requantised.active):
        connect_payload(m, mine.table.index, unit.table.index)
    m.d.comb += [
        mine.table.entry.valid.eq(unit.table.entry.valid & mine.requantised.active),
        mine.table.entry.payload.eq(unit.table.entry.payload),
        drain.elementwise.eq(mine.requantised),
        mine.codes.eq(drain.codes),
        mine.statistics.eq(drain.statistics[0]),
        mine.room.eq(parts.writers[0].room),
        mine.completed.eq(parts.writers[0].completed.bit_select(of_drain, 1)),
    ]
    writer = parts.writers[0]
    with m.If(mine.requantised.active):
        m.d.comb += [writer.word.eq(mine.word), writer.close.eq(mine.close), writer.end.eq(mine.end)]
    with m.If(mine.forget):
        m.d.comb += writer.forget.eq(Mux(of_drain, 0b10, 0b01))
    for mine_, out in zip(mine.read_ports, list(unit.read_ports)[-READERS:], strict=True):
        for inner, port in zip(mine_, out, strict=True):
            wiring.connect(m, inner, wiring.flipped(port))
