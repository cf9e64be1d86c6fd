"""Blocks of a memory, against values worked out by hand and against an exhaustive search."""

from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.errors import UsageError
from fixgrad.machine.memory_blocks import (
    BLOCK_KINDS,
    LutRamRule,
    OnChipMemory,
    Shape,
    blocks_for,
    is_queue_in_blocks,
    luts_for,
    memory_for,
    total_of,
)


@pytest.mark.parametrize(
    ("width", "depth", "blocks"),
    [
        # one block in each of its shapes, filled to the last bit
        (1, 32768, 1), (2, 16384, 1), (4, 8192, 1), (9, 4096, 1), (18, 2048, 1), (36, 1024, 1), (72, 512, 1),
        (36, 512, 0.5), (18, 1024, 0.5), (9, 2048, 0.5), (4, 4096, 0.5), (2, 8192, 0.5), (1, 16384, 0.5),
        # one bit or one word more
        (73, 512, 1.5), (72, 513, 2), (37, 1024, 1.5), (36, 1025, 1.5), (1, 16385, 1), (1, 32769, 1.5),
        # a lane's accumulators: 512 words of 32 bits are one RAMB18
        (32, 512, 0.5), (32, 256, 0.5), (32, 1024, 1), (32, 2048, 2), (32, 4096, 4),
        # a word of 32 lanes of 8 bits: 256 = 14 x 18 + 4 bits, 1,024 deep: 15 RAMB18
        (256, 1024, 7.5), (256, 512, 4), (256, 2048, 14.5),
        # 1,024 lines of 36 bits in two RAMB18, and 512 more in a third in the shape 512 x 36
        (36, 1536, 1.5), (36, 1537, 2),
        # bytes: the ninth bit is lost
        (8, 4096, 1), (8, 2048, 0.5), (16, 2048, 1), (10, 4096, 1.5),
        # wide and shallow: 1,024 bits of width need 29 RAMB18 of 36
        (1024, 16, 14.5), (1, 1, 0.5),
    ],
)  # fmt: skip
def test_bram36_by_hand(width: int, depth: int, blocks: float) -> None:
    count = blocks_for(width, depth)
    assert count.blocks == blocks
    assert count.units == 2 * blocks


@pytest.mark.parametrize(
    ("kind", "width", "depth", "blocks"),
    [
        ("RAMB18", 72, 512, 2), ("RAMB18", 32, 512, 1),
        ("URAM288", 72, 4096, 1), ("URAM288", 72, 4097, 2), ("URAM288", 73, 1, 2), ("URAM288", 256, 8192, 8),
        ("DP16KD", 36, 512, 1), ("DP16KD", 18, 1024, 1), ("DP16KD", 32, 1024, 2), ("DP16KD", 64, 512, 2),
        ("DP16KD", 8, 2048, 1), ("DP16KD", 1, 16384, 1), ("DP16KD", 1, 16385, 2),
    ],
)  # fmt: skip
def test_other_kinds_by_hand(kind: str, width: int, depth: int, blocks: float) -> None:
    assert blocks_for(width, depth, kind).blocks == blocks


def test_two_full_ports_rule_out_the_widest_shape() -> None:
    assert blocks_for(36, 512, dual_port=True).blocks == 1  # two of 1,024 x 18
    assert blocks_for(36, 512).blocks == 0.5
    assert blocks_for(72, 512, dual_port=True).blocks == 2
    assert blocks_for(18, 1024, dual_port=True).blocks == 0.5


def test_the_tiling_says_how() -> None:
    count = blocks_for(36, 1536)
    assert count.tiles == ((Shape(512, 36), 1, 3),)
    assert sorted(blocks_for(37, 1024).tiles) == [(Shape(1024, 18), 2, 1), (Shape(16384, 1), 1, 1)]
    assert count.used_share == 36 * 1536 / (3 * 18_432)
    assert blocks_for(8, 2048).used_share == 8 / 9


def covers(width: int, depth: int, kind: str) -> bool:
    """Whether the tiles hold at least width x depth bits in their used part, row by row."""
    tiles = blocks_for(width, depth, kind).tiles
    bits = sum(t.shape.width * t.columns * t.shape.depth * t.rows for t in tiles)
    return bits >= width * depth and sum(t.columns * t.rows for t in tiles) == blocks_for(width, depth, kind).units


