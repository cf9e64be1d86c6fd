"""The loss unit against the integer softmax of fixgrad.network, and its requantisation against fixgrad.numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fixgrad.gateware.loss.error_unit import CODE_BITS, ERROR_FRAC
from fixgrad.gateware.loss.exponential import EXPONENTIAL_LATENCY, Exponential, ExponentialTable
from fixgrad.gateware.loss.loss_unit import LOSS_CYCLES_PER_CLASS, LOSS_OVERHEAD, LossUnit
from fixgrad.gateware.pe.sharing import converted
from fixgrad.machine.presets import FORMAL, KCU1500, TINY
from fixgrad.network import softmax
from fixgrad.numbers import StreamKey, hash32, saturate, shift_nearest, shift_stochastic

TABLE = ExponentialTable(softmax.LOG2_E, 14, tuple(softmax.EXP2_TABLE.tolist()), softmax._DEEPEST)
Ints = NDArray[np.integer]


def powers(simulate: Callable[..., None], cases: list[tuple[int, int]]) -> list[int]:
    """exp of each (distance, frac); all of one frac after another."""
    dut, found = Exponential(TABLE), []

    async def bench(ctx: Any) -> None:
        for frac in dict.fromkeys(frac for _, frac in cases):
            distances = [distance for distance, of in cases if of == frac]
            ctx.set(dut.frac, frac)
            await ctx.tick()
            for number, distance in enumerate([*distances, *[0] * EXPONENTIAL_LATENCY]):
                ctx.set(dut.distance, distance)
                if number >= EXPONENTIAL_LATENCY:
                    found.append(ctx.get(dut.power))
                await ctx.tick()

    simulate(dut, bench, limit=200_000)
    return found


def expected_powers(cases: list[tuple[int, int]]) -> list[int]:
    """Of two logits, the second one `distance` below the first."""
    return [int(softmax.exponentials(np.array([[32767, 32767 - distance]]), frac)[0, 1]) for distance, frac in cases]


def test_every_distance_of_ten_bits(simulate: Callable[..., None]) -> None:
    """At the fractional bits of common logits, and where the shift ends."""
    cases = [(distance, frac) for frac in (6, 3) for distance in range(1024)]
    cases += [(distance, frac) for frac in range(-8, 30) for distance in (0, 1, 2, 3, 255, 65535)]
    cases.sort(key=lambda case: case[1])
    assert powers(simulate, cases) == expected_powers(cases)


@settings(max_examples=5)
@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(-128, 127)), min_size=1, max_size=60))
def test_any_distance(simulate: Callable[..., None], cases: list[tuple[int, int]]) -> None:
    cases.sort(key=lambda case: case[1])
    assert powers(simulate, cases) == expected_powers(cases)


@pytest.mark.slow
def test_every_distance_of_sixteen_bits(simulate: Callable[..., None]) -> None:
    cases = [(distance, frac) for frac in (0, 5, 11) for distance in range(65536)]
    assert powers(simulate, cases) == expected_powers(cases)


@dataclass
class Loss:
    """A LOSS: logits [class][image], labels."""

    logits: list[list[int]]
    labels: list[int]
    elements: list[int]
    frac: int = 8
    shift: int = 8
    stochastic: int = 0
    key: StreamKey | None = None

    @property
    def keys(self) -> StreamKey:
        return self.key or StreamKey(0, 0)


@dataclass
class Result:
    """What comes out: codes [class][image], sums of classes, (magnitudes, saturated, overflow), cycles."""

    codes: list[int]
    bias_sums: list[int]
    statistics: tuple[int, int, int]


def expected(loss: Loss) -> Result:
    errors = softmax.loss_gradient(np.array(loss.logits).T, loss.frac, np.array(loss.labels)).T
    if loss.stochastic:
        elements = np.array(loss.elements)[:, None] + np.arange(len(loss.labels))
        wide = shift_stochastic(errors, loss.shift, hash32(elements, loss.keys))
    else:
        wide = shift_nearest(errors, loss.shift)
    codes = saturate(wide, CODE_BITS)
    magnitudes = int(np.bitwise_or.reduce(np.abs(errors), axis=None))
    return Result(codes.ravel().tolist(), codes.sum(axis=1).tolist(), (magnitudes, int((codes != wide).sum()), 0))


def run(simulate: Callable[..., None], losses: list[Loss], stalls: float = 0.0) -> tuple[list[Result], list[int]]:
    """Several LOSSes in turn; and the cycles of each from `begin` until `done`."""
    dut, random = LossUnit(TINY, TABLE), Random(1)
    results, cycles = [Result([], [], (0, 0, 0))], []

    async def bench(ctx: Any) -> None:
        for loss in losses:
            for lane, label in enumerate(loss.labels):
                ctx.set(dut.label, {"enable": 1, "lane": lane, "label": label})
                await ctx.tick()
            ctx.set(dut.label.enable, 0)
            fields = {name: getattr(loss, name) for name in ("frac", "shift", "stochastic")}
            sizes = {"classes": len(loss.logits), "images": len(loss.labels)}
            ctx.set(dut.loss, {**fields, **sizes, "key_low": loss.keys.low, "key_high": loss.keys.high})
            ctx.set(dut.begin, 1)
            await ctx.tick()
            ctx.set(dut.begin, 0)
            count = 1
            while not ctx.get(dut.done):
                count += 1
                await ctx.tick()
            cycles.append(count)
            await ctx.tick()  # the last error is with `collect` then
            statistics = ctx.get(dut.statistics)
            results[-1].statistics = (statistics.magnitudes, statistics.saturated, statistics.overflow)
            results.append(Result([], [], (0, 0, 0)))

    async def feed(ctx: Any) -> None:
        for loss in losses:
            for _, (row, element) in product(range(3), zip(loss.logits, loss.elements, strict=True)):
                for logit in row:
                    while random.random() < stalls:
                        await ctx.tick()
                    ctx.set(dut.logits.payload, {"logit": logit, "element": element})
                    ctx.set(dut.logits.valid, 1)
                    await ctx.tick().until(dut.logits.ready)
                    ctx.set(dut.logits.valid, 0)

    async def collect(ctx: Any) -> None:
        while True:
            ctx.set(dut.errors.ready, random.random() >= stalls)
            sampled = dut.errors.valid, dut.errors.ready, dut.errors.payload.code, dut.bias_sum_valid, dut.bias_sum
            _, _, valid, ready, code, ends, total = await ctx.tick().sample(*sampled)
            if valid and ready:
                results[-1].codes.append(code)
            if ends:
                results[-1].bias_sums.append(total)

    simulate(dut, bench, feed, collect, limit=100_000)
    return results[:-1], cycles


def a_loss(random: Random) -> Loss:
    classes, images, bits = random.randint(1, 9), random.randint(1, TINY.lanes), random.randint(1, 16)
    limit = (1 << (bits - 1)) - 1
    return Loss(
        [[random.randint(-limit, limit) for _ in range(images)] for _ in range(classes)],
        [random.randrange(classes) for _ in range(images)],
        [random.getrandbits(32) for _ in range(classes)],
        frac=random.randint(-4, 20),
        shift=random.randint(0, 31) if random.random() < 0.3 else random.randint(4, 9),
        stochastic=random.randint(0, 1),
        key=StreamKey(random.getrandbits(32), random.getrandbits(32)),
    )


@pytest.mark.parametrize("stalls", [0.0, 0.5])
def test_random_losses(simulate: Callable[..., None], stalls: float) -> None:
    random = Random(9)
    losses = [a_loss(random) for _ in range(12)]
    results, _ = run(simulate, losses, stalls)
    assert results == [expected(loss) for loss in losses]


def test_errors_at_their_corners(simulate: Callable[..., None]) -> None:
    """A sure and right image, a sure and wrong one, one class alone, equal logits: +-1 is clamped to 32,767."""
    losses = [
        Loss([[32767, -32767], [-32767, 32767]], [0, 0], [0, 0], frac=4, shift=0),
        Loss([[5]], [0], [0]),
        Loss([[7] * 3] * 9, [0, 4, 8], [0] * 9, shift=7),
    ]
    results, _ = run(simulate, losses)
    assert results == [expected(loss) for loss in losses]
    assert results[0].statistics[0] == 32767
    assert results[1].codes == [0]


@pytest.mark.parametrize(("classes", "images"), [(1, 1), (2, 1), (1, 4), (10, 4)])
def test_the_time_of_a_loss(simulate: Callable[..., None], classes: int, images: int) -> None:
    loss = Loss([[3] * images] * classes, [0] * images, [0] * classes)
    _, [cycles] = run(simulate, [loss])
    assert cycles == classes * images * LOSS_CYCLES_PER_CLASS + LOSS_OVERHEAD


def test_nothing_to_do_is_done_at_once(simulate: Callable[..., None]) -> None:
    results, cycles = run(simulate, [Loss([], [0], []), Loss([[]], [], [0])])
    assert [result.codes for result in results] == [[], []]
    assert cycles == [1, 1]


def test_constants_are_those_of_the_definition_and_the_timing_model() -> None:
    assert ERROR_FRAC == softmax.ERROR_FRAC
    assert TINY.latencies.loss_per_class == LOSS_CYCLES_PER_CLASS


@pytest.mark.parametrize("machine", [FORMAL, KCU1500], ids=lambda machine: machine.name)
def test_it_converts(machine: Any) -> None:
    assert "module \\loss_unit" in converted(LossUnit(machine, TABLE), "loss_unit")


@pytest.mark.parametrize(("powers", "log2_e", "message"), [((1,), 5, "has 1 powers"), ((1,) * 256, 1 << 15, "log2_e is 32768")])
def test_tables_of_other_sizes_are_refused(powers: tuple[int, ...], log2_e: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExponentialTable(log2_e, 14, powers, 24)
