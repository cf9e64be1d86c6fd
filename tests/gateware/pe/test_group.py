"""A group against the definition of COMPUTE: accumulators, gradients, flags and cycles."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixgrad.gateware.pe.group import GROUP_DRAIN_LATENCY, Group
from fixgrad.gateware.pe.pe import COMPUTE_LATENCY, GRADIENT_LATENCY, START_CYCLES
from fixgrad.gateware.pe.shape import Mode
from fixgrad.machine import Machine
from fixgrad.machine.parameters import TAPS_PER_WORD
from fixgrad.machine.presets import TINY
from fixgrad.numbers import ConvGeometry, conv_forward_reference, conv_input_gradient_reference, conv_weight_gradient_reference

MACHINE = TINY.with_changes(
    groups=1, pes_per_group=2, lanes=3, input_words=64, lane_words=32, kernel_words=16, gradient_words=64
)
PES = range(MACHINE.pes_per_group)
LANES = range(MACHINE.lanes)
Rectangle = tuple[int, int, int, int]
Pair = tuple[int, int]


def wrap(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


@dataclass
class Kernel:
    """An entry of the queue: local output and input channel, weights by tap."""

    out: int
    in_: int
    weights: list[int]


@dataclass
class Compute:
    """A COMPUTE and the kernels that it takes, PE by PE."""

    mode: Mode
    kernel: Pair
    out: list[Rectangle]
    in_: list[Rectangle]
    in_size: Pair
    kernels: list[list[Kernel]]
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    clear: int = 1
    buffer: int = 0
    slot_words: int = 0
    lane_base: int = 0
    lane_slot_words: int = 0
    gradient_base: int = 0
    number_on: int = 0
    count_padding: int = 0

    def positions(self, axis: int, pixel: int, tap: int) -> int | None:
        stride, pad, dilation = self.stride[axis], self.pad[axis], self.dilation[axis]
        if self.mode is Mode.NG:
            position, rest = divmod(pixel + pad - tap * dilation, stride)
            if rest:
                return None
        else:
            position = pixel * stride + tap * dilation - pad
        return position if 0 <= position < self.in_size[axis] else None


@dataclass
class Memories:
    """Everything that COMPUTE reads and writes, PE by PE."""

    machine: Machine = MACHINE
    inputs: list[list[list[int]]] = field(default_factory=list)
    accumulators: list[list[list[int]]] = field(default_factory=list)
    errors: list[list[list[int]]] = field(default_factory=list)
    gradients: list[list[int]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    overflow: bool = False

    def __post_init__(self) -> None:
        pes, lanes = range(self.machine.pes_per_group), self.machine.lanes
        zeros: Callable[[int], list[list[list[int]]]] = lambda words: [[[0] * lanes for _ in range(words)] for _ in pes]  # noqa: E731
        self.inputs, self.accumulators = zeros(self.machine.input_words), zeros(self.machine.lane_words)
        self.errors = zeros(self.machine.lane_words)
        self.gradients = [[0] * self.machine.gradient_words for _ in pes]
        self.numbers = [0 for _ in pes]

    def run(self, compute: Compute) -> list[int]:
        """COMPUTE by definition; returns the steps of each PE."""
        self.overflow = False
        return [self._run_pe(compute, pe, kernels) for pe, kernels in enumerate(compute.kernels)]

    def _run_pe(self, compute: Compute, pe: int, kernels: list[Kernel]) -> int:
        wg = compute.mode is Mode.WG
        memory, base = (self.gradients, compute.gradient_base) if wg else (self.accumulators, compute.lane_base)
        if compute.clear:
            half = len(memory[pe]) // 2
            for address in range(half) if base < half else range(half, 2 * half):
                memory[pe][address] = 0 if wg else [0] * self.machine.lanes  # type: ignore[call-overload]
        if not compute.number_on:
            self.numbers[pe] = 0
        steps = 0
        for kernel in kernels:
            steps += self._run_kernel(compute, pe, kernel)
            self.numbers[pe] += compute.kernel[0] * compute.kernel[1]
        return steps

    def _run_kernel(self, compute: Compute, pe: int, kernel: Kernel) -> int:
        top, bottom, left, right = compute.out[pe]
        in_top, _, in_left, in_right = compute.in_[pe]
        steps = 0
        sums: dict[int, int] = {}
        for r, q in product(range(top, bottom), range(left, right)):
            word = compute.lane_base + kernel.out * compute.lane_slot_words + (r - top) * (right - left) + q - left
            word %= self.machine.lane_words
            for tap, (u, v) in enumerate(product(range(compute.kernel[0]), range(compute.kernel[1]))):
                row, column = compute.positions(0, r, u), compute.positions(1, q, v)
                if row is None or column is None:
                    steps += compute.count_padding
                    continue
                steps += 1
                source = (row - in_top) * (in_right - in_left) + column - in_left
                codes = self.inputs[pe][(compute.buffer + kernel.in_ * compute.slot_words + source) % self.machine.input_words]
                if compute.mode is Mode.WG:
                    sums[tap] = sums.get(tap, 0) + sum(e * x for e, x in zip(self.errors[pe][word], codes, strict=True))
                else:
                    new = [a + kernel.weights[tap] * x for a, x in zip(self.accumulators[pe][word], codes, strict=True)]
                    self.accumulators[pe][word] = new
            exact = self.accumulators[pe][word]
            self.overflow |= any(wrap(value) != value for value in exact)
            self.accumulators[pe][word] = [wrap(value) for value in exact]
        for tap, value in sums.items():
            address = (compute.gradient_base + self.numbers[pe] + tap) % self.machine.gradient_words
            total = self.gradients[pe][address] + value
            self.overflow |= wrap(total) != total
            self.gradients[pe][address] = wrap(total)
        return steps


def packed(codes: list[int], bits: int = 8) -> int:
    return sum((code & (1 << bits) - 1) << bits * lane for lane, code in enumerate(codes))


def unpacked(word: int, lanes: int) -> list[int]:
    return [wrap(word >> 32 * lane & 0xFFFFFFFF) for lane in range(lanes)]


class Driver:
    """Drives a group's ports."""

    def __init__(self, dut: Group, machine: Machine = MACHINE) -> None:
        self.dut, self.machine = dut, machine
        self.queue: list[tuple[int, Kernel | None, int]] = []

    async def load_inputs(self, ctx: Any, inputs: list[list[list[int]]]) -> None:
        for address in range(self.machine.input_words):
            for pe, port in enumerate(self.dut.input_writes):
                ctx.set(port, {"enable": 1, "address": address, "data": packed(inputs[pe][address])})
            await ctx.tick()
        for port in self.dut.input_writes:
            ctx.set(port.enable, 0)

    async def load_errors(self, ctx: Any, pe: int, address: int, codes: list[int]) -> None:
        port = self.dut.errors[pe]
        ctx.set(port.payload, {"address": address, "data": packed(codes)})
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)

    async def push(self, ctx: Any, compute: Compute) -> None:
        """A COMPUTE's kernels and end marks, PE by PE."""
        port = self.dut.kernels
        ctx.set(port.valid, 1)
        for pe, kernels in enumerate(compute.kernels):
            ctx.set(self.dut.kernel_pes, 1 << pe)
            for kernel in kernels:
                weights = kernel.weights if compute.mode is not Mode.WG else [0]
                words = [weights[first : first + TAPS_PER_WORD] for first in range(0, len(weights), TAPS_PER_WORD)]
                for number, word in enumerate(words):
                    entry = {"out": kernel.out, "in_": kernel.in_, "weights": packed(word), "last": number == len(words) - 1}
                    ctx.set(port.payload, {**entry, "end": 0})
                    await ctx.tick().until(port.ready)
            ctx.set(port.payload, {"out": 0, "in_": 0, "weights": 0, "last": 0, "end": 1})
            await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)

    def show(self, ctx: Any, compute: Compute) -> None:
        """Puts a COMPUTE to the port of instructions."""
        sides = ("top", "bottom", "left", "right")
        nothing = [dict.fromkeys(sides, 0)] * (4 - len(compute.out))
        rectangles = {
            name: [dict(zip(sides, rectangle, strict=True)) for rectangle in getattr(compute, name)] + nothing
            for name in ("out", "in_")
        }
        pairs = {
            name: dict(zip(("rows", "columns"), getattr(compute, name), strict=True))
            for name in ("kernel", "stride", "pad", "dilation", "in_size")
        }
        geometry = {"mode": compute.mode, "count_padding": compute.count_padding, **pairs, **rectangles}
        names = ("clear", "buffer", "slot_words", "lane_base", "lane_slot_words", "gradient_base", "number_on")
        ctx.set(self.dut.computes.payload, {"geometry": geometry, **{name: getattr(compute, name) for name in names}})
        ctx.set(self.dut.computes.valid, 1)

    async def run(self, ctx: Any, compute: Compute) -> "Run":
        """One COMPUTE from its planning to its end."""
        self.show(ctx, compute)
        ctx.set(self.dut.go, 1)
        while not ctx.get(self.dut.computes.ready):
            assert not ctx.get(self.dut.refused)
            await ctx.tick()
        await ctx.tick()
        ctx.set(self.dut.computes.valid, 0)
        run = Run([0] * len(compute.out))
        counters = ("stepping", "held_by_hazard", "held_by_drain", "waiting")
        while not ctx.get(self.dut.done):
            run.cycles += 1
            # As they are at the clock's edge, when everybody has set the inputs of this cycle.
            _, _, stepping, *others = await ctx.tick().sample(*(getattr(self.dut, name) for name in counters))
            run.steps = [count + (stepping >> pe & 1) for pe, count in enumerate(run.steps)]
            for name, bits in zip(counters[1:], others, strict=True):
                setattr(run, name, getattr(run, name) + bits.bit_count())
        run.overflow = bool(ctx.get(self.dut.overflow))
        return run

    async def drain(self, ctx: Any, pe: int, address: int) -> list[int]:
        ctx.set(self.dut.drain, 1 << pe)
        ctx.set(self.dut.drain_address, address)
        await ctx.tick()
        ctx.set(self.dut.drain, 0)
        await ctx.tick().repeat(GROUP_DRAIN_LATENCY - 1)
        return unpacked(ctx.get(self.dut.drained), self.machine.lanes)

    async def gradients(self, ctx: Any, address: int) -> list[int]:
        ctx.set(self.dut.take_gradient, (1 << len(self.dut.gradients)) - 1)
        ctx.set(self.dut.gradient_address, address)
        await ctx.tick()
        ctx.set(self.dut.take_gradient, 0)
        await ctx.tick().repeat(GRADIENT_LATENCY - 1)
        return [wrap(ctx.get(gradient)) for gradient in self.dut.gradients]


