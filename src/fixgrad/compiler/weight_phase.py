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

from fixgrad.compiler.context import (
    ALL_PES,
    Context,
    after_loads,
    bounds,
    load_kernels,
    prepare,
    rectangle_fields,
)
from fixgrad.compiler.geometry import tile_spans
from fixgrad.compiler.inputs import Inputs
from fixgrad.compiler.kernels import Runs, TileKernels, cut, row_kernels
from fixgrad.compiler.layout import BIAS_BYTES, ELEMENT_BYTES, stored_bytes
from fixgrad.compiler.patch import WG_MODE, Patch, Patches, emit_compute
from fixgrad.compiler.resources import Half, Waits
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.stream import Label, Template
from fixgrad.compiler.tiling import Rectangle, Tiling
from fixgrad.machine.instructions import Unit
from fixgrad.network import Recipe

Ints = NDArray[np.int64]


class Update(NamedTuple):
    """Consecutive parameters: kernels [start, start + kernels) of the layer, from gradient `gradient` of queue `queue` on."""

    queue: int
    start: int
    kernels: int
    gradient: int


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
        register = self.context.layout.registers[f"update/{self.stage.name}.weight"]
        self._maker = Patches(self.context, self.stage, self.label, self.tiling.split, WG_MODE, register)
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

    def _lower_tile(self, rows: int, tile: TileKernels) -> None:
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
            for item in held:
                item.uses = Waits(compute=context.stream.issued(Unit.COMPUTE))
        context.gradients.halves[half].uses = self._update(_updates(tile.runs), base)

    def _load_errors(self, rows: int, place: Place) -> tuple[int, tuple[Half, ...]]:
        """Bring the errors of a place into the lane memories, unless they are there: the first word, and where they are."""
        context, lanes = self.context, self.context.lanes
        key = (self.stage.name, rows, place.micro_batch, place.patch.computed)
        size = context.machine.half_lane_words
        whole = self.tiling.channels * max(item.patch.slot for item in self.places) > size
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
        region = f"error/{self.stage.name}"
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
                    fields |= self._update_fields(queue[position], base)
                context.stream.emit("UPDATE", label, self.stage.index, waits, fields)
        return Waits(update=context.updates())

    def _update_fields(self, update: Update, base: int) -> dict[str, int]:
        stage, layout, recipe = self.stage, self.context.layout, self.recipe
        name, taps, split = stage.name, stage.taps, self.tiling.split
        wide, momentum = stored_bytes(recipe.stored_bits), stored_bytes(recipe.momentum_bits)
        return {
            "pe": update.queue % split.channels if split.channels > 1 else ALL_PES,
            "gradient_base": base + update.gradient * taps,
            "count": update.kernels * taps,
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


def _updates(runs: Runs) -> list[Update]:
    """The entries of a tile as runs that are consecutive both in memory and in the gradients of their queue."""
    found: dict[int, list[Update]] = {}
    for queue, start, entries in zip(runs.queue.tolist(), runs.start.tolist(), runs.entries.tolist(), strict=True):
        taken = found.setdefault(queue, [])
        last = taken[-1] if taken else Update(queue, start, 0, 0)
        if last.start + last.kernels == start:
            taken[-1:] = [last._replace(kernels=last.kernels + entries)]
        else:
            taken.append(Update(queue, start, entries, last.gradient + last.kernels))
    return [update for taken in found.values() for update in taken]
