"""A random program while it is built: what is issued, what is where, and what must have completed before it may change."""

from random import Random
from typing import NamedTuple

import numpy as np

from fixgrad.machine.encoding import Instruction
from fixgrad.machine.generate_memory import MemoryBuilder
from fixgrad.machine.generate_tiles import WG, Tile, rectangle_fields
from fixgrad.machine.instructions import ALL_STEP_PARAMETERS, BY_NAME, STEP_ENTRY_BYTES, Unit, step_parameters_of
from fixgrad.machine.parameters import Machine

#: LOAD_KERNELS and UPDATE: all PEs of a group, or the sum over them.
ALL_PES = 7
#: Step-table entries and range registers that a program uses at most.
ENTRIES, REGISTERS = 8, 16
#: Shifts and coefficients that a host may write, by step parameter (the others hold any value of their bytes).
STEP_RANGES = {
    "shift": (0, 31),
    "bias_shift": (-31, 31),
    "stochastic": (0, 1),
    "frac": (-4, 20),
    "gradient_left": (-62, 24),
    "decay_left": (-62, 24),
    "operand_shift": (0, 24),
    "momentum_bits": (16, 32),
    "left_first": (0, 7),
    "left_second": (0, 30),
    "down": (0, 31),
    "factor_left": (-80, 62),
    "offset_left": (-80, 62),
    "mean_left": (-62, 62),
    "variance_left": (-62, 62),
    "epsilon": (1, 1 << 40),
}
_STORED_BITS = (16, 24, 32)
#: Widest left shift of a momentum that the gateware computes; 32-bit weights with 16-bit momenta need 12.
MAX_STEP_LEFT = 15
_UNITS = (Unit.LOAD, Unit.COMPUTE, Unit.POST, Unit.UPDATE)


class Waits(NamedTuple):
    """Instructions of each unit that must have completed (UPDATE: of every group)."""

    load: int = 0
    compute: int = 0
    post: int = 0
    update: int = 0

    def join(self, *others: "Waits") -> "Waits":
        return Waits(*(max(counts) for counts in zip(self, *others, strict=True)))


class Map(NamedTuple):
    """A feature map in memory, one byte a code, and the POST that writes it (0: the host)."""

    address: int
    channels: int
    rows: int
    columns: int
    post: int


class Sums(NamedTuple):
    """Sums of errors in memory, int32: gradients of biases."""

    address: int
    channels: int
    post: int


class Chunk(NamedTuple):
    """What one COMPUTE takes: read channels [first, last) and, of each queue, the kernels that read them."""

    first: int
    last: int
    kernels: tuple[tuple[tuple[int, int], ...], ...]


