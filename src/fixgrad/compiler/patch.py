"""A tile's pixels: what each PE of a group computes and reads of them, and the COMPUTE that does it."""

from dataclasses import dataclass
from typing import NamedTuple

from fixgrad.compiler.context import Context, Work, rectangle_fields
from fixgrad.compiler.resources import Waits
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.stream import Label, Template
from fixgrad.compiler.tiling import Rectangle, Split, read_rectangle, rectangle_taps

#: Values of the field `mode` of COMPUTE and POST.
FF_MODE, NG_MODE, WG_MODE = 0, 1, 2


class Patch(NamedTuple):
    """The rectangles of a tile.

    Attributes:
        computed: what each PE computes (WG: the errors that it takes).
        reads: the input pixels that it needs for that.
        taps: its (pixel, tap) pairs: cycles of a kernel.
        slot, read_slot: words of a channel in lane memories and input buffers.
        compute: the COMPUTE, without what differs from chunk to chunk.
    """

    computed: tuple[Rectangle, ...]
    reads: tuple[Rectangle, ...]
    taps: tuple[int, ...]
    slot: int
    read_slot: int
    compute: Template


@dataclass(frozen=True, slots=True)
class Patches:
    """Makes the patches of one phase.

    Attributes:
        register: range register whose overflow flag COMPUTE sets.
    """

    context: Context
    stage: Stage
    label: Label
    split: Split
    mode: int
    register: int

    def make(self, tile: Rectangle) -> Patch:
        """The patch of a tile of computed pixels."""
        transposed = self.mode == NG_MODE
        axes = self.stage.rows, self.stage.columns
        computed = self.split.rectangles(tile)
        reads = tuple(read_rectangle(axes, item, transposed) for item in computed)
        slot, read_slot = max(item.pixels for item in computed), max(item.pixels for item in reads)
        fields = {
            "mode": self.mode,
            "slot_words": read_slot,
            "lane_slot_words": slot,
            **self._convolution(transposed),
            "count_padding": int(self.context.count_padding),
            "statistics": self.register,
            **rectangle_fields("in", reads),
            **rectangle_fields("out", computed),
        }
        return Patch(
            computed,
            reads,
            tuple(rectangle_taps(axes, item, transposed, self.context.count_padding) for item in computed),
            slot,
            read_slot,
            self.context.stream.template("COMPUTE", self.label, self.stage.index, fields),
        )

    def _convolution(self, transposed: bool) -> dict[str, int]:
        rows, columns = self.stage.rows, self.stage.columns
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


def emit_compute(context: Context, patch: Patch, work: Work, waits: Waits, added: dict[str, int]) -> None:
    """A COMPUTE over a patch with the kernels of a chunk."""
    context.stream.use(patch.compute, waits, added)
    context.stream.kernel_counts.append(work.counts)
    context.stream.taps.append(patch.taps)
