"""A post-processor against fixgrad.numbers: FF and NG, every rounding, windows, what it measures."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fixgrad.gateware.pe.sharing import converted
from fixgrad.gateware.post.post_processor import POST_LATENCY, SETTLE_CYCLES, PostProcessor
from fixgrad.machine.presets import PRESETS, TINY
from fixgrad.numbers import StreamKey, align, hash32, saturate, shift_nearest, shift_stochastic, wrap32

MACHINE = TINY.with_changes(lanes=3)
LANES = MACHINE.lanes
Ints = NDArray[np.int64]
NO_KEY = StreamKey(0, 0)


@dataclass
class Post:
    """What is the same for all words of a POST."""

    ng: bool = False
    rectify: int = 0
    stochastic: bool = False
    shift: int = 0
    bits: int = 8
    key: StreamKey = NO_KEY
    bias_shift: int = 0
    images: int = LANES
    window: int = 1


@dataclass
class Word:
    """A word of accumulators."""

    accumulators: list[int]
    activations: list[int]
    argmax: list[int]
    bias: int = 0
    element: int = 0
    place: int = 0
    ends_window: bool = True
    ends_channel: bool = False


@dataclass
class Result:
    """All that comes out."""

    codes: list[list[int]] = field(default_factory=list)
    places: list[list[int]] = field(default_factory=list)
    bias_sums: list[int] = field(default_factory=list)
    statistics: tuple[int, int, int] = (0, 0, 0)


def expected(post: Post, words: list[Word]) -> Result:
    """By definition."""
    values = np.array([word.accumulators for word in words], np.int64)
    live = np.arange(LANES) < post.images
    overflow = False
    if post.ng:
        if post.rectify:
            values = np.where(np.array([word.activations for word in words]) > 0, values, 0)
    else:
        biases = align(np.array([word.bias for word in words]), post.bias_shift, 32)[:, None]
        values, overflow = wrap32(np.where(live, values + biases, 0))
        if post.rectify == 1:
            values = np.maximum(values, 0)
    values = np.where(live, values, 0).astype(np.int64)
    if post.ng and post.stochastic:
        elements = np.array([word.element for word in words])[:, None] + np.arange(LANES)
        wide = shift_stochastic(values, post.shift, hash32(elements, post.key))
    else:
        wide = shift_nearest(values, post.shift)
    codes = saturate(wide, post.bits)
    magnitudes = int(np.bitwise_or.reduce(np.abs(values), axis=None))
    result = Result(statistics=(magnitudes, int((codes != wide).sum()), int(overflow)))
    if not post.ng and post.rectify == 2:
        codes = np.maximum(codes, 0)
    (route if post.ng else pool)(post, words, codes, result)
    return result


def pool(post: Post, words: list[Word], codes: Ints, result: Result) -> None:
    """FF: the maximum of each window that is complete, and the first place where it is."""
    window: list[list[int]] = []
    for word, row in zip(words, codes.tolist(), strict=True):
        window = [row] if word.place == 0 else [*window, row]
        if word.ends_window:
            columns = np.array(window)
            result.codes.append(columns.max(axis=0).tolist())
            result.places.append(columns.argmax(axis=0).tolist())


def route(post: Post, words: list[Word], codes: Ints, result: Result) -> None:
    """NG: each error to its maximum; the sum of a channel's errors."""
    total = 0
    for word, row in zip(words, codes.tolist(), strict=True):
        for place in range(post.window):
            there = [post.window == 1 or argmax == place for argmax in word.argmax]
            result.codes.append([code if here else 0 for code, here in zip(row, there, strict=True)])
        total += sum(row)
        if word.ends_channel:
            result.bias_sums.append(total)
            total = 0


def packed(values: list[int], bits: int) -> int:
    return sum((value & (1 << bits) - 1) << bits * lane for lane, value in enumerate(values))


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def unpacked(word: int, bits: int) -> list[int]:
    return [signed(word >> bits * lane & (1 << bits) - 1, bits) for lane in range(LANES)]


