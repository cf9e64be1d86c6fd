"""On-chip memory counted in the blocks that a chip really has, with their aspect ratios.

A memory of `width` bits and `depth` words is covered with blocks in one of their shapes. What a narrow or a shallow memory
wastes is part of the count: 256 words of 32 bits take the same half block as 512 words of 36.

Shapes: UltraScale RAMB36E2, RAMB18E2 and URAM288 from UG573, ECP5 DP16KD from the ECP5 family data sheet. A RAMB36 is two
independent RAMB18, so the search works in halves and is exact for both.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from fixgrad.errors import UsageError


class Shape(NamedTuple):
    """One way to use a block: `depth` words of `width` bits."""

    depth: int
    width: int


@dataclass(frozen=True, slots=True)
class BlockKind:
    """A kind of memory block.

    Attributes:
        name: as a `Device` names it.
        shapes: of one unit of the search, for a memory with one write and one read port.
        dual_shapes: for two ports that both read and write.
        units: units of the search in one block (a BRAM36 is two RAMB18).
        bits: capacity of one block, parity included.
    """

    name: str
    shapes: tuple[Shape, ...]
    dual_shapes: tuple[Shape, ...]
    units: int
    bits: int


_RAMB18_DUAL = (Shape(16384, 1), Shape(8192, 2), Shape(4096, 4), Shape(2048, 9), Shape(1024, 18))
_RAMB18 = (*_RAMB18_DUAL, Shape(512, 36))
_DP16KD_DUAL = (Shape(16384, 1), Shape(8192, 2), Shape(4096, 4), Shape(2048, 9), Shape(1024, 18))
_URAM = (Shape(4096, 72),)

BLOCK_KINDS = {
    kind.name: kind
    for kind in (
        BlockKind("BRAM36", _RAMB18, _RAMB18_DUAL, units=2, bits=36_864),
        BlockKind("RAMB18", _RAMB18, _RAMB18_DUAL, units=1, bits=18_432),
        BlockKind("URAM288", _URAM, _URAM, units=1, bits=294_912),
        BlockKind("DP16KD", (*_DP16KD_DUAL, Shape(512, 36)), _DP16KD_DUAL, units=1, bits=18_432),
    )
}


class Tile(NamedTuple):
    """`columns` x `rows` units side by side and one above the other, each in the same shape."""

    shape: Shape
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class BlockCount:
    """The blocks of one memory.

    Attributes:
        kind: name of the block.
        width: bits of a word.
        depth: words.
        units: units used (RAMB18 for BRAM36).
        blocks: blocks, in halves for BRAM36.
        tiles: how they are put together.
        used_share: bits of the memory over bits of its blocks.
    """

    kind: str
    width: int
    depth: int
    units: int
    blocks: float
    tiles: tuple[Tile, ...]
    used_share: float


@cache
def _columns(width: int, depth: int, shapes: tuple[Shape, ...]) -> tuple[int, tuple[Tile, ...]]:
    """Fewest units whose columns, all `depth` words deep, are `width` bits wide together (a coin problem over shapes)."""
    best: list[tuple[int, Shape | None]] = [(0, None)]
    cost = {shape: -(-depth // shape.depth) for shape in shapes}
    for w in range(1, width + 1):
        best.append(min(((best[max(0, w - s.width)][0] + cost[s], s) for s in shapes), key=lambda found: found[0]))
    counts: dict[Shape, int] = {}
    left = width
    while left > 0:
        shape = best[left][1]
        assert shape is not None
        counts[shape] = counts.get(shape, 0) + 1
        left -= shape.width
    return best[width][0], tuple(Tile(shape, n, cost[shape]) for shape, n in counts.items())


@cache
def _tiling(width: int, depth: int, shapes: tuple[Shape, ...]) -> tuple[int, tuple[Tile, ...]]:
    """Fewest units: columns of the whole depth, or whole blocks below and the rest of the depth tiled anew."""
    best = _columns(width, depth, shapes)
    for shape in shapes:
        below = depth // shape.depth * shape.depth
        if 0 < below < depth:
            lower, upper = _columns(width, below, shapes), _tiling(width, depth - below, shapes)
            best = min(best, (lower[0] + upper[0], lower[1] + upper[1]), key=lambda found: found[0])
    return best


def _kind(name: str) -> BlockKind:
    try:
        return BLOCK_KINDS[name]
    except KeyError:
        raise UsageError(f"unknown memory block {name!r}; known are {', '.join(BLOCK_KINDS)}") from None


def _check(width_bits: int, depth: int) -> None:
    if width_bits < 1 or depth < 1:
        raise UsageError(f"a memory of {depth} words of {width_bits} bits; both must be at least 1")


def blocks_for(width_bits: int, depth: int, kind: str = "BRAM36", *, dual_port: bool = False) -> BlockCount:
    """Blocks of a memory of `depth` words of `width_bits` bits with one write and one read port.

    `dual_port`: both ports read and write, which rules out the widest shape. Raises UsageError for an unknown kind or an
    empty memory.
    """
    _check(width_bits, depth)
    block = _kind(kind)
    units, tiles = _tiling(width_bits, depth, block.dual_shapes if dual_port else block.shapes)
    capacity = units * block.bits / block.units
    return BlockCount(kind, width_bits, depth, units, units / block.units, tiles, used_share=width_bits * depth / capacity)


class LutShape(NamedTuple):
    """A group of LUTs as a small memory with one write and one read port."""

    depth: int
    width: int
    luts: int


LUT_SHAPES = {
    "BRAM36": (LutShape(64, 7, 8), LutShape(32, 14, 8)),  # UG574: RAM64M8, RAM32M16 of a SLICEM
    "DP16KD": (LutShape(16, 4, 6),),  # ECP5 data sheet: a pseudo dual-port 16 x 4 takes three slices
}
LUT_SHAPES["RAMB18"] = LUT_SHAPES["URAM288"] = LUT_SHAPES["BRAM36"]


def luts_for(width_bits: int, depth: int, kind: str = "BRAM36") -> int:
    """LUTs of the same memory in LUT RAM on the chip that has blocks of `kind`, without the multiplexers of deep ones."""
    _check(width_bits, depth)
    _kind(kind)
    return min(-(-depth // s.depth) * -(-width_bits // s.width) * s.luts for s in LUT_SHAPES[kind])


#: Kind of block -> LUTs of LUT RAM for which a queue is worth a block. Only where LUT RAM is dear: on UltraScale blocks are the
#: scarcer good, and 8 LUTs hold 448 bits; on an ECP5 six hold 64. But its blocks lie in four rows, and where many of them stand
#: side by side with all their pins in use, wires get scarce (docs/synthesis.md): a block must be worth it.
QUEUE_LUTS_FOR_A_BLOCK = {"DP16KD": 96}


def is_queue_in_blocks(width_bits: int, depth: int, kind: str) -> bool:
    """Whether a queue that may take a cycle more goes to block RAM on the chip that has blocks of `kind`."""
    if kind not in QUEUE_LUTS_FOR_A_BLOCK:
        return False
    blocks = blocks_for(width_bits, depth, kind).blocks
    return luts_for(width_bits, depth, kind) >= QUEUE_LUTS_FOR_A_BLOCK[kind] * blocks


@dataclass(frozen=True, slots=True)
class LutRamRule:
    """When a memory is worth no block. A synthesis tool decides alike unless an attribute tells it otherwise.

    Attributes:
        max_depth: memories at most this deep go to LUTs, if
        max_bits: they hold at most this many bits.
        tiny_bits: memories of at most this many bits do so at any depth.
    """

    max_depth: int = 64
    max_bits: int = 8192
    tiny_bits: int = 1024

    def applies(self, width_bits: int, depth: int) -> bool:
        bits = width_bits * depth
        return bits <= self.tiny_bits or (depth <= self.max_depth and bits <= self.max_bits)


@dataclass(frozen=True, slots=True)
class OnChipMemory:
    """What one memory takes: blocks (halves for BRAM36) or LUTs."""

    blocks: float
    luts: int


def memory_for(
    width_bits: int, depth: int, kind: str = "BRAM36", rule: LutRamRule | None = None, *, dual_port: bool = False
) -> OnChipMemory:
    """Blocks or LUTs, whichever `rule` says. LUT RAM has one write port, so a dual-port memory always takes blocks."""
    if not dual_port and (rule or LutRamRule()).applies(width_bits, depth):
        return OnChipMemory(0.0, luts_for(width_bits, depth, kind))
    return OnChipMemory(blocks_for(width_bits, depth, kind, dual_port=dual_port).blocks, 0)


def total_of(memories: Iterable[tuple[int, OnChipMemory]]) -> OnChipMemory:
    """Sum over (how many, memory). Halves of BRAM36 are paired, as a tool's "Block RAM Tile" line does."""
    blocks, luts = 0.0, 0
    for count, memory in memories:
        blocks += count * memory.blocks
        luts += count * memory.luts
    return OnChipMemory(blocks, luts)