@dataclass
class Run:
    """What a COMPUTE took."""

    steps: list[int]
    cycles: int = 0
    held_by_hazard: int = 0
    held_by_drain: int = 0
    waiting: int = 0
    overflow: bool = False


def a_compute(random: Random, mode: Mode, machine: Machine = MACHINE) -> Compute:
    """A random COMPUTE: few pixels, few kernels, any geometry."""
    kernel = (random.randint(1, 4), random.randint(1, 4))
    least = {"stride": 1, "pad": 0, "dilation": 1}
    pairs = {name: (random.randint(low, 3), random.randint(low, 3)) for name, low in least.items()}
    in_size = (random.randint(1, 7), random.randint(1, 7))

    def rectangle(most: int) -> Rectangle:
        top, left = random.randint(0, 4), random.randint(0, 4)
        return top, top + random.randint(0, most), left, left + random.randint(0, most)

    pixels, half = random.choice([1, 2, 3]), machine.half_lane_words
    taps = kernel[0] * kernel[1]
    kernels = [
        [
            Kernel(random.randint(0, 2), random.randint(0, 3), [random.randint(-127, 127) for _ in range(taps)])
            for _ in range(random.randint(0, 5))
        ]
        for _ in range(machine.pes_per_group)
    ]
    return Compute(
        mode,
        kernel,
        [rectangle(pixels) for _ in kernels],
        [rectangle(6) for _ in kernels],
        in_size,
        kernels,
        **pairs,
        buffer=random.randrange(machine.input_words),
        slot_words=random.randint(0, 20),
        lane_base=random.choice([0, half]) + random.randint(0, 3),
        lane_slot_words=random.randint(0, 4),
        gradient_base=random.choice([0, machine.half_gradient_words]),
        clear=random.random() < 0.6,
        number_on=random.random() < 0.3,
        count_padding=random.random() < 0.2,
    )


