"""Entries of the step table into the parameter memory."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.control.step_table import table_write_layout
from fixgrad.gateware.load.sizes import params_job
from fixgrad.machine.instructions import STEP_ENTRY_BYTES


class ParamsWriter(wiring.Component):
    """Collects the chunks of an entry that have its fields, and drops the others.

    Args:
        chunk_bytes: a divisor of an entry's bytes. used_bytes: bytes of an entry up to the end of the last field.

    Members:
        jobs: which entries come (`sizes.params_job`). chunks: their bytes.
        write: to the step table (`table_write_layout`).
        done: a pulse for each job when its last entry has been written. idle: no job. moves: a chunk is taken.
    """

    def __init__(self, chunk_bytes: int, used_bytes: int) -> None:
        self.chunk_bytes, self.used_bytes = chunk_bytes, used_bytes
        super().__init__(
            {
                "jobs": In(stream.Signature(params_job())),
                "chunks": In(stream.Signature(8 * chunk_bytes)),
                "write": Out(table_write_layout()),
                "done": Out(1),
                "idle": Out(1),
                "moves": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chunks, used = STEP_ENTRY_BYTES // self.chunk_bytes, -(-self.used_bytes // self.chunk_bytes)
        index, left, active = Signal.like(self.write.index), Signal.like(self.jobs.payload.count), Signal()
        place = Signal(range(max(chunks, 2)))
        kept = [Signal(8 * self.chunk_bytes, name=f"kept_{number}") for number in range(used)]
        ends_entry = Signal()
        m.d.comb += [
            self.idle.eq(~active & ~self.write.enable),
            self.jobs.ready.eq(~active),
            self.chunks.ready.eq(active & (left != 0)),
            self.moves.eq(self.chunks.valid & self.chunks.ready),
            ends_entry.eq(self.moves & (place == chunks - 1)),
            self.done.eq(active & (left == 0)),
            self.write.index.eq(index),
            self.write.entry.as_value().eq(Cat(*kept)),
        ]
        # An entry is written in the cycle after its last chunk, in which the next one's first chunk may come.
        m.d.sync += self.write.enable.eq(ends_entry)
        with m.If(self.write.enable):
            m.d.sync += index.eq(index + 1)
        with m.If(self.moves):
            m.d.sync += place.eq(place + 1 if chunks > 1 else 0)
            for number, chunk in enumerate(kept):
                with m.If(place == number):
                    m.d.sync += chunk.eq(self.chunks.payload)
        with m.If(ends_entry):
            m.d.sync += left.eq(left - 1)
        with m.If(self.done):
            m.d.sync += active.eq(0)
        with m.If(self.jobs.ready & self.jobs.valid):
            m.d.sync += [active.eq(1), left.eq(self.jobs.payload.count), index.eq(self.jobs.payload.first)]
        return m
