"""FF and NG: accumulate a tile of output channels and pixels over all input channels, then drain it.

The two are one algorithm. FF computes the pixels of a layer's output from its source and walks CSB block rows; NG computes
the pixels of the source's error from the output's error and walks the same blocks by columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, NamedTuple

import numpy as np

from fixgrad.compiler.context import Context, Work, after_loads, load_kernels, prepare, rectangle_fields
from fixgrad.compiler.geometry import Span, tile_spans
from fixgrad.compiler.inputs import Inputs
from fixgrad.compiler.kernels import Chunk, TileKernels, column_kernels, entry_words, row_kernels
from fixgrad.compiler.layout import BIAS_BYTES, ELEMENT_BYTES
from fixgrad.compiler.patch import FF_MODE, NG_MODE, Patch, Patches, emit_compute
from fixgrad.compiler.resources import MapReady, Waits
from fixgrad.compiler.stages import FeatureMap, Stage
from fixgrad.compiler.stream import Label
from fixgrad.compiler.tiling import Rectangle, Tiling
from fixgrad.machine.instructions import Unit

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
        self.label = Label(self.stage.name, self.phase)
        by_pixel = self.stage.source_pixels > 1 and not self.transposed
        self.inputs = Inputs(
            self.context, self.stage, self.label, self.read_region, self.read, by_pixel, self.tiling.resident
        )
        register = self.context.register(f"{self.phase}/{self.stage.name}")
        self._maker = Patches(self.context, self.stage, self.label, self.tiling.split, self.mode, register)
        self._patches: dict[Rectangle, Patch] = {}

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
    def kernels(self, first: int) -> TileKernels:
        """The work of the tiles whose channels begin at `first`."""

    @abstractmethod
    def post_fields(self, tile: Tile, channels: int) -> dict[str, int]:
        """What only this phase tells POST."""

    @abstractmethod
    def mark_written(self, tile: Tile, channels: int, post: int) -> None:
        """Note that POST number `post` stores the tile."""

    def lower(self) -> None:
        """Emit the whole phase."""
        prepared: dict[int, list[Work]] = {}
        for tile in self.tiles():
            if tile.first not in prepared:
                if not self.tiling.resident:
                    prepared.clear()
                prepared[tile.first] = self._prepare(tile.first)
            self._lower_tile(tile, prepared[tile.first])

    def _prepare(self, first: int) -> list[Work]:
        kernels = self.kernels(first)
        if not kernels.chunks:
            # Nothing is connected to these channels: a chunk without kernels clears their accumulators.
            kernels = TileKernels([Chunk(0, 0, np.zeros(self.queues, np.int64))], kernels.runs)
        return prepare(self.context, self.stage, self.label, kernels, self.tiling.split, transposed=self.transposed)

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

    def _lower_tile(self, tile: Tile, chunks: Sequence[Work]) -> None:
        context, tiling = self.context, self.tiling
        half = context.lanes.turn()
        base = half * context.machine.half_lane_words
        free = context.lanes.halves[half].uses
        patch = self._patch(self._compute_rectangle(tile))
        for number, work in enumerate(chunks):
            load_kernels(context, work)
            chunk = work.chunk
            buffer = self.inputs.bring(tile.micro_batch, patch.reads, patch.read_slot, chunk.first, chunk.last)
            waits = after_loads(context).join(Waits() if number else free)
            emit_compute(context, patch, work, waits, {"clear": int(number == 0), "lane_base": base, "buffer": buffer})
        computes = context.stream.issued(Unit.COMPUTE)
        channels = min(self.queues * tiling.channels, self.computed.channels - self.channel(tile))
        fields = {"lane_base": base, "lane_slot_words": patch.slot, **self.post_fields(tile, channels)}
        post = self._post(tile, channels, fields, Waits(compute=computes))
        context.lanes.halves[half].uses = Waits(compute=computes, post=post)
        context.lanes.halves[half].holds = None
        self.mark_written(tile, channels, post)

    def _patch(self, rectangle: Rectangle) -> Patch:
        if rectangle not in self._patches:
            self._patches[rectangle] = self._maker.make(rectangle)
        return self._patches[rectangle]

    def _compute_rectangle(self, tile: Tile) -> Rectangle:
        """The tile as COMPUTE sees it: a linear layer knows one pixel only."""
        return tile.rectangle if self.stage.source_pixels == 1 else _UNIT_PIXEL

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
            "statistics": context.register(name),
            **rectangle_fields("out", tiling.split.rectangles(tile.rectangle)),
        }
        return context.stream.emit("POST", self.label, self.stage.index, waits.join(loaded), {**shared, **fields})


class ForwardPhase(MapPhase):
    """FF: y = W x."""

    phase, mode, transposed = "ff", FF_MODE, False

    @property
    def computed(self) -> FeatureMap:
        # The error of a stage may lie in another one's map, of the same shape.
        return self.stage.error

    @property
    def read(self) -> FeatureMap:
        return self.stage.source

    @property
    def read_region(self) -> str:
        return f"activation/{self.stage.source.name}"

    def kernels(self, first: int) -> TileKernels:
        words, size = entry_words(self.stage.taps, with_data=True), self.tiling.channels
        return row_kernels(
            self.matrix,
            first,
            size,
            self.matrix.by_rows(first, size, self.queues),
            (0, self.matrix.grid.cols),
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
        assert self.stage.sink is not None
        self.sink = self.stage.sink

    @property
    def computed(self) -> FeatureMap:
        return self.stage.source

    @property
    def read(self) -> FeatureMap:
        return self.stage.error

    @property
    def read_region(self) -> str:
        return f"error/{self.stage.error.name}"

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

    def kernels(self, first: int) -> TileKernels:
        channels = self.computed.channels
        last = min(first + self.queues * self.tiling.channels, (first // channels + 1) * channels)
        words = entry_words(self.stage.taps, with_data=True)
        return column_kernels(
            self.matrix,
            (first, last),
            self.tiling.channels,
            self.queues,
            most=self.tiling.chunk,
            limit=self.context.chunk_queue_words(words),
            words=words,
        )

    def post_fields(self, tile: Tile, channels: int) -> dict[str, int]:
        stage, sink, context = self.stage, self.sink, self.context
        source, channel, layout = stage.source, self.channel(tile), context.layout
        fields = {
            "target": context.map_address(f"error/{sink.map.name}", sink.map, tile.micro_batch, channel),
            "channel_words": sink.map.pixels,
            "row_words": sink.map.columns,
            "element": layout.address(sink.random) + ELEMENT_BYTES * channel,
            "rectify": int(sink.masked),
            "pool_rows": sink.pool[0],
            "pool_columns": sink.pool[1],
            "out_bits": sink.map.bits,
            "mask_channel_words": source.pixels,
            "mask_row_words": source.columns,
            "random_row": source.columns,
            "random_batch": context.batch,
            "random_image": tile.micro_batch * context.machine.lanes,
            "with_bias": int(sink.bias_gradient is not None),
        }
        if sink.masked:
            fields["mask"] = context.map_address(f"activation/{source.name}", source, tile.micro_batch, channel)
        if sink.argmax is not None:
            fields["argmax"] = context.map_address(sink.argmax, source, tile.micro_batch, channel)
        if sink.bias_gradient is not None:
            fields["bias_gradient"] = layout.address(sink.bias_gradient) + BIAS_BYTES * channel
        return fields

    def mark_written(self, tile: Tile, channels: int, post: int) -> None:
        sink, channel = self.sink, self.channel(tile)
        rows = slice(tile.rectangle.rows.first * sink.pool[0], tile.rectangle.rows.last * sink.pool[0])
        ready = self.context.ready_map(f"error/{sink.map.name}", sink.map)
        ready.written(tile.micro_batch, slice(channel, channel + channels), rows, post)

