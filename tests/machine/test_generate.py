"""Random programs fit their machine, and no overlap that their waits allow changes what they do."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest

from fixgrad.machine import Instruction, Machine, decode, decode_program, preset
from fixgrad.machine.elementwise_instructions import ERRORS_OF_MAXIMA, MAXIMUM, NORMALISE_NG, RECORD_BYTES
from fixgrad.machine.generate import RandomProgram, random_instruction, random_program
from fixgrad.machine.instructions import ALL_KINDS, INSTRUCTION_BYTES, KINDS, STEP_ENTRY_BYTES, Unit, kinds_of
from fixgrad.machine.parameters import TAPS_PER_WORD

MACHINES = ["tiny", "formal", "ecp5-85f", "kcu1500", "tiny-graph"]
UNITS = (Unit.LOAD, Unit.COMPUTE, Unit.POST, Unit.UPDATE)
SIDES = ("top", "bottom", "left", "right")
ALL_PES = 7


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.name)
def test_random_instructions_survive_their_encoding(kind: object) -> None:
    random = Random(3)
    made = {random_instruction(random, kind.name) for _ in range(50)}  # type: ignore[attr-defined]
    assert len(made) == 50
    assert all(decode(instruction.encode()) == instruction for instruction in made)


def test_any_kind_is_drawn() -> None:
    random = Random(0)
    assert {random_instruction(random).name for _ in range(200)} == {kind.name for kind in KINDS}


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    first, again, other = (random_program(preset("tiny"), seed) for seed in (5, 5, 6))
    assert first.instructions == again.instructions
    assert np.array_equal(first.image, again.image)
    assert first.instructions != other.instructions


@pytest.mark.parametrize("name", MACHINES)
def test_programs_are_sound(name: str) -> None:
    machine = preset(name)
    seen: Counter[str] = Counter()
    for seed in range(20 if name != "kcu1500" else 6):
        program = random_program(machine, seed)
        Checker(program).check()
        seen.update(instruction.name for instruction in program.instructions)
    assert set(seen) == {kind.name for kind in kinds_of(machine)}


def test_programs_overlap() -> None:
    """COMPUTE of a tile need not wait for POST of the one before."""
    program = random_program(preset("tiny"), 11, tiles=30)
    posts, lag = 0, []
    for instruction in program.instructions:
        posts += instruction.unit is Unit.POST
        if instruction.unit is Unit.COMPUTE:
            lag.append(posts - instruction.wait_post)
    assert max(lag) > 3


def test_the_checker_finds_a_missing_wait() -> None:
    """The oracle itself: taking away any wait that is needed is noticed for most instructions that have one."""
    program = random_program(preset("tiny"), 2, tiles=10)
    found = 0
    for index, instruction in enumerate(program.instructions):
        waits = {f"wait_{unit}": 0 for unit in UNITS}
        if instruction.unit is Unit.COMPUTE:
            broken = [*program.instructions]
            broken[index] = instruction.replace(**waits)
            with pytest.raises(AssertionError):
                Checker(program, broken).check()
            found += 1
    assert found > 5


@dataclass(frozen=True)
class Access:
    """A range that an instruction (number `count` of `unit`) reads or writes."""

    space: object
    first: int
    last: int
    writes: bool
    unit: Unit
    count: int


@dataclass
class Checker:
    """Walks a program as the definition of the instruction set reads: sizes, addresses, queues, and races."""

    program: RandomProgram
    instructions: list[Instruction] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.instructions = self.instructions or list(self.program.instructions)
        self.machine: Machine = self.program.machine
        self.queues: dict[tuple[int, int], list[list[tuple[int, int]]]] = {}
        self.accesses: list[Access] = []
        self.known: dict[tuple[Unit, int], tuple[int, ...]] = {}
        self.words: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self.computes = 0

    def check(self) -> None:
        program, machine = self.program, self.machine
        data = program.image[program.program_address :][: len(program.instructions) * INSTRUCTION_BYTES].tobytes()
        assert decode_program(data) == list(program.instructions)
        assert self.instructions[-1].name == "HALT"
        issued = dict.fromkeys(UNITS, 0)
        for item in self.instructions:
            limits = [issued[unit] // (machine.groups if unit is Unit.UPDATE else 1) for unit in UNITS]
            waits = [getattr(item, f"wait_{unit}") for unit in UNITS]
            assert all(wait <= limit for wait, limit in zip(waits, limits, strict=True)), item
            if item.unit is Unit.CONTROL:
                assert waits == limits
                continue
            issued[item.unit] += 1
            count = issued[item.unit]
            if item.unit is Unit.UPDATE:
                count = -(-count // machine.groups)
            self._learn(item.unit, count, waits)
            for space, first, last, writes in self._touches(item, count):
                self._race_free(Access(space, first, last, writes, item.unit, count), item)
        assert all(not queue for queue in self.queues.values()), "kernels that no COMPUTE takes"

    def _learn(self, unit: Unit, count: int, waits: list[int]) -> None:
        """What is known to have completed when instruction `count` of `unit` begins, also through others."""
        known = list(waits)
        for other, number in [*zip(UNITS, waits, strict=True), (unit, count - 1), (unit, count)]:
            for position, value in enumerate(self.known.get((other, number), ())):
                known[position] = max(known[position], value)
        own = UNITS.index(unit)
        known[own] = max(known[own], count - 1)
        self.known[unit, count] = tuple(known)

    def _race_free(self, access: Access, item: Instruction) -> None:
        known = self.known[access.unit, access.count]
        for old in self.accesses:
            if old.space != access.space or not (old.writes or access.writes):
                continue
            if old.first < access.last and access.first < old.last and old.unit is not access.unit:
                assert known[UNITS.index(old.unit)] >= old.count, f"{item} races with {old}"
        self.accesses.append(access)

    def _touches(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        """(space, first, last, writes) of everything that the instruction reads or writes."""
        for space, first, size, writes in getattr(self, f"_{item.name.lower()}")(item, count):
            if size <= 0:
                continue
            if space == "dram":
                region = [r for r in self.program.regions if r.address <= first < r.address + r.bytes]
                assert region, f"{item}: {first:#x} is in no region"
                assert first + size <= region[0].address + region[0].bytes, f"{item}: past the end of {region[0].name}"
            yield space, first, first + size, writes

    def _rectangles(self, item: Instruction, prefix: str) -> list[tuple[int, int, int, int]]:
        edges = [tuple(getattr(item, f"{prefix}{pe}_{side}") for side in SIDES) for pe in range(4)]
        assert all(edge == (0, 0, 0, 0) for edge in edges[self.machine.pes_per_group :])
        return edges[: self.machine.pes_per_group]

    def _pixels(self, item: Instruction, prefix: str) -> int:
        return max((b - t) * (r - left) for t, b, left, r in self._rectangles(item, prefix))

    def _map_bytes(self, item: Instruction, prefix: str, channels: int, row: int, scale: tuple[int, int] = (1, 1)) -> int:
        """Bytes from the first one of a map to the last one that the rectangles reach."""
        bottoms, rights = (max(edge[side] for edge in self._rectangles(item, prefix)) for side in (1, 3))
        if not bottoms or not rights:
            return 0
        words = (channels - 1) * item.channel_words + (bottoms * scale[0] - 1) * row + rights * scale[1]
        return words * self.machine.lanes

    def _load_params(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        assert item.first + item.count <= self.machine.param_words
        yield "dram", item.source, item.count * STEP_ENTRY_BYTES, False
        yield "params", 0, self.machine.param_words, True

    def _load_input(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        assert self._pixels(item, "in") <= item.slot_words
        assert item.buffer + item.channels * item.slot_words <= self.machine.input_words
        yield "dram", item.source, self._map_bytes(item, "in", item.channels, item.row_words), False
        yield "input", item.buffer, item.channels * item.slot_words, True

    def _load_error(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        queues = self.machine.groups * (self.machine.pes_per_group if item.channel_split else 1)
        assert item.total_channels <= queues * item.channels
        yield "dram", item.source, self._map_bytes(item, "out", item.total_channels, item.row_words), False
        yield self._lanes(item.lane_base, item.channels * item.slot_words, True)

    def _lanes(self, base: int, size: int, writes: bool) -> tuple[object, int, int, bool]:
        half = self.machine.half_lane_words
        assert base % half + size <= half
        return "lanes", base, size, writes

    def _load_kernels(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        assert item.group < self.machine.groups
        places = self.program.image[item.index : item.index + 2 * item.count].reshape(-1, 2).astype(int)
        if item.transposed:
            places = places[:, ::-1]
        kernels = [(item.out_base + out, item.in_base + channel) for out, channel in places]
        weights = self.program.image[item.data : item.data + item.count * item.taps].view(np.int8)
        assert not item.with_data or weights.min(initial=0) >= -127
        pes = range(self.machine.pes_per_group) if item.pe == ALL_PES else [item.pe]
        words = item.count * (-(-item.taps // TAPS_PER_WORD) if item.with_data else 1) + item.last
        for pe in pes:
            queue = self.queues.setdefault((item.group, pe), [[]])
            if not queue:
                queue.append([])
            queue[-1] += kernels
            if item.last:
                queue.append([])
            self._queue_fits((item.group, pe), words, self.known[Unit.LOAD, count][1])
        yield "dram", item.index, 2 * item.count, False
        if item.with_data:
            yield "dram", item.data, item.count * item.taps, False

    def _queue_fits(self, queue: tuple[int, int], words: int, completed: int) -> None:
        """Everything that COMPUTEs not known to have completed may have left in the queue fits it together."""
        kept = [use for use in self.words.get(queue, []) if use[0] > completed]
        self.words[queue] = [*kept, (self.computes + 1, words)]
        assert sum(use[1] for use in self.words[queue]) <= self.machine.kernel_words

    def _compute(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        self.computes = count
        assert item.statistics < 256
        assert self._pixels(item, "out") <= item.lane_slot_words
        assert self._pixels(item, "in") <= item.slot_words
        most, channels = 0, 0
        for group in range(self.machine.groups):
            for pe in range(self.machine.pes_per_group):
                kernels = self.queues[group, pe].pop(0)
                if self.queues[group, pe] == [[]]:
                    self.queues[group, pe] = []
                most = max(most, len(kernels))
                assert len(set(kernels)) == len(kernels)
                for out, channel in kernels:
                    channels = max(channels, channel + 1)
                    last = item.lane_base % self.machine.half_lane_words + (out + 1) * item.lane_slot_words
                    assert out >= 0
                    assert channel >= 0
                    assert last <= self.machine.half_lane_words
                    assert item.buffer + (channel + 1) * item.slot_words <= self.machine.input_words
        taps = item.kernel_rows * item.kernel_columns
        words = 1 if item.mode == 2 else -(-taps // TAPS_PER_WORD)
        assert most * words + 1 <= self.machine.kernel_words
        yield "input", item.buffer, channels * item.slot_words, False
        half = self.machine.half_lane_words
        yield self._lanes(item.lane_base // half * half, half, item.mode != 2)
        if item.mode == 2:
            assert most * taps <= self.machine.half_gradient_words
            yield "gradients", item.gradient_base, self.machine.half_gradient_words, True

    def _post(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        lanes, total = self.machine.lanes, item.total_channels
        assert 1 <= item.images <= lanes
        yield "params", item.param, 1, False
        yield self._lanes(item.lane_base, item.channels * item.lane_slot_words, False)
        if item.mode == 0:
            bottoms, rights = (max(edge[side] for edge in self._rectangles(item, "out")) for side in (1, 3))
            rows, columns = bottoms // item.pool_rows, rights // item.pool_columns
            words = (total - 1) * item.channel_words + (rows - 1) * item.row_words + columns if rows and columns else 0
            yield "dram", item.target, words * lanes * (2 if item.out_bits > 8 else 1), True
            if item.with_argmax:
                yield "dram", item.argmax, words * lanes, True
            if item.with_bias:
                yield "dram", item.bias, 4 * total, False
            return
        window = (item.pool_rows, item.pool_columns)
        yield "dram", item.target, self._map_bytes(item, "out", total, item.row_words, window), True
        bottoms, rights = (max(edge[side] for edge in self._rectangles(item, "out")) for side in (1, 3))
        small = ((total - 1) * item.mask_channel_words + (bottoms - 1) * item.mask_row_words + rights) * lanes
        if item.rectify:
            yield "dram", item.mask, small, False
        if item.pool_rows * item.pool_columns > 1:
            assert self.program.image[item.argmax : item.argmax + small].max() < item.pool_rows * item.pool_columns
            yield "dram", item.argmax, small, False
        if item.with_bias:
            yield "dram", item.bias_gradient, 4 * total, True
        yield "dram", item.element, 4 * total, False

    def _loss(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        lanes = self.machine.lanes
        labels = self.program.image[item.labels : item.labels + 2 * lanes].view("<u2")
        assert labels.max() < item.classes
        assert 1 <= item.images <= lanes
        yield "params", item.param, 1, False
        yield "dram", item.logits, item.classes * lanes * (2 if item.logit_bits > 8 else 1), False
        yield "dram", item.labels, 2 * lanes, False
        yield "dram", item.target, item.classes * lanes, True
        yield "dram", item.element, 4 * item.classes, False
        if item.with_bias:
            yield "dram", item.bias_gradient, 4 * item.classes, True

    def _update(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        assert item.group < self.machine.groups
        yield "params", item.param, 1, False
        if item.from_memory:
            yield "dram", item.gradient_source, 4 * item.count, True
        else:
            assert item.count <= self.machine.half_gradient_words
            yield "gradients", item.gradient_base, self.machine.half_gradient_words, True
            yield "dram", item.operand, item.count, True
        yield "dram", item.stored, item.count * item.stored_bytes, True
        yield "dram", item.momentum, item.count * item.momentum_bytes, True
        yield "dram", item.element, 4 * -(-item.count // item.taps), False

    def _statistics(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        assert item.count <= 256
        yield "dram", item.target, 16 * item.count, True

    def _elementwise(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        lanes = self.machine.lanes
        assert 1 <= item.images <= lanes
        yield "params", item.param, 1, False
        result = self._words(item.channels, item.channel_words, item.rows, item.row_words, item.columns)
        if item.operands:
            size = item.first_rows, item.first_row_words, item.first_columns
            words = self._words(item.channels, item.first_channel_words, *size)
            yield "dram", item.first, words * lanes * (1 + item.first_wide), False
            if item.combine == ERRORS_OF_MAXIMA:
                yield "dram", item.argmax, words * lanes, False
        if item.operands == 2:
            words = self._words(item.channels, item.second_channel_words, item.rows, item.second_row_words, item.columns)
            yield "dram", item.second, words * lanes * (1 + item.second_wide), False
        if item.masked:
            words = self._words(item.channels, item.mask_channel_words, item.rows, item.mask_row_words, item.columns)
            yield "dram", item.mask, words * lanes, False
        if item.with_argmax:
            assert item.combine == MAXIMUM
            yield "dram", item.argmax, result * lanes, True
        if item.per_channel:
            yield "dram", item.record, RECORD_BYTES * item.channels, False
        yield "dram", item.element, 4 * item.channels, False
        yield "dram", item.target, result * lanes * (2 if item.out_bits > 8 else 1), True

    @staticmethod
    def _words(channels: int, channel_words: int, rows: int, row_words: int, columns: int) -> int:
        return (channels - 1) * channel_words + (rows - 1) * row_words + columns

    def _channel_sums(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        words = (item.micro_batches - 1) * item.batch_words + (item.channels - 1) * item.channel_words + item.pixels
        yield "dram", item.first, words * self.machine.lanes * (1 + item.first_wide), False
        if item.products:
            yield "dram", item.second, words * self.machine.lanes * (1 + item.second_wide), False
        yield "dram", item.target, (RECORD_BYTES if item.products else 4) * item.channels, True

    def _normalise(self, item: Instruction, count: int) -> Iterator[tuple[object, int, int, bool]]:
        assert 1 <= item.count <= 1 << 24
        yield "params", item.param, 1, False
        yield "dram", item.record, RECORD_BYTES * item.channels, True
        yield "dram", item.gamma, 4 * item.channels, False
        if item.mode == NORMALISE_NG:
            yield "dram", item.gamma_gradient, 4 * item.channels, True
            yield "dram", item.beta_gradient, 4 * item.channels, True
        else:
            yield "dram", item.beta, 4 * item.channels, False
