"""What POST and LOSS read and write once for each channel: a bias or a first random element; sums of errors.

Post-processor p needs the channels from p n on, in order. Those of all of them are read in turns of `TURN` channels, so that
one narrow engine serves all; the sums are written in the same turns.
"""

from amaranth.hdl import Array, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import wrap, wraps
from fixgrad.gateware.axi.streams import Fifo
from fixgrad.gateware.post.plan import ALL_CHANNELS_BITS, CHANNELS_BITS, times
from fixgrad.machine import Machine
from fixgrad.machine.instructions import ADDRESS_BITS
from fixgrad.numbers import ACCUMULATOR_BITS

#: Channels of a turn, and values that each queue holds: two turns.
TURN = 16
QUEUE_VALUES = 2 * TURN
#: Bytes of a value.
VALUE_BYTES = 4


def channels_layout(machine: Machine) -> data.StructLayout:
    """Whose values: addresses of those of the first channel, which are used, channels of each post-processor (`counts`),
    and channels from one to the next, whether they exist or not (`all_channels`)."""
    return data.StructLayout(
        {
            "table": ADDRESS_BITS,
            "sums": ADDRESS_BITS,
            "uses_table": 1,
            "uses_sums": 1,
            "all_channels": ALL_CHANNELS_BITS,
            "counts": data.ArrayLayout(CHANNELS_BITS, machine.post_processors),
        }
    )


def turn_command() -> data.StructLayout:
    """A transfer of the values of a turn."""
    return data.StructLayout({"address": ADDRESS_BITS, "values": range(TURN + 1)})