class ProgramState:
    """A program so far, what its machine's memories hold behind it, and the loads and COMPUTEs that all tiles share.

    Attributes:
        instructions: so far.
    """

    def __init__(self, machine: Machine, random: Random, memory: MemoryBuilder) -> None:
        self.instructions: list[Instruction] = []
        self._machine, self._random, self._memory = machine, random, memory
        self._issued = dict.fromkeys(_UNITS, 0)
        self._halves = [Waits(), Waits()]
        self._gradients = [Waits(), Waits()]
        self._held: list[tuple[int, int, int]] = []
        self._queued: list[tuple[int, int]] = []
        self._maps: list[Map] = []
        self._sums: list[Sums] = []
        self._entries: list[dict[str, int]] = []
        self._params = Waits()

    def begin(self) -> None:
        """Load the step table."""
        count = min(ENTRIES, self._machine.param_words)
        self._entries = [self._entry() for _ in range(count)]
        table = np.frombuffer(b"".join(map(_entry_bytes, self._entries)), np.uint8)
        source = self._memory.store("step_table", table)
        self._params = Waits(load=self._emit("LOAD_PARAMS", Waits(), source=source, first=0, count=count))

    def end(self) -> None:
        """Store the range registers and halt."""
        target = self._memory.allocate("statistics", 16 * REGISTERS)
        everything = self._everything()
        self._emit("STATISTICS", everything._replace(post=0, load=0), target=target, count=REGISTERS)
        self._emit("HALT", self._everything())

    # What is issued

    def _emit(self, name: str, waits: Waits, **fields: int) -> int:
        """Append an instruction; returns its number among those of its unit (for UPDATE, of its group), from 1."""
        waits = self._slackened(waits)
        unit = BY_NAME[name].unit
        header = {f"wait_{each.value}": count for each, count in zip(_UNITS, waits, strict=True)}
        self.instructions.append(Instruction(name, layer=self._random.randrange(256), **header, **fields))
        if unit in self._issued:
            self._issued[unit] += 1
        return self._updates() if unit is Unit.UPDATE else self._issued.get(unit, 0)

    def _slackened(self, waits: Waits) -> Waits:
        """Now and then a wait for more than is needed."""
        if self._random.random() < 0.9:
            return waits
        load, compute, post, update = (self._random.randint(0, count) for count in self._everything())
        return waits.join(Waits(load, compute, post, update))

    def _everything(self) -> Waits:
        issued = self._issued
        return Waits(issued[Unit.LOAD], issued[Unit.COMPUTE], issued[Unit.POST], self._updates())

    def _updates(self) -> int:
        return self._issued[Unit.UPDATE] // self._machine.groups

    def _number(self, limit: int) -> int:
        return self._random.randrange(limit)

    # Step table

    def _entry(self) -> dict[str, int]:
        values = {}
        for parameter in step_parameters_of(self._machine):
            full = (0, (1 << 8 * parameter.bytes) - 1)
            values[parameter.name] = self._random.randint(*STEP_RANGES.get(parameter.name, full))
        values["stored_bits"] = self._random.choice(_STORED_BITS)
        values["step_left"] = min(values["stored_bits"] - values["momentum_bits"] - self._random.randint(0, 6), MAX_STEP_LEFT)
        return values

    def _param(self) -> int:
        return self._number(len(self._entries))

    # Feature maps

    def _map(self, name: str, channels: int, size: tuple[int, int]) -> Map:
        """A map of at least so many channels of that size: one that a POST writes, or one of random codes."""
        fits = [item for item in self._maps if item.channels >= channels and (item.rows, item.columns) == size]
        if fits and self._random.random() < 0.7:
            return self._random.choice(fits)
        codes = self._memory.codes((channels, *size, self._machine.lanes), 8).astype(np.int8)
        found = Map(self._memory.store(name, codes), channels, *size, post=0)
        self._maps.append(found)
        return found

    def _new_map(self, name: str, channels: int, size: tuple[int, int], bits: int) -> int:
        """Room for a map that POST number `issued + 1` writes."""
        width = 2 if bits > 8 else 1
        address = self._memory.allocate(name, channels * size[0] * size[1] * self._machine.lanes * width)
        if width == 1 and min(size) > 0:
            self._maps.append(Map(address, channels, *size, post=self._issued[Unit.POST] + 1))
        return address

    def _elements(self, name: str, count: int) -> int:
        return self._memory.store(name, self._memory.integers(0, (1 << 32) - 1, (count,), "<u4"))

    def _new_sums(self, count: int) -> int:
        """Sums to which POST number `issued + 1` adds."""
        address = self._memory.store("bias_gradient", self._memory.codes((count,), 24))
        self._sums.append(Sums(address, count, self._issued[Unit.POST] + 1))
        return address

    # Loads

    def _load_input(self, tile: Tile, chunk: Chunk, source: Map) -> int:
        """Bring a chunk's channels into the input buffers; the first word there."""
        channels = chunk.last - chunk.first
        words = channels * tile.held_slot
        if not words:
            return 0
        buffer = self._random.randint(0, self._machine.input_words - words)
        over = [use for use in self._held if use[0] < buffer + words and buffer < use[1]]
        waits = Waits(compute=max((use[2] for use in over), default=0), post=source.post)
        pixels = source.rows * source.columns
        self._emit(
            "LOAD_INPUT",
            waits,
            source=source.address + chunk.first * pixels * self._machine.lanes,
            channels=channels,
            channel_words=pixels,
            row_words=source.columns,
            buffer=buffer,
            slot_words=tile.held_slot,
            **rectangle_fields("in", tile.held),
        )
        self._held = [use for use in self._held if use not in over]
        self._held.append((buffer, buffer + words, self._issued[Unit.COMPUTE] + 1))
        return buffer

    def _load_kernels(self, tile: Tile, chunk: Chunk) -> None:
        """Fill every queue for the coming COMPUTE, in one or two pieces each; the last piece sets the end mark."""
        words = 1 + tile.entry_words * max(map(len, chunk.kernels))
        freed = 0
        while sum(used for _, used in self._queued) + words > self._machine.kernel_words:
            freed = self._queued.pop(0)[0]
        self._queued.append((self._issued[Unit.COMPUTE] + 1, words))
        for queue, kernels in enumerate(chunk.kernels):
            cut = self._random.randint(0, len(kernels))
            pieces = [kernels[:cut], kernels[cut:]] if 0 < cut < len(kernels) else [kernels]
            for number, piece in enumerate(pieces):
                self._load_piece(tile, chunk, queue, piece, last=number == len(pieces) - 1, waits=Waits(compute=freed))

    def _load_piece(
        self, tile: Tile, chunk: Chunk, queue: int, kernels: tuple[tuple[int, int], ...], *, last: bool, waits: Waits
    ) -> None:
        """One LOAD_KERNELS, with coordinates that lie anywhere in a block of 256 x 256."""
        out_base, in_base = (-self._random.randint(0, 200) for _ in range(2))
        places = [(out - out_base, channel - chunk.first - in_base) for out, channel in kernels]
        if tile.transposed:
            places = [(row, column) for column, row in places]
        index = self._memory.store("index", np.array(places, np.uint8).reshape(-1, 2), 2)
        with_data = tile.mode != WG
        weights = self._memory.codes((len(kernels), tile.taps), 8).astype(np.int8)
        pes = self._machine.pes_per_group if tile.channel_split else 1
        self._emit(
            "LOAD_KERNELS",
            waits,
            group=queue // pes,
            pe=queue % pes if tile.channel_split else ALL_PES,
            index=index,
            data=self._memory.store("operand", weights, 1) if with_data else 0,
            count=len(kernels),
            taps=tile.taps,
            with_data=int(with_data),
            transposed=int(tile.transposed),
            out_base=out_base,
            in_base=in_base,
            last=int(last),
        )

    def _chunks(self, tile: Tile) -> list[Chunk]:
        """The read channels in one or two parts."""
        cut = self._random.randint(1, tile.inputs)
        spans = [(0, cut), (cut, tile.inputs)] if cut < tile.inputs else [(0, tile.inputs)]
        return [
            Chunk(first, last, tuple(tuple(k for k in queue if first <= k[1] < last) for queue in tile.kernels))
            for first, last in spans
        ]

    def _compute(self, tile: Tile, chunk: Chunk, source: Map, waits: Waits, **fields: int) -> int:
        self._load_kernels(tile, chunk)
        buffer = self._load_input(tile, chunk, source)
        return self._emit(
            "COMPUTE",
            waits.join(Waits(load=self._issued[Unit.LOAD])),
            mode=tile.mode,
            buffer=buffer,
            slot_words=tile.held_slot,
            lane_slot_words=tile.slot,
            count_padding=self._number(2),
            statistics=self._number(REGISTERS),
            **tile.geometry(),
            **rectangle_fields("in", tile.held),
            **rectangle_fields("out", tile.computed),
            **fields,
        )


def _entry_bytes(values: dict[str, int]) -> bytes:
    entry = bytearray(STEP_ENTRY_BYTES)
    for item in ALL_STEP_PARAMETERS:
        entry[item.offset : item.offset + item.bytes] = values.get(item.name, 0).to_bytes(item.bytes, "little", signed=item.signed)
    return bytes(entry)