def configure(ctx: Any, dut: PostProcessor, post: Post) -> None:
    setting = {name: int(getattr(post, name)) for name in ("ng", "rectify", "stochastic", "shift")}
    keys = {"key_low": post.key.low, "key_high": post.key.high}
    ctx.set(dut.setting, {**setting, **keys, "limit": (1 << (post.bits - 1)) - 1})
    ctx.set(dut.bias_shift, post.bias_shift)
    ctx.set(dut.images, post.images)
    ctx.set(dut.window, post.window)


async def feed(ctx: Any, dut: PostProcessor, words: list[Word], random: Random, gaps: float) -> None:
    for word in words:
        while random.random() < gaps:
            await ctx.tick()
        lanes = {
            "accumulators": packed(word.accumulators, 32),
            "activations": packed(word.activations, 8),
            "argmax": packed(word.argmax, 8),
        }
        tags = {name: int(getattr(word, name)) for name in ("element", "place", "ends_window", "ends_channel")}
        ctx.set(dut.words.payload, {**lanes, **tags, "bias": word.bias & 0xFFFFFFFF})
        ctx.set(dut.words.valid, 1)
        await ctx.tick().until(dut.words.ready)
        ctx.set(dut.words.valid, 0)


def run(simulate: Callable[..., None], jobs: list[tuple[Post, list[Word]]], gaps: float = 0.0, seed: int = 0) -> list[Result]:
    """Several POSTs in turn on one post-processor."""
    dut, random, results = PostProcessor(MACHINE), Random(seed), [Result()]

    async def bench(ctx: Any) -> None:
        for post, words in jobs:
            configure(ctx, dut, post)
            ctx.set(dut.begin, 1)
            await ctx.tick()
            ctx.set(dut.begin, 0)
            await feed(ctx, dut, words, random, gaps)
            await ctx.tick().repeat(SETTLE_CYCLES + post.window)
            statistics = ctx.get(dut.statistics)
            results[-1].statistics = (statistics.magnitudes, statistics.saturated, statistics.overflow)
            results.append(Result())

    async def collect(ctx: Any) -> None:
        while True:
            if ctx.get(dut.codes_valid):
                results[-1].codes.append(unpacked(ctx.get(dut.codes.codes), 16))
                if not ctx.get(dut.setting.ng):
                    results[-1].places.append(unpacked(ctx.get(dut.codes.places), 8))
            if ctx.get(dut.bias_sum_valid):
                results[-1].bias_sums.append(signed(ctx.get(dut.bias_sum), 32))
            await ctx.tick()

    simulate(dut, bench, collect, limit=100_000)
    return results[:-1]


def an_accumulator(random: Random) -> int:
    """Of any magnitude, with corners."""
    value = random.choice([random.getrandbits(random.randint(0, 31)), (1 << random.randint(0, 30)) - random.randint(0, 1)])
    ends = [-(1 << 31), (1 << 31) - 1] if random.random() < 0.1 else []
    return random.choice([value, -value, *ends])


def a_word(random: Random, window: int) -> Word:
    return Word(
        [an_accumulator(random) for _ in range(LANES)],
        [random.randint(-3, 127) * random.randint(0, 1) for _ in range(LANES)],
        [random.randrange(window) for _ in range(LANES)],
        bias=an_accumulator(random) >> random.randint(0, 16),
        element=random.getrandbits(32),
        ends_channel=random.random() < 0.2,
    )


def a_post(random: Random) -> tuple[Post, list[Word]]:
    post = Post(
        ng=random.random() < 0.5,
        rectify=random.randint(0, 2),
        stochastic=random.random() < 0.5,
        shift=random.randint(0, 31),
        bits=random.randint(2, 16),
        key=StreamKey(random.getrandbits(32), random.getrandbits(32)),
        bias_shift=random.randint(-31, 31),
        images=random.randint(0, LANES),
        window=random.choice([1, 1, 2, 4, 9]),
    )
    words = [a_word(random, post.window) for _ in range(random.randint(1, 8) * (1 if post.ng else post.window))]
    if not post.ng:
        for number, word in enumerate(words):
            word.place = number % post.window
            word.ends_window = word.place == post.window - 1
            word.ends_channel = False
    return post, words


@settings(max_examples=4)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3]))
def test_random_posts(simulate: Callable[..., None], seed: int, gaps: float) -> None:
    random = Random(seed)
    jobs = [a_post(random) for _ in range(40)]
    assert run(simulate, jobs, gaps, seed) == [expected(post, words) for post, words in jobs]


