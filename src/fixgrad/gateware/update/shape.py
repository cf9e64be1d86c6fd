"""Sizes of the update unit's memory side, and the structures that its parts exchange."""

from dataclasses import dataclass

from amaranth.lib import data
from amaranth.utils import ceil_log2

from fixgrad.errors import UsageError
from fixgrad.gateware.axi.burst import MemoryPorts
from fixgrad.gateware.control.layouts import INDEX_BITS, body_layout
from fixgrad.machine import Machine
from fixgrad.machine.parameters import GROUPS_PER_UPDATE_LANE

#: Bytes that a lane takes from the memory, and gives to it, in a cycle: a parameter in 24 bits needs 3 + 3 + 4/9, and 3 + 3 + 1.
WORD_BYTES = 8
#: Largest element: a stored weight, a momentum, a random element, a gradient.
ELEMENT_BYTES = 4
#: What a lane reads, and writes. A lane's number below the tensor's makes the number of a stream.
STORED, MOMENTUM, ELEMENT, GRADIENT = range(4)
OPERAND = ELEMENT
TENSORS = 4
#: Instructions of a lane between the first read and the last acknowledgement: enough to cover the memory's latency where each
#: has a kernel or two.
IN_FLIGHT = 16
#: Words of a tensor of a lane on chip or asked for (read), and waiting for the memory (write).
READ_WORDS, WRITTEN_WORDS = 64, 32
_FIELDS = body_layout("UPDATE")
COUNT_BITS = _FIELDS["count"].width
#: Width of a transfer's length in bytes.
LENGTH_BITS = COUNT_BITS + 2


@dataclass(frozen=True, slots=True)
class UpdateShape:
    """The lanes that share one memory engine.

    Attributes:
        ports: the memory.
        lanes: how many lanes share the engine.
        sources: groups that a lane serves; the last one of a machine may serve fewer.

    Raises:
        UsageError: the memory's port is narrower than an element.
    """

    ports: MemoryPorts
    lanes: int
    sources: int = GROUPS_PER_UPDATE_LANE

    def __post_init__(self) -> None:
        if self.ports.port_bytes < ELEMENT_BYTES:
            raise UsageError(f"memory.port_bytes is {self.ports.port_bytes}: the update unit needs {ELEMENT_BYTES} at least")

    @classmethod
    def clusters(cls, machine: Machine) -> "tuple[UpdateShape, ...]":
        """The engines of a machine: one for as many lanes as words make up a beat, so that each may have a word a cycle."""
        ports = MemoryPorts.of(machine)
        lanes, most = machine.update_lanes, max(1, ports.port_bytes // WORD_BYTES)
        return tuple(cls(ports, min(most, lanes - first)) for first in range(0, lanes, most))

    @property
    def word_bytes(self) -> int:
        """Bytes of a word; a beat has a power of two of them."""
        return min(WORD_BYTES, self.ports.port_bytes)

    @property
    def beat_words(self) -> int:
        """Words of a beat."""
        return self.ports.port_bytes // self.word_bytes

    @property
    def block_bytes(self) -> int:
        """Transfers are cut at multiples of this, into a burst each. A beat where lanes take turns: with two the engine would wait
        for its lane to assemble the second one, while the other lanes have theirs ready."""
        return min(self.ports.burst_bytes, max(2 * self.ports.port_bytes, 64) if self.lanes == 1 else self.ports.port_bytes)

    @property
    def block_words(self) -> int:
        """Words of a block."""
        return self.block_bytes // self.word_bytes

    @property
    def block_bits(self) -> int:
        """Bits of an address that choose a byte of a block."""
        return ceil_log2(self.block_bytes)

    @property
    def lane_bits(self) -> int:
        """Bits of a lane's number in a stream's."""
        return ceil_log2(self.lanes)

    @property
    def streams(self) -> int:
        """Numbers of streams; those of lanes that do not exist are never used."""
        return TENSORS << self.lane_bits

    @property
    def stream_bits(self) -> int:
        """Width of a stream's number: the lane, and the tensor above it."""
        return ceil_log2(self.streams)

    def stream(self, lane: int, tensor: int) -> int:
        """The number of a stream."""
        return tensor << self.lane_bits | lane

    def transfer(self) -> data.StructLayout:
        """A transfer: whose, first byte, number of bytes (at least 1), and the place of its instruction in the program."""
        return data.StructLayout(
            {"stream": self.stream_bits, "address": self.ports.address_bits, "length": LENGTH_BITS, "index": INDEX_BITS}
        )

    def block(self) -> data.StructLayout:
        """A part of a transfer, as `transfer`; `words`: that it touches; `last`: it ends its transfer."""
        length = {"length": range(self.block_bytes + 1), "words": range(self.block_words + 1), "last": 1}
        return data.StructLayout({**self.transfer().members, **length})

    def beat(self) -> data.StructLayout:
        """A beat that was read: the words `first` to `last` of it are the tensor's."""
        places = dict.fromkeys(("first", "last"), range(max(self.beat_words, 2)))
        return data.StructLayout({"data": 8 * self.ports.port_bytes, "tensor": range(TENSORS), **places})

    def run(self) -> data.StructLayout:
        """Words of a tensor that make up a block to be written, from word `first` of a beat on."""
        return data.StructLayout(
            {"tensor": range(TENSORS), "first": range(max(self.beat_words, 2)), "words": range(self.block_words + 1)}
        )

    def walk(self) -> data.StructLayout:
        """What the pipeline needs of an UPDATE: fields as in the instruction table; `skip`: bytes before the first element of
        each tensor in its first word; `source`: which of the lane's groups has the gradients."""
        names = ("pe", "from_memory", "gradient_base", "count", "taps", "stored_bytes", "momentum_bytes")
        skips = data.ArrayLayout(range(self.word_bytes), TENSORS)
        of = {"source": range(max(self.sources, 2)), "skip": skips}
        return data.StructLayout({**{name: _FIELDS[name].shape for name in names}, **of})

    def packing(self) -> data.StructLayout:
        """What is needed to pack the results of an UPDATE; `places`: of the first byte of each tensor in its block."""
        names = ("count", "stored_bytes", "momentum_bytes", "operands", "from_memory", "statistics")
        places = data.ArrayLayout(range(self.block_bytes), TENSORS)
        return data.StructLayout({**{name: _FIELDS[name].shape for name in names}, "places": places})

    def writing(self) -> data.StructLayout:
        """What is needed to address the writes of an UPDATE."""
        names = ("stored", "momentum", "operand", "gradient_source", "count", "stored_bytes", "momentum_bytes")
        flags = ("operands", "from_memory")
        return data.StructLayout({"index": INDEX_BITS, **{name: _FIELDS[name].shape for name in (*names, *flags)}})