def random_codes(random: Random, memories: Memories) -> None:
    for pe in PES:
        for address in range(MACHINE.input_words):
            memories.inputs[pe][address] = [random.randint(-127, 127) for _ in LANES]


async def check_memories(ctx: Any, driver: Driver, memories: Memories) -> None:
    for pe, address in product(PES, range(0, MACHINE.lane_words)):
        assert await driver.drain(ctx, pe, address) == memories.accumulators[pe][address], (pe, address)
    for address in range(MACHINE.gradient_words):
        assert await driver.gradients(ctx, address) == [memories.gradients[pe][address] for pe in PES]


async def run_in_turn(ctx: Any, driver: Driver, random: Random, computes: list[Compute]) -> None:
    """Runs them on the same memories as the definition does, and compares everything."""
    memories = Memories()
    random_codes(random, memories)
    await driver.load_inputs(ctx, memories.inputs)
    for compute in computes:
        if compute.mode is Mode.WG:
            await load_random_errors(ctx, driver, random, memories, range(MACHINE.lane_words))
        run = await driver.run(ctx, compute)
        assert run.steps == memories.run(compute)
        assert run.overflow == memories.overflow
    await check_memories(ctx, driver, memories)


async def load_random_errors(ctx: Any, driver: Driver, random: Random, memories: Memories, words: range) -> None:
    for pe, address in product(PES, words):
        codes = [random.randint(-127, 127) for _ in LANES]
        await driver.load_errors(ctx, pe, address, codes)
        memories.errors[pe][address], memories.accumulators[pe][address] = codes, [0] * MACHINE.lanes


