"""The POST unit against the functional simulator: memory and range registers, byte for byte, whatever the memory does."""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fixgrad.gateware.axi.burst import FAULT
from fixgrad.gateware.simulation import DramTiming, Hostility
from fixgrad.machine import Machine
from fixgrad.machine.encoding import Instruction
from fixgrad.machine.generate_tiles import FF, NG, Tile, random_tile, rectangle_fields
from fixgrad.machine.instructions import STEP_ENTRY_BYTES, STEP_PARAMETERS
from fixgrad.machine.presets import FORMAL, TINY
from fixgrad.simulate.functional.loss import loss
from fixgrad.simulate.functional.post import post, store_statistics

SLOW = DramTiming(30, 12, 9000, 5)
LIMIT = 200_000
ENTRIES = 8
#: Two post-processors of two groups, two channels; ports narrower than a word of all lanes.
PAIR = TINY.with_changes(name="pair", groups=4, post_processors=2, pes_per_group=4).with_changes(
    memory=TINY.memory.__class__("ddr4_2400", channels=2, interleave=256, port_bytes=8, bytes_total=64 << 20)
)
NARROW = TINY.with_changes(name="narrow", lanes=16).with_changes(
    memory=TINY.memory.__class__("ddr4_2400", channels=1, interleave=4096, port_bytes=8, bytes_total=64 << 20)
)
MACHINES = {machine.name: machine for machine in (TINY, FORMAL, PAIR, NARROW)}