@given(st.integers(1, 300), st.integers(1, 40_000), st.sampled_from(sorted(BLOCK_KINDS)))
def test_bounds(width: int, depth: int, kind: str) -> None:
    """Never fewer blocks than bits need, never fewer for a larger memory, and the tiles are the count."""
    count = blocks_for(width, depth, kind)
    block = BLOCK_KINDS[kind]
    assert count.units >= width * depth / (block.bits / block.units)
    assert 0 < count.used_share <= 1
    assert count.units <= blocks_for(width + 1, depth, kind).units
    assert count.units <= blocks_for(width, depth + 1, kind).units
    assert covers(width, depth, kind)
    one_shape = min(-(-width // s.width) * -(-depth // s.depth) for s in block.shapes)
    assert count.units <= one_shape


@given(st.integers(1, 60), st.integers(1, 6000))
def test_columns_against_every_combination(width: int, depth: int) -> None:
    """All multisets of up to four column shapes of the full depth: none is cheaper than what was found."""
    shapes = BLOCK_KINDS["RAMB18"].shapes
    found = blocks_for(width, depth, "RAMB18").units
    for n in range(1, 5):
        for columns in combinations_with_replacement(shapes, n):
            if sum(s.width for s in columns) >= width:
                assert found <= sum(-(-depth // s.depth) for s in columns)


@pytest.mark.parametrize(
    ("width", "depth", "kind", "luts"),
    [(7, 64, "BRAM36", 8), (8, 64, "BRAM36", 16), (14, 32, "BRAM36", 8), (32, 32, "BRAM36", 24), (4, 16, "DP16KD", 6),
     (8, 32, "DP16KD", 24), (7, 65, "BRAM36", 16)],
)  # fmt: skip
def test_luts_by_hand(width: int, depth: int, kind: str, luts: int) -> None:
    assert luts_for(width, depth, kind) == luts


@pytest.mark.parametrize(
    ("width", "depth", "in_blocks"),
    [(36, 32, True), (36, 16, False), (16, 32, False), (64, 64, True), (737, 16, False), (130, 128, True)],
)
def test_queues_go_to_blocks_where_luts_are_dear(width: int, depth: int, in_blocks: bool) -> None:
    """An ECP5 takes 6 LUTs for 16 x 4 bits: 36 x 32 are 108 for one block, 36 x 16 are 54."""
    assert is_queue_in_blocks(width, depth, "DP16KD") is in_blocks
    assert not is_queue_in_blocks(width, depth, "BRAM36")


def test_small_memories_go_to_luts() -> None:
    assert memory_for(32, 32) == OnChipMemory(0.0, 24)
    assert memory_for(128, 64) == OnChipMemory(0.0, 152)  # 8,192 bits: 19 groups of 7 bits
    assert memory_for(129, 64) == OnChipMemory(2.0, 0)  # a bit more a word: four RAMB18 of 36
    assert memory_for(8, 128) == OnChipMemory(0.0, 32)
    assert memory_for(8, 129) == OnChipMemory(0.5, 0)
    assert memory_for(32, 32, dual_port=True) == OnChipMemory(1.0, 0)
    assert memory_for(32, 512, rule=LutRamRule(max_depth=512, max_bits=1 << 20)).blocks == 0
    assert memory_for(32, 16, rule=LutRamRule(max_depth=0, tiny_bits=0)) == OnChipMemory(0.5, 0)


def test_totals_pair_halves() -> None:
    """1,024 lanes with an accumulator memory of 512 x 32 each, and 32 input buffers of 1,024 x 256."""
    lanes, inputs = memory_for(32, 512), memory_for(256, 1024)
    assert total_of([(1024, lanes), (32, inputs), (4, memory_for(32, 32))]) == OnChipMemory(512 + 240, 96)


def test_impossible_memories_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown memory block 'M20K'; known are BRAM36, RAMB18, URAM288, DP16KD"):
        blocks_for(8, 8, "M20K")
    with pytest.raises(UsageError, match="a memory of 0 words of 8 bits"):
        blocks_for(8, 0)
    with pytest.raises(UsageError, match="a memory of 8 words of 0 bits"):
        luts_for(0, 8)