def words_of(values: list[int], **changes: Any) -> list[Word]:
    """A word for each value, the same in all lanes."""
    return [replace(Word([value] * LANES, [1] * LANES, [0] * LANES), **changes) for value in values]


@pytest.mark.parametrize("shift", [0, 1, 7, 31])
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_corners_of_rounding(simulate: Callable[..., None], shift: int, bits: int) -> None:
    """Ties, the largest code and one beyond it, both signs."""
    limit = (1 << (bits - 1)) - 1
    half = (1 << shift) >> 1
    codes = [sign * (code << shift) + off for sign in (1, -1) for code in (0, 1, limit, limit + 1) for off in (-half, 0, half)]
    values = [value for value in [*codes, (1 << 31) - 1, -(1 << 31)] if -(1 << 31) <= value < 1 << 31]
    post = Post(shift=shift, bits=bits)
    [result] = run(simulate, [(post, words_of(values))])
    assert result == expected(post, words_of(values))
    assert [row[0] for row in result.codes] == saturate(shift_nearest(np.array(values), shift), bits).tolist()


def test_pixels_that_fill_no_window_are_measured_and_not_stored(simulate: Callable[..., None]) -> None:
    words = words_of([3, 200], ends_window=False) + words_of([5])
    [result] = run(simulate, [(Post(), words)])
    assert result.codes == [[5] * LANES]
    assert result.statistics == (3 | 200 | 5, LANES, 0)


def test_a_maximum_of_an_exact_power_of_two_shows(simulate: Callable[..., None]) -> None:
    [low, most] = run(simulate, [(Post(), words_of([-128])), (Post(), words_of([-(1 << 31)]))])
    assert low.statistics[0].bit_length() == 8
    assert most.statistics[0] == 1 << 31


def test_the_sum_with_a_bias_may_overflow(simulate: Callable[..., None]) -> None:
    most = (1 << 31) - 1
    jobs = [(Post(), words_of([most - 5], bias=bias)) for bias in (5, 6)]
    assert [result.statistics[2] for result in run(simulate, jobs)] == [0, 1]


def test_words_follow_one_another_and_take_eight_cycles(simulate: Callable[..., None]) -> None:
    dut, seen = PostProcessor(MACHINE), []

    async def bench(ctx: Any) -> None:
        configure(ctx, dut, Post())
        for cycle in range(POST_LATENCY + 6):
            ctx.set(dut.words.valid, cycle < 5)
            ctx.set(dut.words.payload, {"accumulators": cycle, "ends_window": 1})
            assert ctx.get(dut.words.ready)
            seen.append((ctx.get(dut.codes_valid), ctx.get(dut.codes.codes)))
            await ctx.tick()

    simulate(dut, bench)
    assert seen[POST_LATENCY : POST_LATENCY + 5] == [(1, cycle) for cycle in range(5)]
    assert sum(valid for valid, _ in seen) == 5


def test_a_pooled_error_takes_a_cycle_for_each_element(simulate: Callable[..., None]) -> None:
    dut, accepted, emitted = PostProcessor(MACHINE), [], []

    async def bench(ctx: Any) -> None:
        configure(ctx, dut, Post(ng=True, window=4))
        ctx.set(dut.words.valid, 1)
        for cycle in range(40):
            if ctx.get(dut.words.ready):
                accepted.append(cycle)
            if ctx.get(dut.codes_valid):
                emitted.append(cycle)
            await ctx.tick()

    simulate(dut, bench)
    assert accepted == list(range(0, 40, 4))
    assert emitted == list(range(POST_LATENCY, 40)), "without a gap"


def test_the_latency_is_that_of_the_timing_model() -> None:
    assert MACHINE.latencies.post == POST_LATENCY


@pytest.mark.parametrize("name", ["tiny", pytest.param("kcu1500", marks=pytest.mark.slow)])
def test_its_lanes_are_one_module(name: str) -> None:
    text = converted(PostProcessor(PRESETS[name]), "post_processor")
    assert len(re.findall(r"^ +cell \\post_lane ", text, re.MULTILINE)) == PRESETS[name].lanes
