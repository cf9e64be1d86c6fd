"""Blocks: what is taken together, and that nothing is lost by it."""

import numpy as np

from fixgrad.machine.instructions import BY_NAME
from fixgrad.simulate.timing.blocks import Block, cut_blocks

KERNELS, INPUT, UPDATE = (BY_NAME[name].opcode for name in ("LOAD_KERNELS", "LOAD_INPUT", "UPDATE"))


def cut(
    opcodes: list[int], rows: list[int], loads: list[int], sizes: list[int], most: int = 4, limit: int = 100
) -> list[Block]:
    waits = np.zeros((len(opcodes), 4), np.int64)
    waits[:, 0] = loads
    limits = np.full(len(opcodes), most)
    found = cut_blocks(np.array(opcodes, np.uint8), np.array(rows), waits, np.array(sizes), limits, limit)
    blocks = found.some(slice(None))
    assert [found.one(number) for number in range(len(blocks))] == blocks
    return blocks


def test_a_block_ends_where_kind_row_or_waits_change() -> None:
    opcodes = [KERNELS, KERNELS, INPUT, INPUT, KERNELS, KERNELS, KERNELS, UPDATE]
    blocks = cut(opcodes, [0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 2, 2], [1] * 8)
    assert [(block.first, block.count, block.name, block.place) for block in blocks] == [
        (0, 2, "LOAD_KERNELS", 0), (2, 1, "LOAD_INPUT", 0), (3, 1, "LOAD_INPUT", 1),
        (4, 1, "LOAD_KERNELS", 2), (5, 1, "LOAD_KERNELS", 3), (6, 1, "LOAD_KERNELS", 4), (7, 1, "UPDATE", 0),
    ]  # fmt: skip
    assert blocks[-1].waits == (2, 0, 0, 0)
    assert [block.row for block in blocks] == [0, 0, 0, 0, 1, 1, 1]


def test_blocks_are_limited_in_instructions_and_bytes() -> None:
    by_count = cut([KERNELS] * 10, [0] * 10, [0] * 10, [1] * 10)
    assert [block.count for block in by_count] == [4, 4, 2]
    by_bytes = cut([KERNELS] * 6, [0] * 6, [0] * 6, [60] * 6, most=100)
    assert [block.count for block in by_bytes] == [2, 2, 1, 1]  # begun below 0, 100, 200, 300 bytes
    assert [block.count for block in cut([UPDATE] * 3, [0] * 3, [0] * 3, [1] * 3, most=1)] == [1, 1, 1]
