"""ELEMENTWISE over whole maps, for every micro-batch and every run of channels.

Everything that such an instruction reads has been written by POST instructions before it, and POST takes its instructions in
order: beside the step table nothing has to be waited for.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.context import Context, after_loads
from fixgrad.compiler.geometry import tile_spans
from fixgrad.compiler.layout import ELEMENT_BYTES
from fixgrad.compiler.stages import FeatureMap
from fixgrad.compiler.stream import Label
from fixgrad.machine.elementwise_instructions import RECORD_BYTES

Ints = NDArray[np.int64]
#: Instructions that share a large map of an activation, so that the layer behind it begins when the first channels are there,
#: and words of a map from which on they do.
PARTS, LARGE_WORDS = 4, 2048
_PLAIN_WINDOW = {"kernel_rows": 1, "kernel_columns": 1, "stride_rows": 1, "stride_columns": 1}


class Stored(NamedTuple):
    """A map and the region that holds it."""

    region: str
    map: FeatureMap


def activation(item: FeatureMap) -> Stored:
    """An activation map in memory."""
    return Stored(f"activation/{item.name}", item)


def error(item: FeatureMap) -> Stored:
    """An error map in memory."""
    return Stored(f"error/{item.name}", item)


class Run(NamedTuple):
    """Consecutive channels of the result, and the first one of the operand that they are made from (-1: zeros)."""

    target: int
    source: int
    channels: int


@dataclass(frozen=True, slots=True)
class MapUse:
    """ELEMENTWISE over a whole map.

    Attributes:
        label, number: of the layer.
        entry: of the step table. `register` is the range register's name; None where codes are passed on.
        target: what is made.
        first, second, mask: what is read.
        window: fields that say how `first` is windowed.
        fields: further ones that are the same for all channels and micro-batches.
        argmax: region with the places of maxima; `argmax_map` is the map that it lies like.
        record: region with the coefficients of each channel.
        random: region with the first random elements of an error.
        offset: the logical channel of `first` that makes channel c of the result is c - offset; None where maps share an order.
        partial: whether channels of the result that no channel of `first` makes are left alone; else they become zeros.
    """

    label: Label
    number: int
    entry: str
    register: str | None
    target: Stored
    first: Stored
    second: Stored | None = None
    mask: Stored | None = None
    window: dict[str, int] = field(default_factory=lambda: dict(_PLAIN_WINDOW))
    fields: dict[str, int] = field(default_factory=dict)
    argmax: str | None = None
    argmax_map: FeatureMap | None = None
    record: str | None = None
    random: str | None = None
    offset: int | None = None
    partial: bool = False

    def emit(self, context: Context) -> None:
        """Instructions for every micro-batch."""
        param, loaded = context.use_param(self.entry, self.label)
        if self.target.region.startswith("error/") and context.layout.shares_errors:
            # What lay there before may still be read.
            loaded = loaded.join(after_loads(context))
        shared = self._shared(context, param)
        runs = self._runs(context)
        ready = context.ready_map(*self.target)
        for micro_batch in range(context.micro_batches):
            for run in runs:
                fields = {**shared, **self._placed(context, micro_batch, run), "channels": run.channels}
                post = context.stream.emit("ELEMENTWISE", self.label, self.number, loaded, fields)
                ready.written(micro_batch, slice(run.target, run.target + run.channels), slice(None), post)

    def _shared(self, context: Context, param: int) -> dict[str, int]:
        target, first = self.target.map, self.first.map
        fields = {
            "factor": 1,
            **_strides("first", first),
            "first_wide": int(first.bits > 8),
            "first_rows": first.rows,
            "first_columns": first.columns,
            **self.window,
            "channel_words": target.pixels,
            "row_words": target.columns,
            "rows": target.rows,
            "columns": target.columns,
            "out_bits": target.bits,
            "param": param,
            "measured": int(self.register in context.layout.registers),
            "statistics": 0 if self.register is None else context.register(self.register),
            "per_channel": int(self.record is not None),
            "masked": int(self.mask is not None),
            **self.fields,
        }
        if self.second is not None:
            fields |= {**_strides("second", self.second.map), "second_wide": int(self.second.map.bits > 8)}
        if self.mask is not None:
            fields |= _strides("mask", self.mask.map)
        if self.random is not None:
            fields |= {"random_row": target.columns, "random_batch": context.batch}
        return fields

    def _placed(self, context: Context, micro_batch: int, run: Run) -> dict[str, int]:
        """Operands, addresses and lanes of one instruction."""

        def address(stored: Stored, channel: int) -> int:
            return context.map_address(stored.region, stored.map, micro_batch, channel, stored.map.bits)

        fields = {"target": address(self.target, run.target), "images": context.images(micro_batch)}
        if run.source < 0:
            return fields
        fields |= {"operands": 1 + (self.second is not None), "first": address(self.first, run.source)}
        if self.second is not None:
            fields["second"] = address(self.second, run.target)
        if self.mask is not None:
            fields["mask"] = address(self.mask, run.target)
        if self.argmax is not None and self.argmax_map is not None:
            fields["argmax"] = context.map_address(self.argmax, self.argmax_map, micro_batch, run.target)
        if self.record is not None:
            fields["record"] = context.layout.address(self.record) + RECORD_BYTES * run.target
        if self.random is not None:
            fields["element"] = context.layout.address(self.random) + ELEMENT_BYTES * run.target
            fields["random_image"] = micro_batch * context.machine.lanes
        return fields

    def _runs(self, context: Context) -> list[Run]:
        target, first = self.target.map, self.first.map
        if self.offset is None:
            is_large = self.target.region.startswith("activation/") and target.words >= LARGE_WORDS
            spans = tile_spans(target.channels, -(-target.channels // PARTS) if is_large else target.channels)
            return [Run(span.first, span.first, span.size) for span in spans]
        place = np.full(target.channels + first.channels + abs(self.offset), -1)
        place[context.order(first)] = np.arange(first.channels)
        logical = context.order(target) - self.offset
        sources = np.where((logical >= 0) & (logical < first.channels), place[logical], -1)
        return [run for run in runs_of(sources) if run.source >= 0 or not self.partial]


def runs_of(sources: Ints) -> list[Run]:
    """Channels in runs that are consecutive in the operand, too, or all without one (-1)."""
    steps = np.diff(sources)
    goes_on = np.where(sources[1:] < 0, sources[:-1] < 0, (steps == 1) & (sources[:-1] >= 0))
    starts = [0, *(np.flatnonzero(~goes_on) + 1).tolist(), len(sources)]
    return [Run(first, int(sources[first]), last - first) for first, last in pairwise(starts)]


def _strides(prefix: str, item: FeatureMap) -> dict[str, int]:
    return {f"{prefix}_channel_words": item.pixels, f"{prefix}_row_words": item.columns}
