"""The lower bounds against exhaustive search on cases small enough for it."""

from collections import deque
from itertools import combinations, product
from math import inf

import numpy as np
import pytest

from fixgrad.machine import preset
from fixgrad.network import Conv2d, Linear, MaxPool2d, Network, Recipe
from fixgrad.network.graph import INPUT
from fixgrad.network.layers import Flatten
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.simulate.least_traffic import COORDINATE_BYTES
from fixgrad.simulate.lower_bound import hong_kung_bytes, input_bytes, layer_bound, on_chip_bytes, segment_macs

Mac = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def matrix_product(m: int, n: int, k: int) -> list[Mac]:
    """(input, weight, output) of each MAC of an m x k by k x n product."""
    return [((i, p), (p, j), (i, j)) for i, j, p in product(range(m), range(n), range(k))]


def convolution(size: int, kernel: int, outputs: int, dead: set[tuple[int, int]] = frozenset()) -> list[Mac]:  # type: ignore[assignment]
    """MACs of a one-dimensional convolution of two input channels without padding; `dead` are (output, input) kernels."""
    places = range(size - kernel + 1)
    return [
        ((i, q + u), (o, i, u), (o, q))
        for o, i, q, u in product(range(outputs), range(2), places, range(kernel))
        if (o, i) not in dead
    ]


def one_channel(size: int, kernel: int) -> list[Mac]:
    """MACs of a one-dimensional convolution of one channel."""
    return [((q + u,), (u,), (q,)) for q in range(size - kernel + 1) for u in range(kernel)]


def touched(macs: tuple[Mac, ...]) -> tuple[int, int, int]:
    return tuple(len({mac[kind] for mac in macs}) for kind in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("macs", "reuse"),
    [
        (matrix_product(2, 2, 3), 1),
        (matrix_product(3, 2, 2), 1),
        (convolution(4, 2, 1), 2),
        (convolution(3, 2, 2), 2),
        (convolution(3, 2, 2, {(0, 1)}), 2),
    ],
    ids=["2x3x2", "3x2x2", "conv of 2 taps", "two outputs", "dead kernel"],
)
@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (1.0, 1.0, 4.0), (1.0, 2.0, 0.25)])
def test_no_set_of_macs_that_touches_so_little_is_larger(
    macs: list[Mac], reuse: int, sizes: tuple[float, float, float]
) -> None:
    assert len(macs) <= 16
    for count in range(1, len(macs) + 1):
        least = min(
            sum(number * size for number, size in zip(touched(chosen), sizes, strict=True))
            for chosen in combinations(macs, count)
        )
        assert count <= segment_macs(least, reuse, sizes) + 1e-9


def least_transfers(macs: list[Mac], on_chip: int) -> float:
    """Fewest words moved by any schedule of the MACs with `on_chip` words: every state of the pebble game is visited.

    An input or weight is read (1). An output starts on chip for nothing, may be written and read again as a partial sum (1
    each), and must be written in the end. Words may be dropped at any time; operands and output must be on chip for a MAC.
    """
    names = sorted({("a", mac[0]) for mac in macs} | {("b", mac[1]) for mac in macs} | {("c", mac[2]) for mac in macs})
    number = {name: index for index, name in enumerate(names)}
    needs = [tuple(number[key] for key in (("a", a), ("b", b), ("c", c))) for a, b, c in macs]
    outputs = {index for name, index in number.items() if name[0] == "c"}
    everything = (1 << len(macs)) - 1
    # State: words on chip, MACs done, outputs whose value on chip (or in memory) is up to date in memory.
    start = (0, 0, 0)
    cost = {start: 0}
    queue = deque([start])
    best = inf
    while queue:
        state = queue.popleft()
        chip, done, saved = state
        spent = cost[state]
        if spent >= best:
            continue
        if done == everything and all(saved >> index & 1 for index in outputs):
            best = min(best, spent)
            continue
        for following, price in _moves(chip, done, saved, needs, outputs, len(names), on_chip):
            if spent + price < cost.get(following, inf):
                cost[following] = spent + price
                (queue.append if price else queue.appendleft)(following)
    return best


def _moves(chip, done, saved, needs, outputs, count, on_chip):  # type: ignore[no-untyped-def]
    for index, (a, b, c) in enumerate(needs):
        if not done >> index & 1 and chip >> a & 1 and chip >> b & 1 and chip >> c & 1:
            yield (chip, done | 1 << index, saved & ~(1 << c)), 0
    started = {c for index, (_, _, c) in enumerate(needs) if done >> index & 1}
    for word in range(count):
        bit = 1 << word
        if chip & bit:
            lost = word in outputs and word in started and not saved & bit
            if not lost:
                yield (chip & ~bit, done, saved), 0
            if lost:
                yield (chip, done, saved | bit), 1
        elif chip.bit_count() < on_chip:
            fresh = word in outputs and word not in started
            yield (chip | bit, done, saved), 0 if fresh else 1


