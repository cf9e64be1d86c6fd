"""Builds a random program instruction by instruction, and knows for each what must have completed before it may begin."""

from random import Random
from typing import NamedTuple

import numpy as np

from fixgrad.machine.encoding import Instruction
from fixgrad.machine.generate_memory import MemoryBuilder, narrow
from fixgrad.machine.generate_tiles import FF, NG, WG, Tile, random_tile, rectangle_fields
from fixgrad.machine.instructions import BY_NAME, STEP_ENTRY_BYTES, STEP_PARAMETERS, Unit
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
}
_STORED_BITS = (16, 24, 32)
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


class ProgramBuilder:
    """The program so far and the state of the machine's memories behind it.

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

    def add_tile(self) -> None:
        """One tile: FF, NG, WG with its update, the loss, or an update of biases."""
        kind = self._random.choice(("FF", "FF", "NG", "NG", "WG", "WG", "LOSS", "BIASES"))
        if kind == "LOSS":
            self._loss()
        elif kind == "BIASES" and self._sums:
            self._update_biases(self._sums.pop(self._random.randrange(len(self._sums))))
        elif kind == "WG":
            self._weight_tile(random_tile(self._machine, self._random, WG))
        else:
            self._map_tile(random_tile(self._machine, self._random, NG if kind == "NG" else FF))

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
        for parameter in STEP_PARAMETERS:
            full = (0, (1 << 8 * parameter.bytes) - 1)
            values[parameter.name] = self._random.randint(*STEP_RANGES.get(parameter.name, full))
        values["stored_bits"] = self._random.choice(_STORED_BITS)
        values["step_left"] = values["stored_bits"] - values["momentum_bits"] - self._random.randint(0, 6)
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

    # FF and NG

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

    def _map_tile(self, tile: Tile) -> None:
        half = self._number(2)
        base = half * self._machine.half_lane_words
        free = self._halves[half]
        source = self._map("input" if tile.mode == FF else "error", tile.inputs, tile.held_size)
        compute = 0
        for number, chunk in enumerate(self._chunks(tile)):
            waits = free if number == 0 else Waits()
            compute = self._compute(tile, chunk, source, waits, clear=int(number == 0), lane_base=base)
        fields, also = (self._forward_fields if tile.mode == FF else self._backward_fields)(tile)
        post = self._emit(
            "POST",
            self._params.join(Waits(compute=compute), also),
            mode=tile.mode,
            lane_base=base,
            lane_slot_words=tile.slot,
            channels=tile.channels,
            total_channels=tile.total,
            channel_split=int(tile.channel_split),
            pool_rows=tile.pool[0],
            pool_columns=tile.pool[1],
            param=self._param(),
            statistics=self._number(REGISTERS),
            images=self._random.randint(1, self._machine.lanes),
            **rectangle_fields("out", tile.computed),
            **fields,
        )
        self._halves[half] = Waits(compute=compute, post=post)

    def _forward_fields(self, tile: Tile) -> tuple[dict[str, int], Waits]:
        """What FF tells POST: where the pooled codes go, biases, and the place for the maxima."""
        size = (tile.computed_size[0] // tile.pool[0], tile.computed_size[1] // tile.pool[1])
        words, bits = tile.total * size[0] * size[1], self._random.choice((8, 8, 8, self._random.randint(2, 16)))
        fields = {
            "target": self._new_map("activation", tile.total, size, bits),
            "channel_words": size[0] * size[1],
            "row_words": size[1],
            "out_bits": bits,
            "rectify": self._number(3),
            "with_bias": self._number(2),
            "with_argmax": self._number(2) if tile.pool != (1, 1) else 0,
        }
        if fields["with_bias"]:
            fields["bias"] = self._memory.store("bias", self._memory.codes((tile.total,), 24))
        if fields["with_argmax"]:
            fields["argmax"] = self._memory.allocate("argmax", words * self._machine.lanes)
        return fields, Waits()

    def _backward_fields(self, tile: Tile) -> tuple[dict[str, int], Waits]:
        """What NG tells POST: mask, places of maxima, random elements, and the sums for the biases."""
        size, pool = tile.computed_size, tile.pool
        target = (size[0] * pool[0] + self._number(pool[0]), size[1] * pool[1] + self._number(pool[1]))
        mask = self._map("mask", tile.total, size) if self._number(2) else None
        fields = {
            "target": self._new_map("error", tile.total, target, 8),
            "channel_words": target[0] * target[1],
            "row_words": target[1],
            "out_bits": 8,
            "element": self._elements("random", tile.total),
            "rectify": int(mask is not None),
            "with_bias": self._number(2),
            "mask_channel_words": size[0] * size[1],
            "mask_row_words": size[1],
            "random_row": size[1],
            "random_batch": self._random.randint(self._machine.lanes, 4 * self._machine.lanes),
            "random_image": self._number(3) * self._machine.lanes,
        }
        if mask is not None:
            fields["mask"] = mask.address
        if pool != (1, 1):
            shape = (tile.total, *size, self._machine.lanes)
            places = self._memory.integers(0, pool[0] * pool[1] - 1, shape, "u1")
            fields["argmax"] = self._memory.store("argmax", places)
        if fields["with_bias"]:
            fields["bias_gradient"] = self._new_sums(tile.total)
        return fields, Waits(post=0 if mask is None else mask.post)

    def _elements(self, name: str, count: int) -> int:
        return self._memory.store(name, self._memory.integers(0, (1 << 32) - 1, (count,), "<u4"))

    def _new_sums(self, count: int) -> int:
        """Sums to which POST number `issued + 1` adds."""
        address = self._memory.store("bias_gradient", self._memory.codes((count,), 24))
        self._sums.append(Sums(address, count, self._issued[Unit.POST] + 1))
        return address

    def _loss(self) -> None:
        machine, classes = self._machine, self._random.randint(1, 6)
        bits = self._random.choice((8, 16))
        codes = self._memory.codes((classes, machine.lanes), bits).astype("<i2" if bits > 8 else np.int8)
        fields = {
            "logits": self._memory.store("logits", codes),
            "logit_bits": bits,
            "labels": self._memory.store("labels", self._memory.integers(0, classes - 1, (machine.lanes,), "<u2")),
            "target": self._new_map("error", classes, (1, 1), 8),
            "with_bias": self._number(2),
            "element": self._elements("random", classes),
            "classes": classes,
            "param": self._param(),
            "images": self._random.randint(1, machine.lanes),
            "random_batch": self._random.randint(machine.lanes, 4 * machine.lanes),
            "random_image": self._number(3) * machine.lanes,
            "statistics": self._number(REGISTERS),
        }
        if fields["with_bias"]:
            fields["bias_gradient"] = self._new_sums(classes)
        self._emit("LOSS", self._params, **fields)

    # WG and updates

    def _weight_tile(self, tile: Tile) -> None:
        """Gradients of the tile's kernels over one or two sets of images, then their update."""
        half = self._number(2)
        base = half * self._machine.half_gradient_words
        chunks, compute = self._chunks(tile), 0
        for part in range(self._random.randint(1, 2)):
            lane_half = self._number(2)
            lane_base = lane_half * self._machine.half_lane_words
            self._load_error(tile, lane_base, self._halves[lane_half])
            source = self._map("input", tile.inputs, tile.held_size)
            for number, chunk in enumerate(chunks):
                first = part == 0 and number == 0
                fields = {"clear": int(first), "number_on": int(number > 0), "gradient_base": base, "lane_base": lane_base}
                compute = self._compute(tile, chunk, source, self._gradients[half] if first else Waits(), **fields)
            self._halves[lane_half] = Waits(compute=compute)
        self._gradients[half] = Waits(update=self._update_kernels(tile, chunks, base, Waits(compute=compute)))

    def _load_error(self, tile: Tile, lane_base: int, free: Waits) -> None:
        error = self._map("error", tile.total, tile.computed_size)
        pixels = error.rows * error.columns
        self._emit(
            "LOAD_ERROR",
            free.join(Waits(post=error.post)),
            source=error.address,
            channels=tile.channels,
            total_channels=tile.total,
            channel_words=pixels,
            row_words=error.columns,
            channel_split=int(tile.channel_split),
            lane_base=lane_base,
            slot_words=tile.slot,
            **rectangle_fields("out", tile.computed),
        )

    def _update_kernels(self, tile: Tile, chunks: list[Chunk], base: int, waits: Waits) -> int:
        """UPDATEs of all queues' kernels, as many in every group; the number of the last."""
        pes = self._machine.pes_per_group if tile.channel_split else 1
        number = 0
        for pe in range(pes):
            for group in range(self._machine.groups):
                kernels = sum(len(chunk.kernels[group * pes + pe]) for chunk in chunks)
                fields = self._parameter_fields(kernels, tile.taps, wide=False)
                number = self._emit(
                    "UPDATE",
                    waits.join(self._params),
                    group=group,
                    pe=pe if tile.channel_split else ALL_PES,
                    gradient_base=base,
                    operand=self._memory.allocate("new_operand", kernels * tile.taps),
                    operands=1,
                    **fields,
                )
        return number

    def _update_biases(self, sums: Sums) -> None:
        """Each group takes its share; the last ones may have none."""
        groups = self._machine.groups
        share = -(-sums.channels // groups)
        for group in range(groups):
            first = min(group * share, sums.channels)
            count = min(share, sums.channels - first)
            self._emit(
                "UPDATE",
                self._params.join(Waits(post=sums.post)),
                group=group,
                pe=ALL_PES,
                from_memory=1,
                gradient_source=sums.address + 4 * first,
                **self._parameter_fields(count, 1, wide=True),
            )

    def _parameter_fields(self, kernels: int, taps: int, *, wide: bool) -> dict[str, int]:
        """Stored values and momenta of `kernels` times `taps` parameters, in 4 bytes each if `wide`."""
        param = self._param()
        entry, count = self._entries[param], kernels * taps
        stored, momentum = (4 if wide else -(-entry[name] // 8) for name in ("stored_bits", "momentum_bits"))
        codes = [self._memory.codes((count,), entry[name]) for name in ("stored_bits", "momentum_bits")]
        return {
            "count": count,
            "taps": taps,
            "stored": self._memory.store("stored", narrow(codes[0], stored)),
            "momentum": self._memory.store("momentum", narrow(codes[1], momentum)),
            "element": self._elements("element", kernels),
            "stored_bytes": stored,
            "momentum_bytes": momentum,
            "param": param,
            "statistics": self._number(REGISTERS),
        }


def _entry_bytes(values: dict[str, int]) -> bytes:
    entry = bytearray(STEP_ENTRY_BYTES)
    for item in STEP_PARAMETERS:
        entry[item.offset : item.offset + item.bytes] = values[item.name].to_bytes(item.bytes, "little", signed=item.signed)
    return bytes(entry)