def check_random_computes(simulate: Callable[..., None], seed: int, count: int) -> None:
    """Any modes and geometries; the kernels arrive meanwhile."""
    random, dut = Random(seed), Group(MACHINE)
    driver = Driver(dut)
    computes = [a_compute(random, random.choice(list(Mode))) for _ in range(count)]

    async def kernels(ctx: Any) -> None:
        for compute in computes:
            await driver.push(ctx, compute)

    async def bench(ctx: Any) -> None:
        await run_in_turn(ctx, driver, random, computes)

    simulate(dut, bench, kernels, limit=100_000)


def test_random_computes(simulate: Callable[..., None]) -> None:
    check_random_computes(simulate, seed=1, count=24)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_many_random_computes(simulate: Callable[..., None], seed: int) -> None:
    check_random_computes(simulate, seed, count=16)


#: A 3x3 convolution with padding on a map of 4x4 in halves.
CONVOLUTION = Compute(
    Mode.FF,
    kernel=(3, 3),
    out=[(0, 4, 0, 2), (0, 4, 2, 4)],
    in_=[(0, 4, 0, 3), (0, 4, 1, 4)],
    in_size=(4, 4),
    kernels=[[Kernel(out, in_, list(range(-4, 5))) for in_ in range(2) for out in range(2)] for _ in PES],
    pad=(1, 1),
    slot_words=12,
    lane_slot_words=8,
)