class Turns(wiring.Component):
    """All turns: channels 0 to 15 of each post-processor, then 16 to 31 of each, and so on.

    Members:
        channels: in, steady while `busy`. begin: in, a cycle after they changed. step: in, the turn has been used.
        busy: out, there is a turn: post_processor, count of channels, place of the first among all channels (out).
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(
            {
                "channels": In(channels_layout(machine)),
                "begin": In(1),
                "step": In(1),
                "busy": Out(1),
                "post_processor": Out(range(max(machine.post_processors, 2))),
                "count": Out(range(TURN + 1)),
                "place": Out(ALL_CHANNELS_BITS + 4),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        number, counts, channels = self.machine.post_processors, self.channels.counts, self.channels
        first, left = Signal(CHANNELS_BITS), Signal(CHANNELS_BITS)
        going, mine = Signal(), Signal(CHANNELS_BITS)
        bits = len(self.place)
        before = Array([times(channels.all_channels, index, bits) if index else Value.cast(0) for index in range(number)])
        m.d.comb += [
            mine.eq(Array([counts[index] for index in range(number)])[self.post_processor]),
            left.eq(Mux(first < mine, mine - first, 0)),
            self.count.eq(Mux(left > TURN, TURN, left)),
            self.place.eq(before[self.post_processor] + first),
            self.busy.eq(going),
        ]
        is_last = self.post_processor == number - 1
        with m.If(self.begin):
            m.d.sync += [going.eq(counts[0] != 0), first.eq(0), self.post_processor.eq(0)]
        with m.Elif(self.step):
            m.d.sync += self.post_processor.eq(Mux(is_last, 0, self.post_processor + 1))
            with m.If(is_last):
                m.d.sync += [first.eq(first + TURN), going.eq(first + TURN < counts[0])]
        return m


class ChannelReads(wiring.Component):
    """Reads ahead as far as its queues have room.

    Members:
        channels, begin, busy: see `Turns`; busy until everything has been asked for.
        sums_settled: in, no sum in memory is about to change.
        commands: out, stream of `turn_command`. values: in, stream of {data, last}: what they gave, `last` of each.
        table, sums: out, for each post-processor a stream of values. table_level: out, values that wait there.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        queue = Out(stream.Signature(ACCUMULATOR_BITS)).array(machine.post_processors)
        super().__init__(
            {
                "channels": In(channels_layout(machine)),
                "begin": In(1),
                "busy": Out(1),
                "sums_settled": In(1),
                "commands": Out(stream.Signature(turn_command())),
                "values": In(stream.Signature(data.StructLayout({"data": ACCUMULATOR_BITS, "last": 1}))),
                "table": queue,
                "sums": queue,
                "table_level": Out(range(QUEUE_VALUES + 1)).array(machine.post_processors),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.turns = turns = Turns(self.machine)
        number = self.machine.post_processors
        destination = data.StructLayout({"post_processor": turns.post_processor.shape(), "sums": 1})
        m.submodules.destinations = destinations = Fifo(destination, 4)
        is_sums, asks, nothing = Signal(), Signal(), Signal()
        queues = [(kind, index) for kind in ("table", "sums") for index in range(number)]
        room = [self._queue(m, index, kind, destinations, asks, turns, is_sums) for kind, index in queues]
        wanted = Mux(is_sums, self.channels.uses_sums, self.channels.uses_table)
        has_room = Array(room)[Mux(is_sums, number, 0) + turns.post_processor]
        m.d.comb += [
            turns.channels.eq(self.channels),
            turns.begin.eq(self.begin),
            self.busy.eq(turns.busy),
            nothing.eq(~wanted | (turns.count == 0)),
            self.commands.valid.eq(turns.busy & ~nothing & has_room & (~is_sums | self.sums_settled) & destinations.i.ready),
            self.commands.payload.address.eq(
                Mux(is_sums, self.channels.sums, self.channels.table) + turns.place * VALUE_BYTES
            ),
            self.commands.payload.values.eq(turns.count),
            asks.eq(self.commands.valid & self.commands.ready),
            destinations.i.valid.eq(asks),
            destinations.i.payload.post_processor.eq(turns.post_processor),
            destinations.i.payload.sums.eq(is_sums),
            turns.step.eq(turns.busy & is_sums & (nothing | asks)),
            destinations.o.ready.eq(self.values.valid & self.values.ready & self.values.payload.last),
        ]
        with m.If(self.begin):
            m.d.sync += is_sums.eq(0)
        with m.Elif(turns.busy & (nothing | asks)):
            m.d.sync += is_sums.eq(~is_sums)
        # There is room for everything that has been asked for.
        m.d.comb += self.values.ready.eq(destinations.o.valid)
        return m

    def _queue(
        self, m: Module, index: int, kind: str, destinations: Fifo, asks: Value, turns: Turns, is_sums: Value
    ) -> Value:
        """The queue of a post-processor; returns whether a turn may be asked for."""
        out, to = getattr(self, kind)[index], destinations.o.payload
        m.submodules[f"{kind}_{index}"] = queue = Fifo(ACCUMULATOR_BITS, QUEUE_VALUES)
        promised = Signal(range(QUEUE_VALUES + 1), name=f"promised_{kind}_{index}")
        mine, asked = Signal(name=f"is_for_{kind}_{index}"), Signal(name=f"asked_for_{kind}_{index}")
        m.d.comb += [
            mine.eq((to.post_processor == index) & (to.sums == (kind == "sums"))),
            asked.eq(asks & (turns.post_processor == index) & (is_sums == (kind == "sums"))),
            queue.i.valid.eq(self.values.valid & destinations.o.valid & mine),
            queue.i.payload.eq(self.values.payload.data),
            out.valid.eq(queue.o.valid),
            out.payload.eq(queue.o.payload),
            queue.o.ready.eq(out.ready),
        ]
        if kind == "table":
            m.d.comb += self.table_level[index].eq(queue.level)
        m.d.sync += promised.eq(promised + Mux(asked, turns.count, 0) - (out.valid & out.ready))
        room: Value = promised <= QUEUE_VALUES - TURN
        return room


class SumWrites(wiring.Component):
    """Adds what has been summed up to the sums in memory.

    Members:
        channels, begin, busy: see `Turns`; begin also forgets `wrapped`. Busy until the last sum has been handed on.
        errors: in, for each post-processor {valid, sum}: of its channels in order. room: out, each can take one more than
            have been promised by `promise` (in, a bit for each).
        sums: in, for each post-processor the sums in memory.
        commands: out, stream of `turn_command`. values: out, stream of 32-bit values, those of each command after it.
        wrapped: out, a sum left 32 bits.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        number = machine.post_processors
        error = data.StructLayout({"valid": 1, "sum": ACCUMULATOR_BITS})
        super().__init__(
            {
                "channels": In(channels_layout(machine)),
                "begin": In(1),
                "busy": Out(1),
                "errors": In(error).array(number),
                "promise": In(number),
                "room": Out(1),
                "sums": In(stream.Signature(ACCUMULATOR_BITS)).array(number),
                "commands": Out(stream.Signature(turn_command())),
                "values": Out(stream.Signature(ACCUMULATOR_BITS)),
                "wrapped": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.turns = turns = Turns(self.machine)
        sending, left, moves = Signal(), Signal(range(TURN + 1)), Signal()
        levels, heads, rooms = [], [], []
        for index, error in enumerate(self.errors):
            m.submodules[f"errors_{index}"] = queue = Fifo(ACCUMULATOR_BITS, QUEUE_VALUES)
            promised, taken = Signal(range(QUEUE_VALUES + 1), name=f"promised_{index}"), Signal(name=f"taken_{index}")
            m.d.comb += [
                queue.i.valid.eq(error.valid),
                queue.i.payload.eq(error.sum),
                taken.eq(moves & (turns.post_processor == index)),
                queue.o.ready.eq(taken),
                self.sums[index].ready.eq(taken),
            ]
            m.d.sync += promised.eq(promised + self.promise[index] - taken)
            rooms.append(promised < QUEUE_VALUES)
            levels.append(queue.level)
            heads.append((queue.o.valid & self.sums[index].valid, queue.o.payload, self.sums[index].payload))
        m.d.comb += self.room.eq(Value.cast(1) if not rooms else _all(rooms))
        chosen = turns.post_processor
        total = Array([head[1] for head in heads])[chosen].as_signed() + Array([head[2] for head in heads])[chosen].as_signed()
        nothing = turns.count == 0
        m.d.comb += [
            turns.channels.eq(self.channels),
            turns.begin.eq(self.begin & self.channels.uses_sums),
            self.busy.eq(turns.busy),
            self.commands.valid.eq(turns.busy & ~sending & ~nothing & (Array(levels)[chosen] >= turns.count)),
            self.commands.payload.address.eq(self.channels.sums + turns.place * VALUE_BYTES),
            self.commands.payload.values.eq(turns.count),
            self.values.valid.eq(sending & Array([head[0] for head in heads])[chosen]),
            self.values.payload.eq(wrap(total)),
            moves.eq(self.values.valid & self.values.ready),
            turns.step.eq(turns.busy & ((~sending & nothing) | (moves & (left == 1)))),
        ]
        with m.If(self.commands.valid & self.commands.ready):
            m.d.sync += [sending.eq(1), left.eq(turns.count)]
        with m.Elif(moves):
            m.d.sync += [left.eq(left - 1), sending.eq(left != 1)]
        with m.If(self.begin):
            m.d.sync += self.wrapped.eq(0)
        with m.Elif(moves & wraps(total)):
            m.d.sync += self.wrapped.eq(1)
        return m


def _all(bits: list[Value]) -> Value:
    found = bits[0]
    for bit in bits[1:]:
        found = found & bit
    return found