class Memory:
    """Places in memory, one after the other."""

    def __init__(self, image: NDArray[np.uint8], random: Random) -> None:
        self.image, self.random, self.free = image, random, 64

    def allocate(self, size: int, align: int = 64) -> int:
        address = -(-self.free // align) * align + self.random.randrange(2) * align
        self.free = address + size
        assert self.free <= len(self.image), "the test's memory is full"
        return address

    def store(self, values: NDArray[Any], align: int = 64) -> int:
        data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        address = self.allocate(len(data), align)
        self.image[address : address + len(data)] = data
        return address


def an_entry(random: Random) -> bytes:
    """An entry of the step table with values that the unit's instructions use."""
    values = {
        "shift": random.choice((0, 3, 8, 8, 12, 31)),
        "bias_shift": random.choice((0, 2, 5, -3, 31, -31)),
        "stochastic": random.randint(0, 1),
        "frac": random.randint(-2, 12),
        "key_low": random.getrandbits(32),
        "key_high": random.getrandbits(32),
    }
    data = bytearray(STEP_ENTRY_BYTES)
    for parameter in STEP_PARAMETERS:
        value = values.get(parameter.name, 0)
        data[parameter.offset : parameter.offset + parameter.bytes] = value.to_bytes(
            parameter.bytes, "little", signed=parameter.signed
        )
    return bytes(data)


class Jobs:
    """Random instructions with what they need in memory."""

    def __init__(self, machine: Machine, image: NDArray[np.uint8], seed: int) -> None:
        self.machine, self.random, self.rng = machine, Random(seed), np.random.default_rng(seed)
        self.memory = Memory(image, self.random)

    def integers(self, low: int, high: int, shape: Any, dtype: Any) -> NDArray[Any]:
        return self.rng.integers(low, high, shape, dtype=np.int64).astype(dtype)

    def post(self, mode: int, **fixed: int) -> Instruction:
        tile = random_tile(self.machine, self.random, mode)
        fields = {
            "mode": mode,
            "lane_base": self.random.randrange(2) * self.machine.half_lane_words,
            "lane_slot_words": tile.slot,
            "channels": tile.channels,
            "total_channels": tile.total,
            "channel_split": int(tile.channel_split),
            "pool_rows": tile.pool[0],
            "pool_columns": tile.pool[1],
            "param": self.random.randrange(ENTRIES),
            "statistics": self.random.randrange(4),
            "images": self.random.randint(1, self.machine.lanes),
            "with_bias": self.random.randint(0, 1),
            **rectangle_fields("out", tile.computed),
        }
        fields |= (self._forward if mode == FF else self._backward)(tile, fields["with_bias"])
        return Instruction("POST", **{**fields, **fixed})

    def _forward(self, tile: Tile, with_bias: int) -> dict[str, int]:
        random, lanes = self.random, self.machine.lanes
        rows, columns = tile.computed_size[0] // tile.pool[0], tile.computed_size[1] // tile.pool[1]
        row_words = columns + random.randrange(2)
        channel_words = rows * row_words + random.randrange(3)
        size = tile.total * channel_words * lanes
        fields = {
            "target": self.memory.allocate(2 * size),
            "channel_words": channel_words,
            "row_words": row_words,
            "out_bits": random.choice((8, 8, 4, 16)),
            "rectify": random.randrange(3),
            "with_argmax": random.randrange(2),
            "argmax": self.memory.allocate(size),
        }
        if with_bias:
            fields["bias"] = self.memory.store(self.integers(-1 << 20, 1 << 20, tile.total, "<i4"), 4)
        return fields

    def _backward(self, tile: Tile, with_bias: int) -> dict[str, int]:
        random, lanes = self.random, self.machine.lanes
        (rows, columns), pool = tile.computed_size, tile.pool
        row_words, map_row_words = columns * pool[1] + random.randrange(2), columns + random.randrange(2)
        channel_words, map_channel_words = rows * pool[0] * row_words, rows * map_row_words + random.randrange(2)
        map_shape = (tile.total * map_channel_words, lanes)
        fields = {
            "target": self.memory.allocate(tile.total * channel_words * lanes),
            "channel_words": channel_words,
            "row_words": row_words,
            "out_bits": 8,
            "mask_channel_words": map_channel_words,
            "mask_row_words": map_row_words,
            "rectify": random.randrange(2),
            "mask": self.memory.store(self.integers(-128, 128, map_shape, np.int8)),
            "argmax": self.memory.store(self.integers(0, pool[0] * pool[1], map_shape, np.uint8)),
            "element": self.memory.store(self.integers(0, 1 << 32, tile.total, "<u4"), 4),
            "random_row": columns + random.randrange(3),
            "random_batch": random.randrange(1, 1 << 10),
            "random_image": random.randrange(1 << 8),
        }
        if with_bias:
            fields["bias_gradient"] = self.memory.store(self._sums(tile.total), 4)
        return fields

    def _sums(self, count: int) -> NDArray[Any]:
        """Sums of errors, some of them close to where they wrap."""
        sums = self.integers(-1 << 20, 1 << 20, count, np.int64)
        close = self.rng.random(count) < 0.05
        return np.where(close, (1 << 31) - 1, sums).astype("<i4")

    def loss(self) -> Instruction:
        random, lanes, classes = self.random, self.machine.lanes, self.random.choice((1, 3, 40))
        bits = random.choice((8, 16))
        with_bias = random.randint(0, 1)
        logits = self.integers(-127, 128, (classes, lanes), "<i2" if bits > 8 else np.int8)
        return Instruction(
            "LOSS",
            logits=self.memory.store(logits),
            logit_bits=bits,
            labels=self.memory.store(self.integers(0, classes, lanes, "<u2")),
            target=self.memory.allocate(classes * lanes),
            with_bias=with_bias,
            bias_gradient=self.memory.store(self._sums(classes), 4) if with_bias else 0,
            element=self.memory.store(self.integers(0, 1 << 32, classes, "<u4"), 4),
            classes=classes,
            param=random.randrange(ENTRIES),
            images=random.randint(0, lanes),
            random_batch=lanes,
            random_image=random.randrange(1 << 8),
            statistics=random.randrange(4),
        )

    def statistics(self) -> Instruction:
        count = self.random.choice((1, 5, 5, 256))
        return Instruction("STATISTICS", target=self.memory.allocate(16 * count), count=count)

    def some(self, count: int) -> list[Instruction]:
        """Instructions of all kinds; POSTs of one mode often follow one another."""
        found: list[Instruction] = []
        while len(found) < count:
            kind = self.random.choice(("FF", "FF", "NG", "NG", "LOSS", "STATISTICS"))
            times = self.random.randint(1, 5)
            if kind in ("FF", "NG"):
                found += [self.post(FF if kind == "FF" else NG) for _ in range(times)]
            else:
                found.append(self.loss() if kind == "LOSS" else self.statistics())
        return [*found, self.statistics()]


def prepared(ends: Any, seed: int) -> Jobs:
    """Lanes and step table of random values on a bench; some accumulators so large that a bias makes them wrap."""
    machine, rng, random = ends.machine, np.random.default_rng(seed), Random(seed)
    shape = ends.oracle.lanes.shape
    lanes = rng.integers(-1 << 14, 1 << 14, shape)
    lanes = np.where(rng.random(shape) < 0.01, rng.integers((1 << 31) - 9, 1 << 31, shape), lanes)
    entries = np.frombuffer(b"".join(an_entry(random) for _ in range(ENTRIES)), np.uint8).reshape(ENTRIES, -1)
    ends.load(lanes.astype(np.int32), entries)
    return Jobs(machine, ends.bench.memory, seed)


def execute(ends: Any, instructions: list[Instruction]) -> None:
    """What the definition makes of them."""
    for instruction in instructions:
        ends.oracle.undrained[:] = True
        {"POST": post, "LOSS": loss, "STATISTICS": store_statistics}[instruction.name](ends.oracle, instruction)


def check(ends: Any, instructions: list[Instruction]) -> None:
    ends.share_memory()
    before = ends.bench.memory.copy()
    execute(ends, instructions)
    ends.give(*instructions)
    assert ends.dones.wait(len(instructions), LIMIT), f"{ends.dones.count} of {len(instructions)} completed"
    ends.bench.check()
    different = np.flatnonzero(ends.bench.memory != ends.oracle.image)
    assert not len(different), (hex(different[0]), len(different), int((before != ends.oracle.image).sum()))
    ends.bench.step(50)
    assert ends.bench.get("quiet") == 1
    assert ends.bench.is_quiet
    assert ends.dones.count == len(instructions)
    assert ends.faults.count == 0
    ends.bench.close()


SLOW_TO_BUILD = ("formal", "pair", "narrow")
NAMES = ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TO_BUILD)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_random_instructions(post_bench: Callable[..., Any], name: str, seed: int) -> None:
    hostility = Hostility(seed, 200, 9, True) if seed else Hostility()
    ends = post_bench(MACHINES[name], SLOW if seed == 1 else DramTiming(), hostility)
    check(ends, prepared(ends, seed).some(30))


