"""Random geometry for random programs: a convolution, a rectangle of it, and how the PEs of a group share the rectangle."""

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import NamedTuple

from fixgrad.machine.parameters import MAX_PES_PER_GROUP, TAPS_PER_WORD, Machine

FF, NG, WG = 0, 1, 2
_TRIES = 200


class Rectangle(NamedTuple):
    """Pixels [top, bottom) x [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def pixels(self) -> int:
        return max(self.bottom - self.top, 0) * max(self.right - self.left, 0)


NOTHING = Rectangle(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Axis:
    """A convolution along rows or columns, as COMPUTE carries it; `size` is that of the layer's input."""

    size: int
    kernel: int
    stride: int
    pad: int
    dilation: int

    @property
    def out_size(self) -> int:
        """Size of the layer's output; below 1 if the kernel does not fit."""
        return (self.size + 2 * self.pad - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def read(self, first: int, last: int, transposed: bool) -> tuple[int, int]:
        """Pixels [low, high) that the computed pixels [first, last) read; equal if none."""
        size = self.out_size if transposed else self.size
        found = []
        for pixel in range(first, last):
            for tap in range(self.kernel):
                place, rest = self._meeting(pixel, tap, transposed)
                if rest == 0 and 0 <= place < size:
                    found.append(place)
        return (min(found), max(found) + 1) if found else (0, 0)

    def _meeting(self, pixel: int, tap: int, transposed: bool) -> tuple[int, int]:
        if transposed:
            return divmod(pixel + self.pad - tap * self.dilation, self.stride)
        return pixel * self.stride + tap * self.dilation - self.pad, 0


@dataclass(frozen=True, slots=True)
class Tile:
    """What one tile of FF, NG or WG computes.

    Attributes:
        mode: FF, NG or WG.
        rows, columns: the convolution.
        pool: window behind FF or before NG; (1, 1) for none.
        channel_split: whether the PEs of a group take different channels.
        whole: the rectangle of computed pixels.
        computed, held: what each PE computes of it, and the pixels that it reads for that.
        slot, held_slot: words from one channel to the next in the lane memories and the input buffers.
        channels: computed channels of each queue. `total` of all together; the last queues may have fewer.
        inputs: read channels.
        kernels: live kernels of each queue: distinct (computed channel of the queue, read channel).
    """

    mode: int
    rows: Axis
    columns: Axis
    pool: tuple[int, int]
    channel_split: bool
    whole: Rectangle
    computed: tuple[Rectangle, ...]
    held: tuple[Rectangle, ...]
    slot: int
    held_slot: int
    channels: int
    total: int
    inputs: int
    kernels: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def transposed(self) -> bool:
        return self.mode == NG

    @property
    def taps(self) -> int:
        """Weights of a kernel."""
        return self.rows.kernel * self.columns.kernel

    @property
    def entry_words(self) -> int:
        """Queue words of a kernel."""
        return 1 if self.mode == WG else -(-self.taps // TAPS_PER_WORD)

    @property
    def computed_size(self) -> tuple[int, int]:
        """Rows and columns of the whole computed map (WG: of the errors)."""
        axes = (self.rows, self.columns)
        return axes[0].size if self.transposed else axes[0].out_size, axes[1].size if self.transposed else axes[1].out_size

    @property
    def held_size(self) -> tuple[int, int]:
        """Rows and columns of the whole map that is read."""
        axes = (self.rows, self.columns)
        return axes[0].out_size if self.transposed else axes[0].size, axes[1].out_size if self.transposed else axes[1].size

    def geometry(self) -> dict[str, int]:
        """The fields of COMPUTE that describe the convolution."""
        fields = {"in_rows": self.held_size[0], "in_columns": self.held_size[1]}
        for name, axis in (("rows", self.rows), ("columns", self.columns)):
            fields |= {f"kernel_{name}": axis.kernel, f"stride_{name}": axis.stride}
            fields |= {f"pad_{name}": axis.pad, f"dilation_{name}": axis.dilation}
        return fields


def rectangle_fields(prefix: str, rectangles: tuple[Rectangle, ...]) -> dict[str, int]:
    """The fields of the rectangles of a group's PEs."""
    fields = {}
    for pe in range(MAX_PES_PER_GROUP):
        rectangle = rectangles[pe] if pe < len(rectangles) else NOTHING
        for side, value in zip(("top", "bottom", "left", "right"), rectangle, strict=True):
            fields[f"{prefix}{pe}_{side}"] = value
    return fields


def random_tile(machine: Machine, random: Random, mode: int) -> Tile:
    """A tile that fits the machine's memories: the first of random ones that does, of ever smaller maps."""
    for attempt in range(_TRIES):
        tile = _try_tile(machine, random, mode, largest=max(1, 7 - attempt // 10))
        if tile is not None:
            return tile
    raise AssertionError(f"no tile fits {machine.name}")  # a single pixel of a single channel always does


def _try_tile(machine: Machine, random: Random, mode: int, largest: int) -> Tile | None:
    rows, columns = (_random_axis(random, largest) for _ in range(2))
    if min(rows.out_size, columns.out_size) < 1:
        return None
    transposed = mode == NG
    size = (rows.size, columns.size) if transposed else (rows.out_size, columns.out_size)
    pool = random.choice(((1, 1), (2, 2), (2, 1), (3, 2))) if mode != WG else (1, 1)
    if mode == FF and (size[0] < pool[0] or size[1] < pool[1]):
        return None
    whole = _random_rectangle(random, size, pool if mode == FF else (1, 1))
    split = machine.pes_per_group > 1 and random.random() < 0.3
    computed = (whole,) * machine.pes_per_group if split else _shared(random, whole, machine.pes_per_group)
    held = tuple(_read(rows, columns, rectangle, transposed) for rectangle in computed)
    slot, held_slot = (max(item.pixels for item in side) + random.randint(0, 1) for side in (computed, held))
    queues = machine.groups * (machine.pes_per_group if split else 1)
    channels, inputs = random.randint(1, 4), random.randint(1, 4)
    if channels * slot > machine.half_lane_words or inputs * held_slot > machine.input_words:
        return None
    total = random.randint(1, queues * channels) if random.random() < 0.5 else queues * channels
    taps = rows.kernel * columns.kernel
    room = machine.half_gradient_words // taps if mode == WG else (machine.kernel_words - 1) // -(-taps // TAPS_PER_WORD)
    most = min(room, machine.kernel_words - 1)
    if most < 1:
        return None
    kernels = tuple(_random_kernels(random, min(channels, max(total - q * channels, 0)), inputs, most) for q in range(queues))
    return Tile(mode, rows, columns, pool, split, whole, computed, held, slot, held_slot, channels, total, inputs, kernels)


def _random_axis(random: Random, largest: int) -> Axis:
    kernel, dilation = random.choice((1, 2, 3, 3, 3, 4)), random.choice((1, 1, 1, 2))
    return Axis(random.randint(1, largest), kernel, random.choice((1, 1, 2, 3)), random.randint(0, min(kernel, 3)), dilation)


def _random_rectangle(random: Random, size: tuple[int, int], step: tuple[int, int]) -> Rectangle:
    """A rectangle of whole windows, or up to the end of the map where the last ones may be incomplete."""
    spans = []
    for extent, window in zip(size, step, strict=True):
        windows = max(extent // window, 1)
        first = random.randint(0, windows - 1)
        last = random.randint(first + 1, windows)
        spans.append((first * window, extent if last == windows else last * window))
    (top, bottom), (left, right) = spans
    return Rectangle(top, bottom, left, right)


def _shared(random: Random, whole: Rectangle, pes: int) -> tuple[Rectangle, ...]:
    """The rectangle cut into one part for each PE, row by row of parts."""
    down = random.choice([parts for parts in (1, 2, 4) if pes % parts == 0])
    rows, columns = _cut(whole.top, whole.bottom, down), _cut(whole.left, whole.right, pes // down)
    parts = (Rectangle(*row, *column) for row in rows for column in columns)
    return tuple(part if part.pixels else NOTHING for part in parts)


def _cut(first: int, last: int, parts: int) -> list[tuple[int, int]]:
    """A span in nearly equal parts, the larger ones first."""
    size, rest = divmod(last - first, parts)
    edges = [first]
    for part in range(parts):
        edges.append(edges[-1] + size + (part < rest))
    return list(pairwise(edges))


def _read(rows: Axis, columns: Axis, rectangle: Rectangle, transposed: bool) -> Rectangle:
    if not rectangle.pixels:
        return NOTHING
    found = Rectangle(
        *rows.read(rectangle.top, rectangle.bottom, transposed), *columns.read(rectangle.left, rectangle.right, transposed)
    )
    return found if found.pixels else NOTHING


def _random_kernels(random: Random, channels: int, inputs: int, most: int) -> tuple[tuple[int, int], ...]:
    places = [(out, channel) for out in range(channels) for channel in range(inputs)]
    return tuple(random.sample(places, random.randint(0, min(len(places), most))))
