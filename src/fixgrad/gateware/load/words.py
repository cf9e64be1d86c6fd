"""Puts words of feature maps away: inputs to all groups, errors to those who own their channels."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.load.sizes import COORDINATE_BITS, words_job
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.machine import Machine


class WordPlacer(wiring.Component):
    """A word a cycle, also from one channel or job to the next. Addresses beyond a memory wrap around in it.

    A PE takes the words of its rectangle in the order in which they arrive, so its address only counts up. A register stands
    in front of the memories; an error waits there until all PEs that take it have done so.

    Members:
        jobs: what to put away (`sizes.words_job`); taken when the one before has had its last word.
        words: the words of the jobs' boxes, channel by channel, row by row.
        input_writes: for each PE, the same in every group. errors: for each group and PE.
        done: a pulse for each job when its last word has been taken.
        idle: no job, and no word in the register.
        moves: a word leaves the register. blocked: one waits there.
    """

    def __init__(self, machine: Machine) -> None:
        self.shape, self.groups, self.pes = PeShape.of(machine), machine.groups, machine.pes_per_group
        super().__init__(
            {
                "jobs": In(stream.Signature(words_job(self.pes))),
                "words": In(stream.Signature(8 * machine.lanes)),
                "input_writes": Out(self.shape.input_write()).array(self.pes),
                "errors": Out(stream.Signature(self.shape.error())).array(self.groups, self.pes),
                "done": Out(1),
                "idle": Out(1),
                "moves": Out(1),
                "blocked": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job, active = Signal(words_job(self.pes)), Signal()
        fire, ends, is_free = Signal(), Signal(), Signal()
        m.d.comb += [
            fire.eq(active & is_free & (job.empty | self.words.valid)),
            self.words.ready.eq(active & is_free & ~job.empty),
            self.jobs.ready.eq(~active | (fire & ends)),
        ]
        with m.If(self.jobs.ready):
            m.d.sync += [job.eq(self.jobs.payload), active.eq(self.jobs.valid)]
        takes, addresses, group = self._walk(m, job, fire, ends)
        self._register(m, job, fire, ends, is_free, takes, addresses, group)
        m.d.comb += self.idle.eq(~active & is_free & ~self.done)
        return m

    def _walk(self, m: Module, job: data.View, fire: Signal, ends: Signal) -> tuple[Value, list[Signal], Signal]:
        """Where the word at hand belongs: the PEs of a group that take it, each one's address, and the group."""
        row, column = Signal(COORDINATE_BITS), Signal(COORDINATE_BITS)
        channels_left, of_owner = Signal.like(job.all_channels), Signal.like(job.channels)
        group, owner_pe = Signal(range(max(self.groups, 2))), Signal(range(max(self.pes, 2)))
        bits = max(self.shape.input_bits, self.shape.lane_bits)
        base = Signal(bits)
        addresses = [Signal(bits, name=f"address_{pe}") for pe in range(self.pes)]
        ends_row, ends_channel, ends_owner, next_base = Signal(), Signal(), Signal(), Signal(bits)
        takes = Cat(
            (row >= mine.top)
            & (row < mine.bottom)
            & (column >= mine.left)
            & (column < mine.right)
            & (~job.channel_split | (owner_pe == pe))
            for pe, mine in enumerate(job.rectangles)
        )
        m.d.comb += [
            ends_row.eq(column == job.box.last_column),
            ends_channel.eq(ends_row & (row == job.box.last_row)),
            ends_owner.eq(ends_channel & job.is_error & (of_owner == job.channels - 1)),
            ends.eq(job.empty | (ends_channel & (channels_left == 1))),
            next_base.eq(Mux(ends_owner, job.base, base + job.slot_words)),
        ]
        with m.If(fire):
            m.d.sync += [
                column.eq(Mux(ends_row, job.box.left, column + 1)),
                row.eq(Mux(ends_channel, job.box.top, row + ends_row)),
                *(
                    address.eq(Mux(ends_channel, next_base, address + taken))
                    for address, taken in zip(addresses, takes, strict=True)
                ),
            ]
            with m.If(ends_channel):
                m.d.sync += [
                    base.eq(next_base),
                    channels_left.eq(channels_left - 1),
                    of_owner.eq(Mux(ends_owner, 0, of_owner + 1)),
                ]
            with m.If(ends_owner):
                next_group = ~job.channel_split | (owner_pe == self.pes - 1)
                m.d.sync += [group.eq(group + next_group), owner_pe.eq(Mux(next_group, 0, owner_pe + 1))]
        with m.If(self.jobs.ready):
            begin = self.jobs.payload
            m.d.sync += [
                row.eq(begin.box.top),
                column.eq(begin.box.left),
                channels_left.eq(begin.all_channels),
                base.eq(begin.base),
                *(address.eq(begin.base) for address in addresses),
                *(signal.eq(0) for signal in (of_owner, group, owner_pe)),
            ]
        return takes, addresses, group

    def _register(
        self,
        m: Module,
        job: data.View,
        fire: Signal,
        ends: Signal,
        is_free: Signal,
        takes: Value,
        addresses: list[Signal],
        group: Signal,
    ) -> None:
        """The word on its way to the memories."""
        word, at = Signal.like(self.words.payload), [Signal.like(each, name=f"{each.name}_now") for each in addresses]
        inputs, errors, of_group, was_last = Signal(self.pes), Signal(self.pes), Signal.like(group), Signal()
        ready = [Array([of[pe].ready for of in self.errors])[of_group] for pe in range(self.pes)]
        waiting = Signal(self.pes)
        m.d.comb += [
            waiting.eq(errors & ~Cat(*ready)),
            is_free.eq(waiting == 0),
            self.done.eq(was_last & is_free),
            self.moves.eq((inputs | errors).any() & is_free),
            self.blocked.eq(~is_free),
        ]
        m.d.sync += [inputs.eq(0), errors.eq(waiting), was_last.eq(was_last & ~is_free)]
        with m.If(fire):
            m.d.sync += [
                word.eq(self.words.payload),
                *(now.eq(each) for now, each in zip(at, addresses, strict=True)),
                inputs.eq(Mux(job.is_error | job.empty, 0, takes)),
                errors.eq(Mux(job.is_error & ~job.empty, takes, 0)),
                of_group.eq(group),
                was_last.eq(ends),
            ]
        for pe in range(self.pes):
            to = self.input_writes[pe]
            m.d.comb += [to.enable.eq(inputs[pe]), to.address.eq(at[pe]), to.data.eq(word)]
            for number in range(self.groups):
                error = self.errors[number][pe]
                m.d.comb += [
                    error.valid.eq(errors[pe] & (of_group == number)),
                    error.payload.address.eq(at[pe]),
                    error.payload.data.eq(word),
                ]
