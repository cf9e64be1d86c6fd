"""The table of `fixgrad inspect`."""

from collections.abc import Iterator

from rich import box
from rich.table import Table

from fixgrad.report.inspect_run import Inspection, LayerCheck, TensorCheck

#: What is printed of a tensor that has no scale of its own.
NONE = "-"


def inspection_table(found: Inspection) -> Table:
    """A row for each layer."""
    title = f"{found.path}: {found.network} after {found.epoch} epochs; ranges of {found.recorded} epochs, measured"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in ("layer", "kept %", "dead out/in", "max |w|", "free"):
        table.add_column(name, justify="left" if name == "layer" else "right")
    for kind in ("act.", "error"):
        for name in (f"{kind} sat. %", "worst", "2^", "free"):
            table.add_column(name, justify="right")
    table.add_column("WG free", justify="right")
    table.add_column("overflow")
    for layer in found.layers:
        table.add_row(layer.name, *_weights(layer), *_tensor(layer.activation), *_tensor(layer.error), *_last(layer))
    table.caption = (
        "sat.: share saturated in the last epoch, and in the worst step. 2^: all values below, least to most over the steps. "
        "free: bits never used of the stored range, of the accumulators."
    )
    table.caption_justify = "left"
    return table


def remark_lines(found: Inspection) -> Iterator[str]:
    """What is wrong, layer by layer; that nothing is, otherwise."""
    lines = [f"{layer.name}: {remark}" for layer in found.layers for remark in layer.remarks]
    if found.recorded == 0:
        lines.append("no ranges are recorded: no epoch is done, or an earlier version trained it")
    yield from lines or ["nothing to remark: no overflow, no dead layer, little saturation"]


def _weights(layer: LayerCheck) -> tuple[str, ...]:
    if layer.density is None:
        return (NONE,) * 4
    dead = f"{layer.dead_outputs}/{layer.dead_inputs}"
    return f"{100 * layer.density:.1f}", dead, f"{layer.largest_weight:.3g}", str(layer.stored_bits_free)


def _tensor(check: TensorCheck | None) -> tuple[str, ...]:
    if check is None:
        return (NONE,) * 4
    span = "zeros" if check.exponents is None else "{}..{}".format(*check.exponents)
    return f"{100 * check.saturated:.3f}", f"{100 * check.worst_step:.1f}", span, str(check.headroom)


def _last(layer: LayerCheck) -> tuple[str, str]:
    bound = NONE if layer.wg_headroom is None else f">={layer.wg_headroom}" if layer.wg_headroom >= 0 else "may wrap"
    return bound, ", ".join(layer.overflows) or "none"
