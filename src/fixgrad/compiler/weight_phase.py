"""WG and UPDATE: gradients of a set of kernels, over all pixels and micro-batches, then the update that drains them.

A tile holds the gradients of some output channels of each group and as many columns as half of the gradient memory takes.
While it is updated, the next tile fills the other half.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.context import (
    Context,
    after_loads,
    bounds,
    load_kernels,
    prepare,
    rectangle_fields,
)
from fixgrad.compiler.geometry import tile_spans
from fixgrad.compiler.inputs import Inputs
from fixgrad.compiler.kernels import TileKernels, cut, row_kernels
from fixgrad.compiler.patch import WG_MODE, Patch, Patches, emit_compute
from fixgrad.compiler.resources import Half, Waits
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.stream import Label, Template
from fixgrad.compiler.tiling import Rectangle, Tiling
from fixgrad.compiler.update_phase import ROUNDS_PER_CHUNK, Updates, update_biases
from fixgrad.machine.instructions import Unit
from fixgrad.network import Recipe

Ints = NDArray[np.int64]
#: Chunks of a place that are loaded before the errors of the next one: they keep the PEs busy meanwhile.
ERRORS_AFTER = 2


class Place(NamedTuple):
    """One (micro-batch, tile of error pixels), and the LOAD_ERROR of its patch."""

    micro_batch: int
    patch: Patch
    errors: Template


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
        register = self.context.register(f"update/{self.stage.name}.weight")
        self._maker = Patches(self.context, self.stage, self.label, self.tiling.split, WG_MODE, register)
        self.places = tuple(self._places())
        self.updates = Updates(self.context, self.stage, self.tiling.split, self.recipe)

    def lower(self) -> None:
        """Emit the whole phase: every tile of kernels, its update, and the update of the biases."""
        tiles = self._tiles()
        current = next(tiles, None)
        while current is not None:
            following = next(tiles, None)
            self._lower_tile(*current, None if following is None else following[0])
            current = following
        self.updates.issue()
        if self.stage.layer.bias:
            update_biases(self.context, self.stage)

    def _tiles(self) -> Iterator[tuple[int, TileKernels]]:
        """First row and kernels of every tile."""
        for rows in range(0, self.stage.layer.out_channels, self.queues * self.tiling.channels):
            counts = self.matrix.by_rows(rows, self.tiling.channels, self.queues)
            for tile in self._kernel_tiles(rows, counts):
                yield rows, tile

    def _places(self) -> Iterator[Place]:
        stage, tiling = self.stage, self.tiling
        spans = tile_spans(stage.rows.out_size, tiling.rows), tile_spans(stage.columns.out_size, tiling.columns)
        patches = [self._maker.make(Rectangle(*pair)) for pair in product(*spans)]
        errors = [self._error_template(patch) for patch in patches]
        for micro_batch in range(self.context.micro_batches):
            for patch, template in zip(patches, errors, strict=True):
                yield Place(micro_batch, patch, template)

    def _kernel_tiles(self, rows: int, counts: Ints) -> Iterator[TileKernels]:
        """Columns cut so that their gradients fit half of a gradient memory, and again into chunks."""
        everything = counts.shape[1]
        for columns in cut(counts * self.stage.taps, everything, self.context.machine.half_gradient_words, everything):
            yield row_kernels(
                self.matrix,
                rows,
                self.tiling.channels,
                counts,
                columns,
                most=self.tiling.chunk,
                limit=self.context.chunk_queue_words(1),
                period=self.stage.source.channels,
                words=1,
            )

    def _lower_tile(self, rows: int, tile: TileKernels, next_rows: int | None) -> None:
        context, machine = self.context, self.context.machine
        half = context.gradients.turn()
        free = context.gradients.halves[half].uses
        base = half * machine.half_gradient_words
        chunks = prepare(context, self.stage, self.label, tile, self.tiling.split, transposed=False)
        for number, place in enumerate(self.places):
            lane_base, held = self._load_errors(rows, place)
            for position, work in enumerate(chunks):
                first = number == 0 and position == 0
                load_kernels(context, work)
                patch, chunk = place.patch, work.chunk
                added = {
                    "clear": int(first),
                    "number_on": int(position > 0),
                    "gradient_base": base,
                    "lane_base": lane_base,
                    "buffer": self.inputs.bring(place.micro_batch, patch.reads, patch.read_slot, chunk.first, chunk.last),
                }
                emit_compute(context, patch, work, after_loads(context).join(free if first else Waits()), added)
                self.updates.issue(ROUNDS_PER_CHUNK)
                if position == min(ERRORS_AFTER, len(chunks)) - 1:
                    self._load_next_errors(rows, number, next_rows)
            for item in held:
                item.uses = Waits(compute=context.stream.issued(Unit.COMPUTE))
        self.updates.issue()
        context.gradients.halves[half].uses = self.updates.collect(tile.runs, base)

    def _load_next_errors(self, rows: int, number: int, next_rows: int | None) -> None:
        """Ask for the errors of the next place already, if there is a half for them."""
        last = number == len(self.places) - 1
        following = next_rows if last else rows
        if following is not None and not self._takes_both_halves:
            self._load_errors(following, self.places[0 if last else number + 1])

    @cached_property
    def _takes_both_halves(self) -> bool:
        return self.tiling.channels * max(item.patch.slot for item in self.places) > self.context.machine.half_lane_words

    def _load_errors(self, rows: int, place: Place) -> tuple[int, tuple[Half, ...]]:
        """Bring the errors of a place into the lane memories, unless they are there: the first word, and where they are."""
        context, lanes = self.context, self.context.lanes
        key = (self.stage.name, rows, place.micro_batch, place.patch.computed)
        size = context.machine.half_lane_words
        whole = self._takes_both_halves
        for number, half in enumerate(lanes.halves):
            if half.holds == key:
                return number * size, lanes.halves if whole else (half,)
        number = 0 if whole else lanes.turn()
        taken = lanes.halves if whole else (lanes.halves[number],)
        self._emit_errors(rows, place, number * size, Waits().join(*(half.uses for half in taken)))
        lanes.halves[number].holds = key
        return number * size, taken

    def _emit_errors(self, rows: int, place: Place, base: int, free: Waits) -> None:
        context, error = self.context, self.stage.error
        total = min(self.queues * self.tiling.channels, error.channels - rows)
        span = bounds(place.patch.computed).rows
        region = f"error/{self.stage.error.name}"
        ready = context.ready_map(region, error).reading(
            place.micro_batch, slice(rows, rows + total), slice(span.first, span.last)
        )
        added = {
            "source": context.map_address(region, error, place.micro_batch, rows),
            "total_channels": total,
            "lane_base": base,
        }
        context.stream.use(place.errors, free.join(ready), added)

    def _error_template(self, patch: Patch) -> Template:
        error, tiling = self.stage.error, self.tiling
        fields = {
            "channels": tiling.channels,
            "channel_words": error.pixels,
            "row_words": error.columns,
            "channel_split": int(tiling.split.channels > 1),
            "slot_words": patch.slot,
            **rectangle_fields("out", patch.computed),
        }
        return self.context.stream.template("LOAD_ERROR", self.label, self.stage.index, fields)
