"""One lane of the update unit, without its memory engine."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import Arbiter, Fifo, connect_payload
from fixgrad.gateware.control.layouts import issued_layout
from fixgrad.gateware.control.step_table import TableRead
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.gateware.post.range_registers import RANGE_REPORT
from fixgrad.gateware.update.beat_assembler import BeatAssembler
from fixgrad.gateware.update.opener import Opener, WriteOpener, ends_layout, lane_transfer
from fixgrad.gateware.update.parameter_walk import ParameterWalk
from fixgrad.gateware.update.result_packing import ResultPacking
from fixgrad.gateware.update.shape import IN_FLIGHT, TENSORS, UpdateShape
from fixgrad.gateware.update.word_distributor import WordDistributor
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit


class UpdateLane(wiring.Component):
    """Up to `IN_FLIGHT` UPDATEs at a time: what one reads is asked for while others are updated and written. The groups that it
    serves take turns, an UPDATE each.

    Members, to the machine: as of `Update`, arrays over the lane's groups: instructions, done (a bit each), take_gradient,
        gradient_wanted, gradients; table, report, gradient_address.
        busy, memory, blocked: out, what it does in this cycle, as `activity_layout` has it for the unit.
    Members, to the cluster's engine:
        reads, writes: out, streams: transfers.
        read_cut, write_cut: in, a bit for each tensor: a block of it is cut; words: in: the words of the block that is read.
        may_read, may_write: out, a bit for each tensor, see `BlockCutter`.
        beats_read: in, stream. runs: in, stream. beats_written: out, stream. written: in, a bit for each tensor: a transfer was
            acknowledged.
    """

    def __init__(self, machine: Machine, shape: UpdateShape) -> None:
        self.machine, self.engine = machine, shape
        pes = machine.pes_per_group
        super().__init__(
            {
                "instructions": In(stream.Signature(issued_layout(Unit.UPDATE))).array(shape.sources),
                "done": Out(shape.sources),
                "table": Out(TableRead()),
                "report": Out(stream.Signature(RANGE_REPORT)),
                "take_gradient": Out(pes).array(shape.sources),
                "gradient_address": Out(PeShape.of(machine).gradient_bits),
                "gradient_wanted": In(1).array(shape.sources),
                "gradients": In(32).array(shape.sources, pes),
                **dict.fromkeys(("busy", "memory", "blocked"), Out(1)),
                **dict.fromkeys(("reads", "writes"), Out(stream.Signature(lane_transfer(shape)))),
                **dict.fromkeys(("read_cut", "write_cut", "written"), In(TENSORS)),
                "words": In(range(shape.block_words + 1)),
                **dict.fromkeys(("may_read", "may_write"), Out(TENSORS)),
                "beats_read": In(stream.Signature(shape.beat())),
                "runs": In(stream.Signature(shape.run())),
                "beats_written": Out(stream.Signature(8 * shape.ports.port_bytes)),
            }
        )

    @property
    def shape(self) -> tuple[object, ...]:
        """What tells it from other lanes: see `fixgrad.gateware.pe.sharing`."""
        return self.machine, self.engine

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.opener = opener = Opener(self.engine)
        m.submodules.walk = walk = ParameterWalk(self.machine, self.engine)
        m.submodules.packing = packing = ResultPacking(self.engine)
        m.submodules.writes_opener = writer = WriteOpener(self.engine)
        m.submodules.ends = ends = Fifo(ends_layout(self.engine), IN_FLIGHT)
        m.submodules.turn = turn = Arbiter(issued_layout(Unit.UPDATE), self.engine.sources)
        for mine, i in zip(self.instructions, turn.i, strict=True):
            connect_payload(m, mine, i)
        connect_payload(m, turn.o, opener.instructions)
        m.d.comb += opener.source.eq(turn.source)
        wiring.connect(m, wiring.flipped(self.table), opener.table)
        queues = {"walks": walk.walks, "packings": packing.packings, "writings": writer.writings}
        for name, to in queues.items():
            out = getattr(opener, name)
            m.submodules[name] = queue = Fifo(out.payload.shape(), IN_FLIGHT)
            connect_payload(m, out, queue.i)
            connect_payload(m, queue.o, to)
        connect_payload(m, opener.ends, ends.i)
        connect_payload(m, opener.transfers, self.reads)
        connect_payload(m, writer.transfers, self.writes)
        connect_payload(m, packing.report, self.report)
        m.d.comb += [opener.idle.eq(ends.level == 0), Value.cast(walk.setting).eq(Value.cast(opener.setting))]
        self._reads(m, walk)
        self._writes(m, walk, packing)
        self._complete(m, ends, packing.reported)
        m.d.comb += [
            self.busy.eq(walk.busy),
            self.blocked.eq(~walk.busy & (walk.blocked | (~walk.works & ~opener.works & (ends.level != 0)))),
            self.memory.eq(~walk.busy & ~self.blocked & (opener.works | (ends.level != 0))),
        ]
        return m

    def _reads(self, m: Module, walk: ParameterWalk) -> None:
        m.submodules.distributor = distributor = WordDistributor(self.engine)
        connect_payload(m, self.beats_read, distributor.beats)
        m.d.comb += [
            walk.word.eq(distributor.word),
            walk.word_valid.eq(distributor.valid),
            self.may_read.eq(walk.may),
            *(mine.eq(inner) for mine, inner in zip(self.take_gradient, walk.take_gradient, strict=True)),
            self.gradient_address.eq(walk.gradient_address),
            *(inner.eq(mine) for mine, inner in zip(self.gradient_wanted, walk.gradient_wanted, strict=True)),
        ]
        for tensor in range(TENSORS):
            with m.If(self.read_cut[tensor]):
                m.d.comb += walk.asked[tensor].eq(self.words)
        for of_group, to_group in zip(self.gradients, walk.gradients, strict=True):
            m.d.comb += [to.eq(mine) for mine, to in zip(of_group, to_group, strict=True)]

    def _writes(self, m: Module, walk: ParameterWalk, packing: ResultPacking) -> None:
        m.submodules.assembler = assembler = BeatAssembler(self.engine)
        connect_payload(m, self.runs, assembler.runs)
        connect_payload(m, assembler.beats, self.beats_written)
        m.d.comb += [
            packing.updated.eq(walk.updated),
            packing.updated_valid.eq(walk.updated_valid),
            walk.taken.eq(packing.taken),
            self.may_write.eq(packing.may),
            packing.cut.eq(self.write_cut),
            packing.pop.eq(assembler.pop),
        ]
        for mine, to in zip(packing.words, assembler.words, strict=True):
            m.d.comb += to.eq(mine)

    def _complete(self, m: Module, ends: Fifo, reported: Value) -> None:
        """In order: an UPDATE is complete when all its transfers are acknowledged and its report is accepted."""
        events, met, completes = Cat(self.written, reported), [], Signal()
        needed = ends.o.payload.needed
        for number in range(TENSORS + 1):
            count = Signal(range(IN_FLIGHT + 1), name=f"ended_{number}")
            m.d.sync += count.eq(count + events[number] - (completes & needed[number]))
            met.append((count != 0) | ~needed[number])
        m.d.comb += [
            completes.eq(ends.o.valid & Cat(*met).all()),
            ends.o.ready.eq(completes),
            self.done.eq(Mux(completes, 1 << ends.o.payload.source, 0)),
        ]


