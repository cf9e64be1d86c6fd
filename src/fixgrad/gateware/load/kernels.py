"""Entries of CSB blocks into the kernel queues: the switch of the coordinates, and weights out of beats."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.axi.window import byte_mask, picked
from fixgrad.gateware.control.checks import ALL_PES
from fixgrad.gateware.load.sizes import LoadSizes, kernels_job
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.machine import Machine
from fixgrad.machine.instructions import BY_NAME
from fixgrad.machine.parameters import TAPS_PER_WORD

#: Bytes of an entry's coordinates.
INDEX_BYTES = 2
_COUNT_BITS = next(field.bits for field in BY_NAME["LOAD_KERNELS"].fields if field.name == "count")


class WeightWindow(wiring.Component):
    """The next weights out of beats: a window over one beat and its successor.

    Members:
        beats: a job's beats, and behind them those of the next job.
        start: place of the weights in their first beat; `begin`: they begin there from the next cycle on.
        size: weights wanted, at most a queue word. valid: they are here. weights: they, zeros behind.
        take: they are used. last: with it; the job ends, and nothing more of its beats counts.
    """

    def __init__(self, beat_bytes: int) -> None:
        self.beat_bytes = beat_bytes
        super().__init__(
            {
                "beats": In(stream.Signature(8 * beat_bytes)),
                "start": In(ceil_log2(beat_bytes)),
                "begin": In(1),
                "size": In(range(TAPS_PER_WORD + 1)),
                "valid": Out(1),
                "weights": Out(8 * TAPS_PER_WORD),
                "take": In(1),
                "last": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = self.beat_bytes
        beat, full, at = Signal(8 * size), Signal(), Signal(ceil_log2(size))
        after, crosses, keep = Signal(range(2 * size)), Signal(), Signal(TAPS_PER_WORD)
        window = picked(m, Cat(beat, self.beats.payload), at, 8, 8 * TAPS_PER_WORD)
        m.d.comb += [
            after.eq(at + self.size),
            crosses.eq(after > size),
            self.valid.eq(full & (~crosses | self.beats.valid)),
            keep.eq(byte_mask(self.size, TAPS_PER_WORD)),
            self.weights.eq(window & Cat(*(bit.replicate(8) for bit in keep))),
            self.beats.ready.eq(Mux(self.take, (after >= size) | self.last, ~full)),
        ]
        with m.If(self.beats.ready):
            # Where the last weights reach into the successor, that ends with them.
            m.d.sync += [beat.eq(self.beats.payload), full.eq(self.beats.valid & ~(self.take & self.last & crosses))]
        with m.If(self.begin):
            m.d.sync += at.eq(self.start)
        with m.Elif(self.take):
            m.d.sync += at.eq(after)
        return m


class KernelPusher(wiring.Component):
    """A queue word a cycle: 9 weights of an entry at most, or its coordinates alone, or the end mark.

    Coordinates are cut to the width of the queue. A full queue holds everything up.

    Members:
        jobs: what to push (`sizes.kernels_job`); taken when the one before has given its last word.
        index, weights: beats of the jobs' coordinates and weights.
        kernels, kernel_pes: for each group, see `fixgrad.gateware.pe.group.Group`.
        done: a pulse for each job when its last word is in the queues.
        idle: no job, and no word waits.
        moves: a word goes into the queues. blocked: one waits for room.
    """

    def __init__(self, machine: Machine) -> None:
        self.sizes, self.shape = LoadSizes.of(machine), PeShape.of(machine)
        self.groups, self.pes = machine.groups, machine.pes_per_group
        beat = stream.Signature(8 * self.sizes.beat)
        super().__init__(
            {
                "jobs": In(stream.Signature(kernels_job(self.sizes))),
                "index": In(beat),
                "weights": In(beat),
                "kernels": Out(stream.Signature(self.shape.kernel())).array(self.groups),
                "kernel_pes": Out(self.pes).array(self.groups),
                "done": Out(1),
                "idle": Out(1),
                "moves": Out(1),
                "blocked": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job, active = Signal(kernels_job(self.sizes)), Signal()
        m.submodules.window = window = WeightWindow(self.sizes.beat)
        left, taps_left = Signal(_COUNT_BITS), Signal.like(job.taps)
        is_entry, ends_entry, fire, ends, is_free = (
            Signal(name=name) for name in ("is_entry", "ends_entry", "fire", "ends", "is_free")
        )
        m.d.comb += [
            is_entry.eq(left != 0),
            ends_entry.eq(~job.with_data | (taps_left <= TAPS_PER_WORD)),
            fire.eq(active & is_free & (~is_entry | (self.index.valid & (~job.with_data | window.valid)))),
            ends.eq(Mux(is_entry, ends_entry & (left == 1) & ~job.last, 1)),
            self.jobs.ready.eq(~active | (fire & ends)),
            window.size.eq(Mux(taps_left <= TAPS_PER_WORD, taps_left, TAPS_PER_WORD)),
            window.take.eq(fire & is_entry & job.with_data),
            window.last.eq(ends_entry & (left == 1)),
            window.begin.eq(self.jobs.ready),
            window.start.eq(self.jobs.payload.data_at),
        ]
        _connect(m, self.weights, window.beats)
        with m.If(fire & is_entry):
            m.d.sync += taps_left.eq(Mux(ends_entry, job.taps, taps_left - TAPS_PER_WORD))
            with m.If(ends_entry):
                m.d.sync += left.eq(left - 1)
        with m.If(self.jobs.ready):
            begin = self.jobs.payload
            m.d.sync += [job.eq(begin), active.eq(self.jobs.valid), left.eq(begin.count), taps_left.eq(begin.taps)]
        pair = self._coordinates(m, fire & is_entry & ends_entry, left == 1)
        self._register(m, job, fire, ends, is_free, is_entry, ends_entry, pair, window.weights)
        m.d.comb += self.idle.eq(~active & is_free & ~self.done)
        return m

    def _coordinates(self, m: Module, taken: Value, is_last: Value) -> data.View:
        """The coordinates of the entry at hand."""
        pairs = self.sizes.beat // INDEX_BYTES
        at = Signal(ceil_log2(pairs))
        pair = Signal(data.StructLayout({"row": 8, "column": 8}))
        m.d.comb += [
            Value.cast(pair).eq(self.index.payload.word_select(at, 8 * INDEX_BYTES)),
            self.index.ready.eq(taken & (is_last | (at == pairs - 1))),
        ]
        with m.If(self.jobs.ready):
            m.d.sync += at.eq(self.jobs.payload.index_at >> 1)
        with m.Elif(taken):
            m.d.sync += at.eq(at + 1)
        return pair

    def _register(
        self,
        m: Module,
        job: data.View,
        fire: Signal,
        ends: Signal,
        is_free: Signal,
        is_entry: Signal,
        ends_entry: Signal,
        pair: data.View,
        weights: Value,
    ) -> None:
        """The word on its way to the queues."""
        word, full, was_last = Signal(self.shape.kernel()), Signal(), Signal()
        group, pes = Signal(range(max(self.groups, 2))), Signal(self.pes)
        ready = Array([to.ready for to in self.kernels])[group]
        m.d.comb += [
            is_free.eq(~full | ready),
            self.done.eq(was_last & is_free),
            self.moves.eq(full & ready),
            self.blocked.eq(full & ~ready),
        ]
        with m.If(is_free):
            m.d.sync += [full.eq(fire & (is_entry | job.last)), was_last.eq(fire & ends)]
        with m.If(fire):
            m.d.sync += [
                word.out.eq(job.out_base + Mux(job.transposed, pair.column, pair.row)),
                word.in_.eq(job.in_base + Mux(job.transposed, pair.row, pair.column)),
                word.weights.eq(Mux(job.with_data, weights, 0)),
                word.last.eq(is_entry & ends_entry),
                word.end.eq(~is_entry),
                group.eq(job.group),
                pes.eq(Mux(job.pe == ALL_PES, Const(-1, self.pes), Const(1, self.pes) << job.pe)),
            ]
        for number, to in enumerate(self.kernels):
            m.d.comb += [
                to.valid.eq(full & (group == number)),
                Value.cast(to.payload).eq(Value.cast(word)),
                self.kernel_pes[number].eq(pes),
            ]


def _connect(m: Module, source: stream.Interface, sink: stream.Interface) -> None:
    m.d.comb += [sink.valid.eq(source.valid), sink.payload.eq(source.payload), source.ready.eq(sink.ready)]
