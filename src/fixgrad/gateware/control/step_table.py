"""The parameter memory: entries of the step table that LOAD_PARAMS writes, and that POST, LOSS and UPDATE read."""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import RoundRobin
from fixgrad.gateware.control.layouts import body_layout, step_entry_layout
from fixgrad.machine import Machine
from fixgrad.machine.instructions import step_parameters_of

#: Width of the instructions' field `param`; decoding has checked that the machine has the entry.
ENTRY_INDEX_BITS = body_layout("POST")["param"].width


def used_bytes(machine: Machine) -> int:
    """Bytes of an entry up to the last one that a field takes; those behind are not kept, and read as 0."""
    return max(parameter.offset + parameter.bytes for parameter in step_parameters_of(machine))


class TableRead(wiring.Signature):
    """What a unit and the step table say to each other, from the unit's side.

    Members:
        index: out, stream: entries asked for.
        entry: in, stream that is never held up: one entry (`step_entry_layout`) for each index, in order.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "index": Out(stream.Signature(ENTRY_INDEX_BITS)),
                "entry": In(stream.Signature(step_entry_layout(), always_ready=True)),
            }
        )


def table_write_layout() -> data.StructLayout:
    """A write of one entry: `enable` (1 bit), `index`, `entry` (`step_entry_layout`)."""
    return data.StructLayout({"enable": 1, "index": ENTRY_INDEX_BITS, "entry": step_entry_layout()})


class StepTable(wiring.Component):
    """The parameter memory, in block RAM: `machine.param_words` entries, of each the bytes that a field takes.

    An index is taken at once unless another reader's is; its entry comes in the next cycle. An entry that is written in the
    cycle in which it is read shows its old value.

    Args:
        machine: gives the entries. readers: units that read.

    Members:
        write: in, `table_write_layout`: a write in any cycle.
        readers: array of `TableRead`, seen from the table; one index a cycle of all readers together, round robin.
    """

    def __init__(self, machine: Machine, readers: int) -> None:
        self.machine, self.count = machine, readers
        super().__init__({"write": In(table_write_layout()), "readers": In(TableRead()).array(readers)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        stored_bits = 8 * used_bytes(self.machine)
        m.submodules.memory = memory = Memory(
            shape=stored_bits, depth=self.machine.param_words, init=[], attrs={"ram_style": "block"}
        )
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.en.eq(self.write.enable & (self.write.index < self.machine.param_words)),
            write.addr.eq(self.write.index),
            write.data.eq(Value.cast(self.write.entry)[:stored_bits]),
            read.en.eq(1),
        ]
        m.submodules.choice = choice = RoundRobin(self.count)
        m.d.comb += choice.take.eq(choice.any)
        address = Signal(ENTRY_INDEX_BITS)
        taken, answered = Signal(self.count), Signal(self.count)
        m.d.sync += answered.eq(taken)
        for number, reader in enumerate(self.readers):
            m.d.comb += [
                choice.requests[number].eq(reader.index.valid),
                reader.index.ready.eq(taken[number]),
                reader.entry.valid.eq(answered[number]),
                Value.cast(reader.entry.payload).eq(read.data),
            ]
        with m.If(choice.any), m.Switch(choice.choice):
            for number, reader in enumerate(self.readers):
                with m.Case(number):
                    m.d.comb += [taken[number].eq(1), address.eq(reader.index.payload)]
        m.d.comb += read.addr.eq(address)
        return m