@pytest.mark.parametrize(
    ("macs", "reuse", "on_chip"),
    [
        (matrix_product(2, 2, 1), 1, 3),
        (matrix_product(2, 1, 2), 1, 3),
        (matrix_product(2, 1, 2), 1, 4),
        (matrix_product(3, 1, 2), 1, 3),
        (one_channel(3, 2), 2, 3),
        (one_channel(4, 2), 2, 4),
    ],
)
def test_no_schedule_moves_less(macs: list[Mac], reuse: int, on_chip: int) -> None:
    compulsory = sum(touched(tuple(macs)))
    found = least_transfers(macs, on_chip)
    assert found >= compulsory
    assert found >= hong_kung_bytes(len(macs), on_chip, reuse, (1.0, 1.0, 1.0))
    assert least_transfers(macs, compulsory) == compulsory


def test_the_pebble_game_knows_a_product_that_does_not_fit() -> None:
    """A 2 x 1 by 1 x 2 product with 3 words on chip: one of the four operands is read twice. A 2 x 2 by 2 x 1 one: one more."""
    assert least_transfers(matrix_product(2, 2, 1), 3) == 2 + 2 + 4 + 1
    assert least_transfers(matrix_product(2, 1, 2), 3) == 4 + 2 + 2 + 1


def test_hong_kung_grows_with_work_and_shrinks_with_memory() -> None:
    sizes = (1.0, 1.0, 1.0)
    assert hong_kung_bytes(1e12, 1e6, 1, sizes) == pytest.approx(2**0.5 * 1e12 / 1e3 - 4e6)
    assert hong_kung_bytes(1e12, 4e6, 1, sizes) < hong_kung_bytes(1e12, 1e6, 1, sizes) < hong_kung_bytes(2e12, 1e6, 1, sizes)
    assert hong_kung_bytes(1e12, 1e6, 9, sizes) == pytest.approx(2**0.5 * 1e12 / 3e3 - 4e6)
    assert hong_kung_bytes(1e6, 1e6, 1, sizes) == 0


def network() -> Network:
    layers = (
        Conv2d(name="conv1", inputs=(INPUT,), in_channels=2, filters=3, kernel=(3, 3), relu=True,
               geometry=ConvGeometry(padding=(1, 1))),
        MaxPool2d(name="pool", inputs=("conv1",)),
        Conv2d(name="conv2", inputs=("pool",), in_channels=3, filters=4, kernel=(3, 3), relu=True,
               geometry=ConvGeometry(padding=(1, 1))),
        Flatten(name="flat", inputs=("conv2",)),
        Linear(name="dense", inputs=("flat",), in_features=4 * 16 * 16, out_features=5, out_bits=16),
    )  # fmt: skip
    return Network("n", (2, 33, 33), 6, layers)


def test_compulsory_bytes_by_hand() -> None:
    machine = preset("tiny")
    of, lanes, kept, recipe = network(), machine.lanes, input_bytes(machine), Recipe()
    assert kept == 2 * 256 * 4
    conv1, conv2, dense = of.mac_layers
    mask = np.array([[True, False, False], [True, False, True], [False, False, False], [True, False, False]])
    # Input channel 1 and output channel 2 are dead: nobody reads them, but what is stored is stored.
    ff = layer_bound(of, conv2, "ff", mask, machine, 4, recipe)
    assert ff.compulsory == 2 * 256 * lanes - kept + 4 * 256 * lanes + 4 * (9 + COORDINATE_BYTES) + 4 * 4
    ng = layer_bound(of, conv2, "ng", mask, machine, 4, recipe)
    # 33 x 33 pixels before the pool, of which 32 x 32 belong to a window.
    assert ng.compulsory == 3 * 256 * lanes - kept + 3 * 32 * 32 * lanes + 4 * (9 + COORDINATE_BYTES)
    wg = layer_bound(of, conv2, "wg", mask, machine, 4, recipe)
    assert wg.compulsory == 2 * 256 * lanes - kept + 3 * 256 * lanes + 4 * (COORDINATE_BYTES + 9 * (2 * (3 + 3) + 1))
    logits = layer_bound(of, dense, "ff", None, machine, 5, recipe)  # two micro-batches, 16-bit logits
    assert logits.compulsory == 1024 * 2 * lanes - kept + 5 * 2 * 2 * lanes + 5 * 1024 * (1 + COORDINATE_BYTES) + 5 * 4
    small = layer_bound(of, conv1, "ff", None, preset("kcu1500"), 32, recipe)
    assert small.compulsory == 3 * 16 * 16 * 32 + 6 * (9 + COORDINATE_BYTES) + 3 * 4  # the input may be on chip already


def test_on_chip_bytes_of_the_talks_machine() -> None:
    per_pe = 1024 * 32 + 512 * 32 * 4 + 2048 * 4 + 512 * 11
    assert on_chip_bytes(preset("kcu1500")) == 32 * per_pe
