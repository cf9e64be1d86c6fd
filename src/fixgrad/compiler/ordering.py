"""Channel orders of all maps of a step, from the masks and the tilings."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.balance import Deal, balanced_order
from fixgrad.compiler.graph import Graph
from fixgrad.compiler.tiling import LayerTiling, Tiling
from fixgrad.machine import Machine

Ints = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def channel_orders(
    graph: Graph, alive: Sequence[BoolArray], tilings: Sequence[LayerTiling], machine: Machine
) -> dict[str, Ints]:
    """The logical channel that each place in memory holds, by activation map.

    Maps between which nodes pass channels on have one order. Those of the input and of the logits keep theirs: nothing is
    computed for the one, and LOSS reads the other.

    Args:
        alive: live kernels of each stage, bool [rows, columns], in logical order.
    """
    classes = graph.channel_classes()
    maps = {item.name: item for item in graph.maps}
    fixed = {classes[graph.source.name], classes[graph.stages[-1].target.name]}
    found: dict[str, Ints] = {}
    for name in (graph.source.name, graph.stages[-1].target.name, *maps):
        first = classes[name]
        if first not in found:
            deals = [] if first in fixed else _deals({item for item in maps if classes[item] == first}, graph, alive, tilings, machine)
            found[first] = balanced_order(deals) if deals else np.arange(maps[first].channels)
    return {name: found[classes[name]] for name in dict.fromkeys((graph.source.name, graph.stages[-1].target.name, *maps))}


def _deals(
    members: set[str], graph: Graph, alive: Sequence[BoolArray], tilings: Sequence[LayerTiling], machine: Machine
) -> list[Deal]:
    """How the phases of all stages that write or read one of some maps deal its channels."""
    wanted: list[tuple[Ints, Tiling | None]] = []
    for stage, mask, tiling in zip(graph.stages, alive, tilings, strict=True):
        if stage.target.name in members:
            rows = mask.sum(axis=1)
            wanted += [(rows, tiling.ff), (rows, tiling.wg)]
        if stage.source.name in members:
            wanted.append((mask.sum(axis=0).reshape(stage.source_pixels, -1).sum(axis=0), tiling.ng))
    return [
        Deal(loads.astype(np.float64), plan.channels, machine.groups * plan.split.channels)
        for loads, plan in wanted
        if plan is not None
    ]