def run_one(simulate: Callable[..., None], compute: Compute, *, kernels_first: bool = True) -> Run:
    """One COMPUTE; its kernels are in the queue when it begins, or come afterwards."""
    dut = Group(MACHINE)
    driver, runs = Driver(dut), []

    async def bench(ctx: Any) -> None:
        if kernels_first:
            await driver.push(ctx, compute)
        runs.append(await driver.run(ctx, compute))

    async def late(ctx: Any) -> None:
        if not kernels_first:
            await ctx.tick().repeat(300)
            await driver.push(ctx, compute)

    simulate(dut, bench, late)
    return runs[0]


@pytest.mark.parametrize("mode", Mode)
def test_a_step_a_cycle_and_no_step_in_the_padding(simulate: Callable[..., None], mode: Mode) -> None:
    """4 kernels. Of a half's 8 pixels, 72 taps less 3 rows less a column of 3 and its corners meet the image: 50."""
    run = run_one(simulate, replace(CONVOLUTION, mode=mode))
    assert run.steps == [4 * 50, 4 * 50]
    assert (run.held_by_hazard, run.held_by_drain, run.waiting) == (0, 0, 0)
    # From begin to the last operand read, and from there to the end; `cycles` begins one later and ends one before.
    assert run.cycles == START_CYCLES + (4 * 50 - 1) + COMPUTE_LATENCY - 1


@pytest.mark.parametrize("mode", Mode)
def test_count_padding_takes_a_cycle_for_every_tap(simulate: Callable[..., None], mode: Mode) -> None:
    run = run_one(simulate, replace(CONVOLUTION, mode=mode, count_padding=1))
    assert run.steps == [4 * 72, 4 * 72]
    assert run.cycles == START_CYCLES + (4 * 72 - 1) + COMPUTE_LATENCY - 1