def steady(jobs: Jobs, mode: int, **fixed: int) -> Instruction:
    """A POST of 2 x 2 pixels a PE and as many channels as fit: its words follow one another in memory."""
    machine = jobs.machine
    channels = machine.half_lane_words // 4
    boxes = {1: ((0, 2, 0, 2),), 2: ((0, 2, 0, 2), (0, 2, 2, 4)), 4: ((0, 2, 0, 2), (0, 2, 2, 4), (2, 4, 0, 2), (2, 4, 2, 4))}
    rectangles = boxes[machine.pes_per_group]
    rows, columns = max(box[1] for box in rectangles), max(box[3] for box in rectangles)
    total = channels * machine.groups
    words = total * rows * columns
    fields = {
        "mode": mode,
        "lane_slot_words": 4,
        "channels": channels,
        "total_channels": total,
        "with_bias": 1,
        "pool_rows": 1,
        "pool_columns": 1,
        "channel_words": rows * columns,
        "row_words": columns,
        "mask_channel_words": rows * columns,
        "mask_row_words": columns,
        "out_bits": 8,
        "rectify": 1,
        "images": machine.lanes,
        "random_row": columns,
        "random_batch": machine.lanes,
        "target": jobs.memory.allocate(4 * words * machine.lanes, 4096),
        "mask": jobs.memory.allocate(words * machine.lanes, 4096),
        "argmax": jobs.memory.allocate(words * machine.lanes, 4096),
        "bias": jobs.memory.allocate(4 * total),
        "element": jobs.memory.allocate(4 * total),
        "bias_gradient": jobs.memory.allocate(4 * total),
    }
    for pe, box in enumerate(rectangles):
        fields |= {f"out{pe}_{side}": value for side, value in zip(("top", "bottom", "left", "right"), box, strict=True)}
    return Instruction("POST", **{**fields, **fixed})


