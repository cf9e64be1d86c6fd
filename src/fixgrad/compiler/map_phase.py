"""FF and NG: accumulate a tile of output channels and pixels over all input channels, then drain it.

The two are one algorithm. FF computes the pixels of a layer's output from its source and walks CSB block rows; NG computes
the pixels of the source's error from the output's error and walks the same blocks by columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, NamedTuple

import numpy as np

from fixgrad.compiler.context import Context, after_loads, load_kernels, rectangle_fields
from fixgrad.compiler.geometry import Span, tile_spans
from fixgrad.compiler.inputs import Inputs
from fixgrad.compiler.kernels import Chunk, column_chunks, entry_words, row_chunks
from fixgrad.compiler.layout import BIAS_BYTES, ELEMENT_BYTES
from fixgrad.compiler.resources import MapReady, Waits
from fixgrad.compiler.stages import FeatureMap, Stage
from fixgrad.compiler.stream import Label
from fixgrad.compiler.tiling import Rectangle, Tiling, read_rectangle, rectangle_taps
from fixgrad.machine.instructions import Unit

#: Values of the field `mode` of COMPUTE and POST.
FF_MODE, NG_MODE, WG_MODE = 0, 1, 2
_UNIT_PIXEL = Rectangle(Span(0, 1), Span(0, 1))


class Tile(NamedTuple):
    """One accumulation: output channels from `first` on, a rectangle of pixels, one micro-batch.

    `first` counts columns of the matrix in NG of a linear layer: (pixel, channel).
    """

    first: int
    rectangle: Rectangle
    micro_batch: int


@dataclass
class MapPhase(ABC):
    """The lowering of FF or NG of one stage."""

    context: Context
    stage: Stage
    tiling: Tiling

    def __post_init__(self) -> None:
        self.matrix = self.context.matrices[self.stage.index]
        self.queues = self.context.queue_count(self.tiling.split)
        self.axes = (self.stage.rows, self.stage.columns)
        self.label = Label(self.stage.name, self.phase)
        by_pixel = self.stage.source_pixels > 1 and not self.transposed
        self.inputs = Inputs(
            self.context, self.stage, self.label, self.read_region, self.read, by_pixel, self.tiling.resident
        )

    phase: ClassVar[str]
    mode: ClassVar[int]
    transposed: ClassVar[bool]

    @property
    @abstractmethod
    def computed(self) -> FeatureMap:
        """The map whose pixels are computed, before pooling forward or backward."""

    @property
    @abstractmethod
    def read(self) -> FeatureMap:
        """The map that is read."""

    @property
    @abstractmethod
    def read_region(self) -> str:
        """Its region."""

    @abstractmethod
    def chunks(self, first: int) -> list[Chunk]:
        """The work of the tiles whose channels begin at `first`."""

    @abstractmethod
    def post_fields(self, tile: Tile, channels: int) -> dict[str, int]:
        """What only this phase tells POST."""

    @abstractmethod
    def mark_written(self, tile: Tile, channels: int, post: int) -> None:
        """Note that POST number `post` stores the tile."""

    def lower(self) -> None:
        """Emit the whole phase."""
        chunks: dict[int, list[Chunk]] = {}
        for tile in self.tiles():
            if tile.first not in chunks:
                if not self.tiling.resident:
                    chunks.clear()
                chunks[tile.first] = self.chunks(tile.first)
            self._lower_tile(tile, chunks[tile.first])

    def tiles(self) -> Iterator[Tile]:
        """All tiles, in the order of the loops that the tiling says."""
        step = self.queues * self.tiling.channels
        firsts = range(0, self.computed.channels, step)
        batches = range(self.context.micro_batches)
        rectangles = [
            Rectangle(rows, columns)
            for rows in tile_spans(self.computed.rows, self.tiling.rows)
            for columns in tile_spans(self.computed.columns, self.tiling.columns)
        ]
        if self.tiling.resident:
            for micro_batch, rectangle, first in product(batches, rectangles, firsts):
                yield Tile(first, rectangle, micro_batch)
        else:
            for first, micro_batch, rectangle in product(firsts, batches, rectangles):
                yield Tile(first, rectangle, micro_batch)

    def channel(self, tile: Tile) -> int:
        """First channel of the tile in its map."""
        return tile.first % self.computed.channels

    def _lower_tile(self, tile: Tile, chunks: list[Chunk]) -> None:
        context, tiling = self.context, self.tiling
        half = context.lanes.turn()
        base = half * context.machine.half_lane_words
        free = context.lanes.halves[half].uses
        geometry = self._geometry(tile)
        for number, chunk in enumerate(chunks or [self._nothing()]):
            fields = {"clear": int(number == 0), "lane_base": base, "buffer": self._load(tile, chunk, geometry)}
            self._compute(chunk, geometry, fields, free if number == 0 else Waits())
        computes = context.stream.issued(Unit.COMPUTE)
        channels = min(self.queues * tiling.channels, self.computed.channels - self.channel(tile))
        fields = {"lane_base": base, "lane_slot_words": geometry.slot, **self.post_fields(tile, channels)}
        post = self._post(tile, channels, fields, Waits(compute=computes))
        context.lanes.halves[half].uses = Waits(compute=computes, post=post)
        context.lanes.halves[half].holds = None
        self.mark_written(tile, channels, post)

    def _geometry(self, tile: Tile) -> "_Geometry":
        computed = self.tiling.split.rectangles(self._compute_rectangle(tile))
        reads = [read_rectangle(self.axes, item, self.transposed) for item in computed]
        return _Geometry(
            computed=computed,
            reads=tuple(reads),
            taps=tuple(rectangle_taps(self.axes, item, self.transposed, self.context.count_padding) for item in computed),
            slot=max(item.pixels for item in computed),
            read_slot=max(item.pixels for item in reads),
        )

    def _compute_rectangle(self, tile: Tile) -> Rectangle:
        """The tile as COMPUTE sees it: a linear layer knows one pixel only."""
        return tile.rectangle if self.stage.source_pixels == 1 else _UNIT_PIXEL

    def _nothing(self) -> Chunk:
        """A chunk without kernels: it only clears the accumulators of channels that nothing is connected to."""
        return Chunk(0, 0, (), np.zeros(self.queues, np.int64))

    def _load(self, tile: Tile, chunk: Chunk, geometry: "_Geometry") -> int:
        """Bring in kernels and inputs of a chunk; returns the first word of its inputs."""
        load_kernels(self.context, self.stage, self.label, chunk, self.tiling.split, transposed=self.transposed)
        return self.inputs.bring(tile.micro_batch, geometry.reads, geometry.read_slot, chunk.first, chunk.last)

    def _compute(self, chunk: Chunk, geometry: "_Geometry", fields: dict[str, int], free: Waits) -> None:
        context = self.context
        waits = after_loads(context).join(free)
        shared = {
            "mode": self.mode,
            "slot_words": geometry.read_slot,
            "lane_slot_words": geometry.slot,
            **compute_geometry(self.stage, self.transposed),
            "count_padding": int(context.count_padding),
            "statistics": context.layout.registers.get(f"{self.phase}/{self.stage.name}", 0),
            **rectangle_fields("in", geometry.reads),
            **rectangle_fields("out", geometry.computed),
        }
        context.stream.emit("COMPUTE", self.label, self.stage.index, waits, {**shared, **fields})
        context.stream.kernel_counts.append(context.per_pe(chunk.counts))
        context.stream.taps.append(geometry.taps)

    def _post(self, tile: Tile, channels: int, fields: dict[str, int], waits: Waits) -> int:
        context, tiling = self.context, self.tiling
        name = f"{self.phase}/{self.stage.name}"
        param, loaded = context.use_param(name, self.label)
        shared = {
            "mode": self.mode,
            "channels": tiling.channels,
            "total_channels": channels,
            "channel_split": int(tiling.split.channels > 1),
            "param": param,
            "images": context.images(tile.micro_batch),
            "statistics": context.layout.registers.get(name, 0),
            **rectangle_fields("out", tiling.split.rectangles(tile.rectangle)),
        }
        return context.stream.emit("POST", self.label, self.stage.index, waits.join(loaded), {**shared, **fields})


class _Geometry(NamedTuple):
    """The rectangles of a tile: what each PE computes and reads, its (pixel, tap) pairs, and words a channel."""

    computed: tuple[Rectangle, ...]
    reads: tuple[Rectangle, ...]
    taps: tuple[int, ...]
    slot: int
    read_slot: int


def compute_geometry(stage: Stage, transposed: bool) -> dict[str, int]:
    """The convolution as COMPUTE carries it."""
    rows, columns = stage.rows, stage.columns
    return {
        "kernel_rows": rows.kernel,
        "kernel_columns": columns.kernel,
        "stride_rows": rows.stride,
        "stride_columns": columns.stride,
        "pad_rows": rows.padding,
        "pad_columns": columns.padding,
        "dilation_rows": rows.dilation,
        "dilation_columns": columns.dilation,
        "in_rows": rows.out_size if transposed else rows.in_size,
        "in_columns": columns.out_size if transposed else columns.in_size,
    }


class ForwardPhase(MapPhase):
    """FF: y = W x."""

    phase, mode, transposed = "ff", FF_MODE, False

    @property
    def computed(self) -> FeatureMap:
        return self.stage.error

    @property
    def read(self) -> FeatureMap:
        return self.stage.source

    @property
    def read_region(self) -> str:
        return f"activation/{self.stage.source.name}"

    def chunks(self, first: int) -> list[Chunk]:
        words = entry_words(self.stage.taps, with_data=True)
        return row_chunks(
            self.matrix,
            first,
            self.tiling.channels,
            self.queues,
            most=self.tiling.chunk,
            limit=self.context.chunk_queue_words(words),
            period=self.stage.source.channels,
            words=words,
        )

    def post_fields(self, tile: Tile, channels: int) -> dict[str, int]:
        stage, context = self.stage, self.context
        target, layer = stage.target, stage.layer
        region = f"activation/{target.name}"
        fields = {
            "target": context.map_address(region, target, tile.micro_batch, tile.first, layer.out_bits),
            "channel_words": target.pixels,
            "row_words": target.columns,
            "rectify": int(stage.rectify),
            "pool_rows": stage.pool[0],
            "pool_columns": stage.pool[1],
            "out_bits": layer.out_bits,
            "with_bias": int(layer.bias),
        }
        if layer.bias:
            fields["bias"] = context.layout.address(f"bias/{stage.name}") + BIAS_BYTES * tile.first
        if stage.is_pooled and context.trains:
            fields["argmax"] = context.map_address(f"argmax/{stage.name}", target, tile.micro_batch, tile.first)
            fields["with_argmax"] = 1
        return fields

    def mark_written(self, tile: Tile, channels: int, post: int) -> None:
        target, pool = self.stage.target, self.stage.pool[0]
        rows = slice(tile.rectangle.rows.first // pool, -(-tile.rectangle.rows.last // pool))
        ready: MapReady = self.context.ready_map(f"activation/{target.name}", target)
        ready.written(tile.micro_batch, slice(tile.first, tile.first + channels), rows, post)


class NeuronGradientPhase(MapPhase):
    """NG: dx = W^T dy."""

    phase, mode, transposed = "ng", NG_MODE, True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.before = self.context.stages[self.stage.index - 1]

    @property
    def computed(self) -> FeatureMap:
        return self.stage.source

    @property
    def read(self) -> FeatureMap:
        return self.stage.error

    @property
    def read_region(self) -> str:
        return f"error/{self.stage.name}"

    def tiles(self) -> Iterator[Tile]:
        if self.stage.source_pixels == 1:
            yield from super().tiles()
            return
        # A linear layer: each pixel of the source is a column of its own for every channel.
        source, step = self.computed, self.queues * self.tiling.channels
        for row, column in product(range(source.rows), range(source.columns)):
            rectangle = Rectangle(Span(row, row + 1), Span(column, column + 1))
            base = (row * source.columns + column) * source.channels
            for first, micro_batch in product(range(0, source.channels, step), range(self.context.micro_batches)):
                yield Tile(base + first, rectangle, micro_batch)

    def chunks(self, first: int) -> list[Chunk]:
        channels = self.computed.channels
        last = min(first + self.queues * self.tiling.channels, (first // channels + 1) * channels)
        words = entry_words(self.stage.taps, with_data=True)
        return column_chunks(
            self.matrix,
            (first, last),
            self.tiling.channels,
            self.queues,
            most=self.tiling.chunk,
            limit=self.context.chunk_queue_words(words),
            words=words,
        )

    def post_fields(self, tile: Tile, channels: int) -> dict[str, int]:
        stage, before, context = self.stage, self.before, self.context
        source, channel, layout = stage.source, self.channel(tile), context.layout
        fields = {
            "target": context.map_address(f"error/{before.name}", before.error, tile.micro_batch, channel),
            "channel_words": before.error.pixels,
            "row_words": before.error.columns,
            "element": layout.address(f"random/{before.name}") + ELEMENT_BYTES * channel,
            "rectify": int(stage.masked),
            "pool_rows": before.pool[0],
            "pool_columns": before.pool[1],
            "out_bits": before.error.bits,
            "mask_channel_words": source.pixels,
            "mask_row_words": source.columns,
            "random_row": source.columns,
            "random_batch": context.batch,
            "random_image": tile.micro_batch * context.machine.lanes,
            "with_bias": int(before.layer.bias),
        }
        if stage.masked:
            fields["mask"] = context.map_address(f"activation/{source.name}", source, tile.micro_batch, channel)
        if before.is_pooled:
            fields["argmax"] = context.map_address(f"argmax/{before.name}", source, tile.micro_batch, channel)
        if before.layer.bias:
            fields["bias_gradient"] = layout.address(f"bias_gradient/{before.name}") + BIAS_BYTES * channel
        return fields

    def mark_written(self, tile: Tile, channels: int, post: int) -> None:
        before, channel = self.before, self.channel(tile)
        rows = slice(tile.rectangle.rows.first * before.pool[0], tile.rectangle.rows.last * before.pool[0])
        ready = self.context.ready_map(f"error/{before.name}", before.error)
        ready.written(tile.micro_batch, slice(channel, channel + channels), rows, post)