def halves(size: int) -> list[Rectangle]:
    """The left and the right half of a map."""
    return [(0, size, 0, size // 2), (0, size, size // 2, size)]


@pytest.mark.parametrize("mode", Mode)
def test_a_whole_convolution_equals_numbers(simulate: Callable[..., None], mode: Mode) -> None:
    """Stride 2, padding, sparse: 3 output and 2 input channels, lanes as images, pixels shared by the PEs."""
    generator, geometry = np.random.default_rng(8), ConvGeometry(stride=(2, 2), padding=(1, 1))
    x = generator.integers(-127, 128, (MACHINE.lanes, 2, 4, 4))
    w = generator.integers(-127, 128, (3, 2, 3, 3))
    live = np.array([[1, 1], [0, 1], [1, 0]], bool)
    w[~live] = 0
    dy = generator.integers(-127, 128, (MACHINE.lanes, 3, 2, 2))
    source, size = (dy, 4) if mode is Mode.NG else (x, 2)
    places = [(o, i) for o, i in np.argwhere(live).tolist()]
    kernels = [Kernel(i if mode is Mode.NG else o, o if mode is Mode.NG else i, w[o, i].ravel().tolist()) for o, i in places]
    rows = source.shape[2]
    compute = Compute(
        mode,
        (3, 3),
        halves(size),
        [(0, rows, 0, rows)] * 2,
        (rows, rows),
        [kernels] * 2,
        stride=(2, 2),
        pad=(1, 1),
        slot_words=rows * rows,
        lane_slot_words=size * size // 2,
    )
    dut, memories = Group(MACHINE), Memories()
    driver = Driver(dut)
    for pe, (channel, row, column) in product(PES, np.ndindex(source.shape[1:])):
        memories.inputs[pe][(channel * rows + row) * rows + column] = source[:, channel, row, column].tolist()

    async def bench(ctx: Any) -> None:
        await driver.load_inputs(ctx, memories.inputs)
        if mode is Mode.WG:
            for (pe, box), channel in product(enumerate(compute.out), range(3)):
                for number, (r, q) in enumerate(product(range(box[0], box[1]), range(box[2], box[3]))):
                    await driver.load_errors(ctx, pe, channel * 2 + number, dy[:, channel, r, q].tolist())
        await driver.push(ctx, compute)
        await driver.run(ctx, compute)
        if mode is Mode.WG:
            found = [await driver.gradients(ctx, address) for address in range(9 * len(places))]
            gradient = conv_weight_gradient_reference(x, dy, (3, 3), geometry).values
            assert [sum(of_pes) for of_pes in found] == gradient[tuple(np.array(places).T)].ravel().tolist()
            return
        forward = conv_forward_reference(x, w, geometry)
        y = forward if mode is Mode.FF else conv_input_gradient_reference(dy, w, (4, 4), geometry)
        for (pe, box), channel in product(enumerate(compute.out), range(y.values.shape[1])):
            for number, (r, q) in enumerate(product(range(box[0], box[1]), range(box[2], box[3]))):
                word = await driver.drain(ctx, pe, channel * compute.lane_slot_words + number)
                assert word == y.values[:, channel, r, q].tolist()

    simulate(dut, bench)


def test_the_latency_is_that_of_the_timing_model() -> None:
    assert MACHINE.latencies.compute == COMPUTE_LATENCY


def test_a_compute_waits_for_its_kernels(simulate: Callable[..., None]) -> None:
    run = run_one(simulate, CONVOLUTION, kernels_first=False)
    assert run.steps == [200, 200]
    assert run.waiting > 0


def pixel_compute(outs: list[int], taps: int = 1) -> Compute:
    """Kernels of one pixel, as in a linear layer."""
    kernels = [Kernel(out, 0, [1] * taps) for out in outs]
    box = [(0, 1, 0, 1), (0, 0, 0, 0)]
    return Compute(Mode.FF, (1, taps), box, [(0, 1, 0, taps)] * 2, (1, taps), [kernels, []], slot_words=1, lane_slot_words=1)


@pytest.mark.parametrize(
    ("outs", "taps", "held"),
    [
        ([0, 0, 0, 0], 1, 0),  # the accumulator stays in the register
        ([0, 1, 0, 1], 1, 1),  # the step before the last stores what this one reads; a held cycle helps the next one too
        ([0, 1, 0, 1, 0, 1, 0, 1], 1, 3),
        ([0, 1, 2, 0, 1, 2], 1, 0),
        ([0, 0, 1, 0, 0, 1], 1, 1),
        ([0, 1, 0, 1], 2, 0),  # two taps apart
    ],
)
def test_hazards_on_an_accumulator(simulate: Callable[..., None], outs: list[int], taps: int, held: int) -> None:
    run = run_one(simulate, pixel_compute(outs, taps))
    assert run.held_by_hazard == held
    assert run.cycles == START_CYCLES + (len(outs) * taps - 1) + held + COMPUTE_LATENCY - 1


def test_accumulators_are_right_where_hazards_are(simulate: Callable[..., None]) -> None:
    random, dut = Random(5), Group(MACHINE)
    driver = Driver(dut)
    computes = [pixel_compute([random.randrange(3) for _ in range(13)]) for _ in range(4)]

    async def bench(ctx: Any) -> None:
        for compute in computes:
            for kernel in compute.kernels[0]:
                kernel.weights = [random.randint(-127, 127)]
            compute.clear = random.randrange(2)
        await run_in_turn(ctx, driver, random, computes)

    async def kernels(ctx: Any) -> None:
        for compute in computes:
            await driver.push(ctx, compute)

    simulate(dut, bench, kernels)


class Event:
    """Something that is going on or not."""

    going = False

    def __bool__(self) -> bool:
        return self.going


async def read_at_random(
    ctx: Any, busy: Event, latency: int, ask: Callable[[int | None], None], answer: Callable[[int], None]
) -> None:
    """While busy, asks for a word in most cycles, and hands on each answer `latency` cycles later."""
    random = Random(latency)
    while not busy:
        await ctx.tick()
    asked = deque[int | None]([None] * latency)
    while busy:
        asked.append(random.randrange(16) if random.random() < 0.7 else None)
        ask(asked[-1])
        first = asked.popleft()
        if first is not None:
            answer(first)
        await ctx.tick()
    ask(None)


@pytest.mark.parametrize("mode", Mode)
def test_drains_during_a_compute(simulate: Callable[..., None], mode: Mode) -> None:
    """POST and UPDATE read the other half in most cycles: all is right, and the PE makes way."""
    random, dut, memories, busy = Random(6), Group(MACHINE), Memories(), Event()
    driver, half, gradient_half = Driver(dut), MACHINE.half_lane_words, MACHINE.half_gradient_words
    few = replace(CONVOLUTION, kernels=[kernels[:3] for kernels in CONVOLUTION.kernels])
    before = [replace(few, lane_base=half), replace(few, mode=Mode.WG, gradient_base=gradient_half)]
    seen: list[tuple[int, list[int]]] = []
    taken: list[tuple[int, list[int]]] = []
    runs: list[Run] = []

    async def bench(ctx: Any) -> None:
        random_codes(random, memories)
        await driver.load_inputs(ctx, memories.inputs)
        await load_random_errors(ctx, driver, random, memories, range(half))
        for compute in (*before, replace(few, mode=mode)):
            await driver.push(ctx, compute)
            busy.going = compute.lane_base == compute.gradient_base == 0
            runs.append(await driver.run(ctx, compute))
            busy.going = False
            memories.run(compute)
        await ctx.tick().repeat(GRADIENT_LATENCY + 1)  # what the others read last is on its way
        await check_memories(ctx, driver, memories)

    async def post(ctx: Any) -> None:
        def ask(word: int | None) -> None:
            ctx.set(dut.drain, int(word is not None))
            ctx.set(dut.drain_address, half + (word or 0))

        def answer(word: int) -> None:
            seen.append((half + word, unpacked(ctx.get(dut.drained), MACHINE.lanes)))

        await read_at_random(ctx, busy, GROUP_DRAIN_LATENCY, ask, answer)

    async def update(ctx: Any) -> None:
        def ask(word: int | None) -> None:
            ctx.set(dut.take_gradient, 0b11 if word is not None else 0)
            ctx.set(dut.gradient_address, gradient_half + (word or 0))

        def answer(word: int) -> None:
            taken.append((gradient_half + word, [wrap(ctx.get(gradient)) for gradient in dut.gradients]))

        await read_at_random(ctx, busy, GRADIENT_LATENCY, ask, answer)

    simulate(dut, bench, post, update)
    assert len(seen) > 30 < len(taken)
    assert all(word == memories.accumulators[0][address] for address, word in seen)
    assert all(word == [memories.gradients[pe][address] for pe in PES] for address, word in taken)
    assert runs[-1].held_by_drain > 0
    assert runs[-1].steps == [150, 150]


async def take_gradients(ctx: Any, dut: Group, busy: Event, cycles: int, wanted: list[int]) -> None:
    """UPDATE that takes a gradient in every cycle, for so many cycles, but in those in which it is asked to rest."""
    while not busy:
        await ctx.tick()
    for _ in range(cycles):
        wanted.append(ctx.get(dut.gradient_wanted))
        ctx.set(dut.take_gradient, 0 if wanted[-1] else 0b11)
        await ctx.tick()
    ctx.set(dut.take_gradient, 0)


@pytest.mark.parametrize("pixels", [1, 9])
def test_a_pe_asks_update_to_rest_where_not_every_step_reads_a_gradient(simulate: Callable[..., None], pixels: int) -> None:
    random, dut, memories, busy = Random(8), Group(MACHINE), Memories(), Event()
    driver, wanted = Driver(dut), list[int]()
    few = replace(CONVOLUTION, kernels=[kernels[:3] for kernels in CONVOLUTION.kernels])
    compute = replace(few if pixels > 1 else pixel_compute([0] * 8), mode=Mode.WG)
    runs: list[Run] = []

    async def bench(ctx: Any) -> None:
        random_codes(random, memories)
        await driver.load_inputs(ctx, memories.inputs)
        await driver.push(ctx, compute)
        busy.going = True
        runs.append(await driver.run(ctx, compute))
        memories.run(compute)
        await check_memories(ctx, driver, memories)

    async def update(ctx: Any) -> None:
        await take_gradients(ctx, dut, busy, 100 if pixels == 1 else 1000, wanted)

    simulate(dut, bench, update)
    (run,) = runs
    if pixels == 1:  # UPDATE has more parameters than this one steps: it goes first
        assert not any(wanted)
        assert run.held_by_drain > 50
    else:  # held for a cycle, asked for in the next one, and gone
        assert sum(wanted) > 20
        assert run.held_by_drain <= 2 * sum(wanted)
        assert run.cycles <= max(run.steps) + sum(wanted) + 40


def test_errors_arrive_during_a_compute(simulate: Callable[..., None]) -> None:
    """LOAD_ERROR fills the other half while FF stores in every cycle; nothing is lost on either side."""
    random, dut, memories = Random(7), Group(MACHINE), Memories()
    driver = Driver(dut)
    compute = pixel_compute([out % 4 for out in range(14)])
    words = range(MACHINE.half_lane_words, MACHINE.half_lane_words + 8)
    wg = replace(CONVOLUTION, mode=Mode.WG, lane_base=words[0], lane_slot_words=0)
    loaded = False

    async def bench(ctx: Any) -> None:
        random_codes(random, memories)
        await driver.load_inputs(ctx, memories.inputs)
        await driver.push(ctx, compute)
        await driver.run(ctx, compute)
        memories.run(compute)
        while not loaded:
            await ctx.tick()
        await driver.push(ctx, wg)
        await driver.run(ctx, wg)
        memories.run(wg)
        await check_memories(ctx, driver, memories)

    async def load(ctx: Any) -> None:
        nonlocal loaded
        while not ctx.get(dut.running):
            await ctx.tick()
        await load_random_errors(ctx, driver, random, memories, words)
        loaded = True

    simulate(dut, bench, load)


def test_computes_follow_one_another_without_a_new_plan(simulate: Callable[..., None]) -> None:
    """The same geometry keeps its plan; the next COMPUTE begins when the one before is done."""
    dut = Group(MACHINE)
    driver, begins = Driver(dut), []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.go, 1)
        for _ in range(3):
            await driver.push(ctx, CONVOLUTION)
        driver.show(ctx, CONVOLUTION)
        for cycle in range(1000):
            if ctx.get(dut.computes.ready):
                begins.append(cycle)
            if len(begins) == 3:
                return
            await ctx.tick()

    simulate(dut, bench)
    steps = START_CYCLES + 199 + COMPUTE_LATENCY
    assert [b - a for a, b in pairwise(begins)] == [steps, steps]


def test_a_compute_waits_for_go(simulate: Callable[..., None]) -> None:
    dut = Group(MACHINE)
    driver = Driver(dut)

    async def bench(ctx: Any) -> None:
        await driver.push(ctx, CONVOLUTION)
        driver.show(ctx, CONVOLUTION)
        for _ in range(400):
            await ctx.tick()
            assert not ctx.get(dut.computes.ready)
            assert not ctx.get(dut.running)
        ctx.set(dut.go, 1)
        assert ctx.get(dut.computes.ready), "its walk was planned meanwhile"

    simulate(dut, bench)


def test_a_walk_that_no_table_holds_is_refused(simulate: Callable[..., None]) -> None:
    dut = Group(MACHINE)
    driver = Driver(dut)
    wide = Compute(Mode.NG, (1, 15), [(0, 1, 0, 99)] * 2, [(0, 1, 0, 4)] * 2, (1, 4), [[], []], count_padding=1)

    async def bench(ctx: Any) -> None:
        driver.show(ctx, replace(wide, stride=(1, 15), dilation=(1, 2)))
        ctx.set(dut.go, 1)
        while not ctx.get(dut.refused):
            assert not ctx.get(dut.computes.ready)
            await ctx.tick()

    simulate(dut, bench)