@pytest.mark.parametrize(
    ("name", "mode", "changes", "words_a_cycle"),
    [
        ("tiny", FF, {}, 1.0),
        pytest.param("pair", FF, {}, 2.0, marks=pytest.mark.slow),
        ("tiny", NG, {}, 1.0),
        ("tiny", FF, {"out_bits": 16}, 0.5),
        ("tiny", FF, {"pool_rows": 2, "pool_columns": 2, "with_argmax": 1}, 1.0),
        ("tiny", NG, {"pool_rows": 2, "pool_columns": 2, "row_words": 8, "channel_words": 32}, 0.25),
    ],
)
def test_the_rate(post_bench: Callable[..., Any], name: str, mode: int, changes: dict[str, int], words_a_cycle: float) -> None:
    """Words of accumulators a cycle, over channels and from one POST to the next, on a memory with its latencies."""
    ends = post_bench(MACHINES[name], DramTiming(read_latency=30, write_latency=20))
    machine, times = MACHINES[name], 4
    jobs = prepared(ends, 1)
    instructions = [steady(jobs, mode, **changes) for _ in range(times)]
    words = machine.half_lane_words // 4 * machine.groups * 4 * machine.pes_per_group
    start = ends.bench.cycle
    ends.give(*instructions)
    assert ends.dones.wait(times, LIMIT)
    ends.bench.check()
    cycles = ends.dones.pop()[1].astype(int)
    assert ends.bench.get("drains") == words * times
    between = int(cycles[-1] - cycles[0]) / (times - 1)
    ideal = words / words_a_cycle
    assert ideal <= between <= 1.03 * ideal + 45
    assert cycles[0] - start <= 1.03 * ideal + 250


OUTSIDE, READ, WRITE = 0, 1, 2


@pytest.mark.parametrize(
    ("field", "mode", "kind", "address"),
    [
        ("target", FF, OUTSIDE, 1 << 30),
        ("bias", FF, OUTSIDE, 1 << 30),
        ("mask", NG, OUTSIDE, 1 << 30),
        ("bias_gradient", NG, OUTSIDE, 1 << 30),
        ("target", FF, OUTSIDE, 4097),
        ("target", FF, WRITE, None),
        ("mask", NG, READ, None),
        ("element", NG, READ, None),
    ],
)
def test_a_failing_access_is_reported_with_its_instruction(
    post_bench: Callable[..., Any], field: str, mode: int, kind: int, address: int | None
) -> None:
    """Of two POSTs the second one fails; nothing is written where it may not be."""
    ends = post_bench(TINY, SLOW)
    jobs = prepared(ends, 3)
    ends.oracle.params[:, 2] = 1
    ends.load(ends.oracle.lanes.copy(), ends.oracle.params[:ENTRIES].copy())
    good, bad = steady(jobs, mode), steady(jobs, mode)
    if address is not None:
        bad = bad.replace(**{field: address})
    else:
        at = getattr(bad, field)
        ends.bench.fault(at, at + 1, 2)
    ends.give(good, bad)
    assert ends.faults.wait(1, LIMIT)
    record = ends.faults.pop()[0][0]
    address_place = FAULT["address"].offset
    assert int(record["fault"]) & ((1 << address_place) - 1) == kind
    assert int(record["fault"]) >> address_place == getattr(bad, field)
    assert int(record["index"]) == 1
    ends.bench.set("stop", 1)
    assert ends.bench.run_until("quiet", 1, LIMIT)
    ends.bench.step(200)
    assert ends.bench.is_quiet
    ends.bench.close()
