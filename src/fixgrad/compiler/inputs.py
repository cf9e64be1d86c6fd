"""Inputs into the buffers: chunk by chunk through the ring, or all channels at once where they stay."""

from dataclasses import dataclass, field

from fixgrad.compiler.context import Context, bounds, rectangle_fields
from fixgrad.compiler.geometry import Span
from fixgrad.compiler.resources import Waits
from fixgrad.compiler.stages import FeatureMap, Stage
from fixgrad.compiler.stream import Label, Template
from fixgrad.compiler.tiling import Rectangle
from fixgrad.machine.instructions import Unit


@dataclass(slots=True)
class Inputs:
    """What a tile reads.

    Attributes:
        context, stage, label: of the phase.
        region, map: that it reads.
        by_pixel: whether each pixel of the map is a set of columns of its own (the source of a linear layer).
        resident: whether all columns are loaded at once and stay.
    """

    context: Context
    stage: Stage
    label: Label
    region: str
    map: FeatureMap
    by_pixel: bool
    resident: bool
    _templates: dict[tuple[tuple[Rectangle, ...], int], Template] = field(default_factory=dict)

    @property
    def columns(self) -> int:
        """Channels, or channels of every pixel."""
        return self.map.channels * (self.map.pixels if self.by_pixel else 1)

    def bring(self, micro_batch: int, rectangles: tuple[Rectangle, ...], slot: int, first: int, last: int) -> int:
        """Have columns [first, last) in the input buffers for the next COMPUTE.

        Args:
            rectangles: what each PE takes of a channel.
            slot: words of a channel in the buffers.

        Returns:
            The first word of column `first`.
        """
        if first == last or not slot:
            return 0
        ring = self.context.ring
        held = (0, self.columns) if self.resident else (first, last)
        key = (self.region, micro_batch, rectangles, held)
        start = ring.find(key)
        if start is None:
            start, free = ring.take((held[1] - held[0]) * slot, key)
            self._load(micro_batch, rectangles, slot, held, start, free)
        ring.used(key, self.context.stream.issued(Unit.COMPUTE) + 1)
        return start + (first - held[0]) * slot

    def _load(
        self, micro_batch: int, rectangles: tuple[Rectangle, ...], slot: int, columns: tuple[int, int], buffer: int, free: Waits
    ) -> None:
        if not self.by_pixel:
            self._emit(micro_batch, rectangles, slot, columns, buffer, free)
            return
        channels, first = self.map.channels, columns[0]
        while first < columns[1]:
            pixel = first // channels
            last = min(columns[1], (pixel + 1) * channels)
            row, column = divmod(pixel, self.map.columns)
            place = (Rectangle(Span(row, row + 1), Span(column, column + 1)),) * len(rectangles)
            span = first - pixel * channels, last - pixel * channels
            self._emit(micro_batch, place, slot, span, buffer + (first - columns[0]) * slot, free)
            first = last

    def _emit(
        self, micro_batch: int, rectangles: tuple[Rectangle, ...], slot: int, channels: tuple[int, int], buffer: int, free: Waits
    ) -> None:
        context, rows = self.context, bounds(rectangles).rows
        ready = context.ready_map(self.region, self.map).reading(micro_batch, slice(*channels), slice(rows.first, rows.last))
        added = {
            "source": context.map_address(self.region, self.map, micro_batch, channels[0]),
            "channels": channels[1] - channels[0],
            "buffer": buffer,
        }
        context.stream.use(self._template(rectangles, slot), free.join(ready), added)

    def _template(self, rectangles: tuple[Rectangle, ...], slot: int) -> Template:
        key = rectangles, slot
        if key not in self._templates:
            fields = {
                "channel_words": self.map.pixels,
                "row_words": self.map.columns,
                "slot_words": slot,
                **rectangle_fields("in", rectangles),
            }
            self._templates[key] = self.context.stream.template("LOAD_INPUT", self.label, self.stage.index, fields)
        return self._templates[key]
