"""WG and UPDATE: gradients of a set of kernels, over all pixels and micro-batches, then the update that drains them.

A tile holds the gradients of some output channels of each group and as many columns as half of the gradient memory takes.
While it is updated, the next tile fills the other half.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.context import ALL_PES, Context, after_loads, bounds, load_kernels, rectangle_fields
from fixgrad.compiler.geometry import tile_spans
from fixgrad.compiler.inputs import Inputs
from fixgrad.compiler.kernels import Chunk, cut, row_chunk
from fixgrad.compiler.layout import BIAS_BYTES, ELEMENT_BYTES, stored_bytes
from fixgrad.compiler.map_phase import WG_MODE, compute_geometry
from fixgrad.compiler.resources import Half, Waits
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.stream import Label
from fixgrad.compiler.tiling import Rectangle, Tiling, read_rectangle, rectangle_taps
from fixgrad.machine.instructions import Unit
from fixgrad.network import Recipe

Ints = NDArray[np.int64]


class Update(NamedTuple):
    """Consecutive parameters: kernels [start, start + count) of the layer, from gradient `gradient` of queue `queue` on."""

    queue: int
    start: int
    count: int
    gradient: int


class Place(NamedTuple):
    """The rectangles of one (micro-batch, tile of error pixels)."""

    micro_batch: int
    errors: tuple[Rectangle, ...]
    inputs: tuple[Rectangle, ...]
    taps: tuple[int, ...]

    @property
    def slot(self) -> int:
        """Words of an error channel in the lane memories."""
        return max(item.pixels for item in self.errors)

    @property
    def input_slot(self) -> int:
        """Words of an input channel in the input buffers."""
        return max(item.pixels for item in self.inputs)


@dataclass
class WeightPhase:
    """The lowering of WG and UPDATE of one stage."""

    context: Context
    stage: Stage
    tiling: Tiling
    recipe: Recipe

    def __post_init__(self) -> None:
        self.matrix = self.context.matrices[self.stage.index]
        self.queues = self.context.queue_count(self.tiling.split)
        self.label = Label(self.stage.name, "wg")
        source = self.stage.source
        self.inputs = Inputs(
            self.context,
            self.stage,
            self.label,
            f"activation/{source.name}",
            source,
            self.stage.source_pixels > 1,
            self.tiling.resident,
        )
        self.places = tuple(self._places())

    def lower(self) -> None:
        """Emit the whole phase: every tile of kernels, its update, and the update of the biases."""
        for rows in range(0, self.stage.layer.out_channels, self.queues * self.tiling.channels):
            counts = self.matrix.by_rows(rows, self.tiling.channels, self.queues)
            for tile in self._kernel_tiles(rows, counts):
                self._lower_tile(rows, tile)
        if self.stage.layer.bias:
            self._update_biases()

    def _places(self) -> Iterator[Place]:
        axes, stage = (self.stage.rows, self.stage.columns), self.stage
        rectangles = product(
            tile_spans(stage.rows.out_size, self.tiling.rows), tile_spans(stage.columns.out_size, self.tiling.columns)
        )
        for micro_batch, (rows, columns) in product(range(self.context.micro_batches), list(rectangles)):
            errors = self.tiling.split.rectangles(Rectangle(rows, columns))
            inputs = tuple(read_rectangle(axes, item, False) for item in errors)
            taps = tuple(rectangle_taps(axes, item, False, self.context.count_padding) for item in errors)
            yield Place(micro_batch, errors, inputs, taps)

    def _kernel_tiles(self, rows: int, counts: Ints) -> Iterator[list[Chunk]]:
        """Columns cut so that their gradients fit half of a gradient memory, and again into chunks."""
        size, capacity = self.tiling.channels, self.context.machine.half_gradient_words
        everything = counts.shape[1]
        for first, last in cut(counts * self.stage.taps, everything, capacity, everything):
            limit, period = self.context.chunk_queue_words(1), self.stage.source.channels
            yield [
                row_chunk(self.matrix, rows, size, counts[:, low:high].sum(axis=1), low, high)
                for low, high in _cut_within(counts, (first, last), self.tiling.chunk, limit, period)
            ]

    def _lower_tile(self, rows: int, chunks: Sequence[Chunk]) -> None:
        context, machine = self.context, self.context.machine
        half = context.gradients.turn()
        free = context.gradients.halves[half].uses
        base = half * machine.half_gradient_words
        for number, place in enumerate(self.places):
            lane_base, held = self._load_errors(rows, place)
            for position, chunk in enumerate(chunks):
                first = number == 0 and position == 0
                fields = {"clear": int(first), "number_on": int(position > 0), "gradient_base": base, "lane_base": lane_base}
                self._compute(place, chunk, fields, free if first else Waits())
            for item in held:
                item.uses = Waits(compute=context.stream.issued(Unit.COMPUTE))
        context.gradients.halves[half].uses = self._update(_updates(chunks), base)

    def _load_errors(self, rows: int, place: Place) -> tuple[int, tuple[Half, ...]]:
        """Bring the errors of a place into the lane memories, unless they are there: the first word, and where they are."""
        context, lanes = self.context, self.context.lanes
        key = (self.stage.name, rows, place.micro_batch, place.errors)
        size = context.machine.half_lane_words
        whole = self.tiling.channels * max(item.slot for item in self.places) > size
        for number, half in enumerate(lanes.halves):
            if half.holds == key:
                return number * size, lanes.halves if whole else (half,)
        number = 0 if whole else lanes.turn()
        taken = lanes.halves if whole else (lanes.halves[number],)
        self._emit_errors(rows, place, number * size, Waits().join(*(half.uses for half in taken)))
        lanes.halves[number].holds = key
        return number * size, taken

    def _emit_errors(self, rows: int, place: Place, base: int, free: Waits) -> None:
        context, tiling, error = self.context, self.tiling, self.stage.error
        total = min(self.queues * tiling.channels, error.channels - rows)
        span = bounds(place.errors).rows
        region = f"error/{self.stage.name}"
        ready = context.ready_map(region, error).reading(
            place.micro_batch, slice(rows, rows + total), slice(span.first, span.last)
        )
        fields = {
            "source": context.map_address(region, error, place.micro_batch, rows),
            "channels": tiling.channels,
            "total_channels": total,
            "channel_words": error.pixels,
            "row_words": error.columns,
            "channel_split": int(tiling.split.channels > 1),
            "lane_base": base,
            "slot_words": place.slot,
            **rectangle_fields("out", place.errors),
        }
        context.stream.emit("LOAD_ERROR", self.label, self.stage.index, free.join(ready), fields)

    def _compute(self, place: Place, chunk: Chunk, fields: dict[str, int], free: Waits) -> None:
        context = self.context
        load_kernels(context, self.stage, self.label, chunk, self.tiling.split, transposed=False)
        buffer = self.inputs.bring(place.micro_batch, place.inputs, place.input_slot, chunk.first, chunk.last)
        shared = {
            "mode": WG_MODE,
            "buffer": buffer,
            "slot_words": place.input_slot,
            "lane_slot_words": place.slot,
            **compute_geometry(self.stage, transposed=False),
            "count_padding": int(context.count_padding),
            "statistics": context.layout.registers[f"update/{self.stage.name}.weight"],
            **rectangle_fields("in", place.inputs),
            **rectangle_fields("out", place.errors),
        }
        waits = after_loads(context).join(free)
        context.stream.emit("COMPUTE", self.label, self.stage.index, waits, {**shared, **fields})
        context.stream.kernel_counts.append(context.per_pe(chunk.counts))
        context.stream.taps.append(place.taps)

    def _update(self, updates: Sequence[Update], base: int) -> Waits:
        """UPDATEs of a tile, as many in every group; returns what has used its half of the gradient memories."""
        context, split = self.context, self.tiling.split
        by_group: list[list[Update]] = [[] for _ in range(context.machine.groups)]
        for update in updates:
            by_group[update.queue // split.channels].append(update)
        label = Label(self.stage.name, "update")
        param, loaded = context.use_param(f"update/{self.stage.name}.weight", label)
        waits = loaded.join(Waits(compute=context.stream.issued(Unit.COMPUTE)))
        for position in range(max(map(len, by_group), default=0)):
            for group, queue in enumerate(by_group):
                fields = {"group": group, "param": param}
                if position < len(queue):
                    fields.update(self._update_fields(queue[position], base))
                context.stream.emit("UPDATE", label, self.stage.index, waits, fields)
        return Waits(update=context.updates())

    def _update_fields(self, update: Update, base: int) -> dict[str, int]:
        stage, layout, recipe = self.stage, self.context.layout, self.recipe
        name, taps, split = stage.name, stage.taps, self.tiling.split
        wide, momentum = stored_bytes(recipe.stored_bits), stored_bytes(recipe.momentum_bits)
        return {
            "pe": update.queue % split.channels if split.channels > 1 else ALL_PES,
            "gradient_base": base + update.gradient * taps,
            "count": update.count * taps,
            "stored": layout.address(f"stored/{name}") + wide * taps * update.start,
            "momentum": layout.address(f"momentum/{name}") + momentum * taps * update.start,
            "operand": layout.address(f"operand/{name}") + taps * update.start,
            "element": layout.address(f"element/{name}") + ELEMENT_BYTES * update.start,
            "taps": taps,
            "stored_bytes": wide,
            "momentum_bytes": momentum,
            "operands": 1,
            "statistics": layout.registers[f"update/{name}.weight"],
        }

    def _update_biases(self) -> None:
        """Each group updates its share of the biases, from the sums that POST and LOSS left in memory."""
        context, name, outputs = self.context, self.stage.name, self.stage.layer.out_channels
        layout, share = context.layout, -(-outputs // context.machine.groups)
        entry, label = f"update/{name}.bias", Label(name, "update")
        param, loaded = context.use_param(entry, label)
        waits = loaded.join(Waits(post=context.stream.issued(Unit.POST)))
        for group in range(context.machine.groups):
            first = min(group * share, outputs)
            fields = {
                "group": group,
                "from_memory": 1,
                "count": min(share, outputs - first),
                "gradient_source": layout.address(f"bias_gradient/{name}") + BIAS_BYTES * first,
                "stored": layout.address(f"bias/{name}") + BIAS_BYTES * first,
                "momentum": layout.address(f"bias_momentum/{name}") + BIAS_BYTES * first,
                "element": layout.address(f"bias_element/{name}") + ELEMENT_BYTES * first,
                "taps": 1,
                "stored_bytes": BIAS_BYTES,
                "momentum_bytes": BIAS_BYTES,
                "param": param,
                "statistics": layout.registers[entry],
            }
            context.stream.emit("UPDATE", label, self.stage.index, waits, fields)


def _cut_within(counts: Ints, columns: tuple[int, int], most: int, limit: int, period: int) -> Iterator[tuple[int, int]]:
    """`cut` of some of the columns only; periods count from column 0."""
    first, last = columns
    masked = counts.copy()
    masked[:, :first] = masked[:, last:] = 0
    yield from cut(masked, most, limit, period)


def _updates(chunks: Sequence[Chunk]) -> list[Update]:
    """The entries of a tile as runs that are consecutive both in memory and in the gradients of their queue."""
    found: dict[int, list[Update]] = {}
    filled: dict[int, int] = {}
    for chunk in chunks:
        for load in chunk.loads:
            runs, gradient = found.setdefault(load.queue, []), filled.get(load.queue, 0)
            if runs and runs[-1].start + runs[-1].count == load.start:
                runs[-1] = runs[-1]._replace(count=runs[-1].count + load.count)
            else:
                runs.append(Update(load.queue, load.start, load.count, gradient))
            filled[load.queue] = gradient + load.count
    return [update for runs in found.values() for update in runs]
