"""The hash pipeline equals fixgrad.numbers.hash32, an element a cycle."""

from random import Random

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from fixgrad.gateware.arithmetic.counter_hash import CounterHash
from fixgrad.numbers import StreamKey, hash32
from fixgrad.numbers.counter_hash import HASH_KEY_ROUND, HASH_ROUNDS


def run(dut: CounterHash, key: StreamKey, elements: list[int]) -> list[int]:
    """The random bits of elements that follow one another without a gap."""
    found: list[int] = []

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        ctx.set(dut.key_low, key.low)
        ctx.set(dut.key_high, key.high)
        for element in elements + [0] * dut.LATENCY:
            ctx.set(dut.element, element)
            found.append(ctx.get(dut.random))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found[dut.LATENCY :]


def small_hash(element: int, key: StreamKey, width: int, rounds: list[tuple[int, int, int]]) -> int:
    """The hash by definition at any width."""
    mask = (1 << width) - 1
    a = element ^ key.low
    for number, (constant, left, right) in enumerate(rounds):
        if number == HASH_KEY_ROUND:
            a ^= key.high
        a = a + constant + (a << left) & mask
        a ^= a >> right
    return a


def test_the_definition_at_full_width_is_that_of_numbers() -> None:
    key = StreamKey(0x12345678, 0x9ABCDEF0)
    assert [small_hash(e, key, 32, list(HASH_ROUNDS)) for e in range(50)] == hash32(np.arange(50), key).tolist()


@pytest.mark.parametrize("width", [3, 6, 8])
def test_every_element_of_small_widths(width: int) -> None:
    """Also shifts that reach beyond the width. It is a bijection: each value comes once."""
    random = Random(width)
    rounds = [(random.getrandbits(width), random.randint(1, width + 1), random.randint(1, width)) for _ in HASH_ROUNDS]
    key = StreamKey(random.getrandbits(width), random.getrandbits(width))
    found = run(CounterHash(width, rounds), key, list(range(1 << width)))
    assert found == [small_hash(element, key, width, rounds) for element in range(1 << width)]
    assert sorted(found) == list(range(1 << width))


@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.lists(st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 31).map(lambda bit: 1 << bit)), min_size=1, max_size=30),
)
def test_full_width(low: int, high: int, elements: list[int]) -> None:
    key = StreamKey(low, high)
    assert run(CounterHash(), key, elements) == hash32(np.array(elements, np.uint32), key).tolist()


def test_the_corners() -> None:
    corners = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
    for key in (StreamKey(0, 0), StreamKey(0xFFFFFFFF, 0xFFFFFFFF), StreamKey(1, 0x80000000)):
        assert run(CounterHash(), key, corners) == hash32(np.array(corners, np.uint32), key).tolist()
