"""LOAD: asks memory ahead, and puts away in order what it answers."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.axi.burst import MemoryPorts
from fixgrad.gateware.axi.client import ReadPort
from fixgrad.gateware.axi.reader import Reader
from fixgrad.gateware.axi.streams import BlockFifo, Fifo, connect_payload
from fixgrad.gateware.control.counters import activity_layout
from fixgrad.gateware.control.layouts import issued_layout
from fixgrad.gateware.control.step_table import table_write_layout, used_bytes
from fixgrad.gateware.control.supervisor import UNIT_FAULT
from fixgrad.gateware.load.coalescer import Coalescer
from fixgrad.gateware.load.commands import Commands
from fixgrad.gateware.load.join import Join
from fixgrad.gateware.load.kernels import INDEX_BYTES, KernelPusher
from fixgrad.gateware.load.params import ParamsWriter
from fixgrad.gateware.load.sizes import JOBS, LENGTH_BITS, TAG, Kind, LoadSizes, job_layout
from fixgrad.gateware.load.words import WordPlacer
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit
from fixgrad.machine.registers import Cause

#: Bursts of each channel that are asked for and not yet used, and transfers of all channels together.
BURSTS, TRANSFERS = 32, 64
#: Beats of weights that wait behind those in use; shallower queues would not save a block RAM.
WEIGHT_BEATS = 128


class LoadUnit(wiring.Component):
    """The load unit: one DMA engine; a word of a feature map or of a kernel queue a cycle.

    instructions -> commands -> rows -> coalescer -> reader -> words -> word placer -> input buffers, lane memories
                        |                              |-----> coordinates, weights -> kernel pusher -> kernel queues
                        '----------> jobs ------------------------------------------> parameters -> step table

    What memory is asked for runs ahead of what is put away by as much as the jobs, the transfers and the reader's bursts
    allow. Instructions complete in order.

    Members, control: as in `FrontEnd`: instructions, done, activity, fault; base, limit, stop, quiet.
    Members, to the interconnect:
        read: out, an array of ports of one engine, one for each channel.
    Members, to the groups (`fixgrad.gateware.pe.group.Group`):
        input_writes: out, array [pe], to be connected to every group alike.
        errors: out, array of streams [group][pe].
        kernels: out, array of streams [group]. kernel_pes: out, array [group].
    Members, to the step table:
        table_write: out, its port `write`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.memory, self.sizes = machine, MemoryPorts.of(machine), LoadSizes.of(machine)
        ports, shape = self.memory, PeShape.of(machine)
        groups, pes = machine.groups, machine.pes_per_group
        super().__init__(
            {
                "instructions": In(stream.Signature(issued_layout(Unit.LOAD))),
                "done": Out(1),
                "activity": Out(activity_layout(Unit.LOAD, machine)),
                "fault": Out(stream.Signature(UNIT_FAULT, always_ready=True)),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "quiet": Out(1),
                "read": Out(ReadPort(ports)).array(ports.channels),
                "input_writes": Out(shape.input_write()).array(pes),
                "errors": Out(stream.Signature(shape.error())).array(groups, pes),
                "kernels": Out(stream.Signature(shape.kernel())).array(groups),
                "kernel_pes": Out(pes).array(groups),
                "table_write": Out(table_write_layout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.commands = commands = Commands(self.machine)
        m.submodules.jobs = jobs = Fifo(job_layout(self.sizes), JOBS, patient=True)
        m.submodules.words = words = WordPlacer(self.machine)
        m.submodules.pusher = pusher = KernelPusher(self.machine)
        m.submodules.params = params = ParamsWriter(self.sizes.chunk, used_bytes(self.machine))
        connect_payload(m, self.instructions, commands.instructions)
        connect_payload(m, commands.jobs, jobs.i)
        reader = self._reader(m, commands)
        self._route(m, reader, words, pusher, params)
        self._share_out(m, jobs, words, pusher, params)
        self._outputs(m, words, pusher, params)
        self._account(m, jobs, words, pusher, params)
        return m

    def _reader(self, m: Module, commands: Commands) -> Reader:
        """The DMA engine and what stands in front of it."""
        sizes = self.sizes
        m.submodules.coalescer = coalescer = Coalescer(self.memory.burst_bytes)
        m.submodules.reader = reader = Reader(
            self.memory,
            sizes.chunk,
            length_bits=LENGTH_BITS,
            bursts=BURSTS,
            transfers=TRANSFERS,
            granule=sizes.granule,
            in_block_ram=True,
            tag_bits=TAG.size,
        )
        transfer, command = coalescer.o.payload, reader.commands.payload
        connect_payload(m, commands.rows, coalescer.i)
        m.d.comb += [
            command.address.eq(transfer.address),
            command.length.eq(transfer.length),
            command.size.eq(Mux(transfer.tag.kind == Kind.WORDS, sizes.piece, sizes.chunk)),
            command.tag.eq(transfer.tag),
            reader.commands.valid.eq(coalescer.o.valid),
            coalescer.o.ready.eq(reader.commands.ready),
            reader.base.eq(self.base),
            reader.limit.eq(self.limit),
            reader.stop.eq(self.stop),
            self.quiet.eq(reader.quiet),
            self.fault.valid.eq(reader.fault.valid),
            self.fault.payload.fault.eq(reader.fault.payload),
            self.fault.payload.index.eq(data.View(TAG, reader.fault_tag).index),
        ]
        for mine, inner in zip(self.read, reader.port, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)
        return reader

    def _route(self, m: Module, reader: Reader, words: WordPlacer, pusher: KernelPusher, params: ParamsWriter) -> None:
        """Chunks to those who wait for them."""
        sizes, machine = self.sizes, self.machine
        chunk, tag = reader.o, data.View(TAG, reader.o.payload.tag)
        m.submodules.whole_words = whole_words = Join(sizes.piece, sizes.lanes // sizes.piece)
        m.submodules.beats = beats = Join(sizes.chunk, sizes.beat // sizes.chunk)
        # Room for the coordinates of two instructions that fill a kernel queue each: the weights of the first one come
        # behind its coordinates, and must not have to wait for room that they alone would give.
        index_beats = 2 << ceil_log2(machine.kernel_words * INDEX_BYTES // sizes.beat + 2)
        m.submodules.index = index = BlockFifo(8 * sizes.beat, index_beats)
        m.submodules.weights = weights = BlockFifo(8 * sizes.beat, WEIGHT_BEATS)
        for join in (whole_words, beats):
            m.d.comb += [
                join.i.payload.data.eq(chunk.payload.data),
                join.i.payload.kind.eq(tag.kind),
                join.i.payload.last.eq(chunk.payload.last),
            ]
        m.d.comb += params.chunks.payload.eq(chunk.payload.data)
        with m.Switch(tag.kind):
            for kinds, sink in (((Kind.WORDS,), whole_words.i), ((Kind.PARAMS,), params.chunks)):
                with m.Case(*kinds):
                    m.d.comb += [sink.valid.eq(chunk.valid), chunk.ready.eq(sink.ready)]
            with m.Default():
                m.d.comb += [beats.i.valid.eq(chunk.valid), chunk.ready.eq(beats.i.ready)]
        is_index = beats.o.payload.kind == Kind.INDEX
        m.d.comb += [
            words.words.payload.eq(whole_words.o.payload.data),
            words.words.valid.eq(whole_words.o.valid),
            whole_words.o.ready.eq(words.words.ready),
            index.i.valid.eq(beats.o.valid & is_index),
            weights.i.valid.eq(beats.o.valid & ~is_index),
            beats.o.ready.eq(Mux(is_index, index.i.ready, weights.i.ready)),
            *(fifo.i.payload.eq(beats.o.payload.data) for fifo in (index, weights)),
        ]
        connect_payload(m, index.o, pusher.index)
        connect_payload(m, weights.o, pusher.weights)

    def _share_out(self, m: Module, jobs: Fifo, words: WordPlacer, pusher: KernelPusher, params: ParamsWriter) -> None:
        """A job begins when those of the other kinds have ended, so that instructions complete in order."""
        job = jobs.o.payload
        takers: list[tuple[object, WordPlacer | KernelPusher | ParamsWriter, data.View]] = [
            (Kind.WORDS, words, job.of.words),
            (Kind.INDEX, pusher, job.of.kernels),
            (Kind.PARAMS, params, job.of.params),
        ]
        for kind, taker, of_kind in takers:
            begins = Signal(name=f"begins_{type(taker).__name__}")
            others_idle = Cat(*(other.idle for _, other, _ in takers if other is not taker)).all()
            m.d.comb += [
                begins.eq((job.kind == kind) & others_idle),
                Value.cast(taker.jobs.payload).eq(Value.cast(of_kind)),
                taker.jobs.valid.eq(jobs.o.valid & begins),
            ]
            with m.If(begins):
                m.d.comb += jobs.o.ready.eq(taker.jobs.ready)

    def _outputs(self, m: Module, words: WordPlacer, pusher: KernelPusher, params: ParamsWriter) -> None:
        m.d.comb += Value.cast(self.table_write).eq(Value.cast(params.write))
        for mine, inner in zip(self.input_writes, words.input_writes, strict=True):
            m.d.comb += Value.cast(mine).eq(Value.cast(inner))
        for group in range(self.machine.groups):
            connect_payload(m, pusher.kernels[group], self.kernels[group])
            m.d.comb += self.kernel_pes[group].eq(pusher.kernel_pes[group])
            for mine, inner in zip(self.errors[group], words.errors[group], strict=True):
                connect_payload(m, inner, mine)

    def _account(self, m: Module, jobs: Fifo, words: WordPlacer, pusher: KernelPusher, params: ParamsWriter) -> None:
        """Completions, and what the cycle goes to."""
        works, moves, blocked = Signal(), Signal(), Signal()
        m.d.comb += [
            self.done.eq(words.done | pusher.done | params.done),
            works.eq(self.instructions.valid | jobs.o.valid | ~(words.idle & pusher.idle & params.idle)),
            moves.eq(words.moves | pusher.moves | params.moves),
            blocked.eq(words.blocked | pusher.blocked),
            self.activity[str(Cause.BUSY)].eq(moves),
            self.activity[str(Cause.BLOCKED)].eq(~moves & blocked),
            self.activity[str(Cause.MEMORY)].eq(~moves & ~blocked & works),
        ]
