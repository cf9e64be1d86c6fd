"""Channel orders of all maps of a step, from the masks and the tilings."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.balance import Deal, balanced_order
from fixgrad.compiler.stages import Stage
from fixgrad.compiler.tiling import LayerTiling, Tiling
from fixgrad.machine import Machine

Ints = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def channel_orders(
    found: Sequence[Stage], alive: Sequence[BoolArray], tilings: Sequence[LayerTiling], machine: Machine
) -> dict[str, Ints]:
    """The logical channel that each place in memory holds, by feature map.

    The input and the logits keep their order: nothing is computed for the one, and LOSS reads the other.

    Args:
        alive: live kernels of each stage, bool [rows, columns], in logical order.
    """
    orders = {found[0].source.name: np.arange(found[0].source.channels), found[-1].target.name: np.arange(found[-1].target.channels)}
    for number, stage in enumerate(found[:-1]):
        orders[stage.target.name] = balanced_order(_deals(number, found, alive, tilings, machine))
    return orders


def _deals(
    number: int, found: Sequence[Stage], alive: Sequence[BoolArray], tilings: Sequence[LayerTiling], machine: Machine
) -> list[Deal]:
    rows = alive[number].sum(axis=1)
    reader = found[number + 1]
    columns = alive[number + 1].sum(axis=0).reshape(reader.source_pixels, -1).sum(axis=0)
    tiling, following = tilings[number], tilings[number + 1]
    wanted: list[tuple[Ints, Tiling | None]] = [(rows, tiling.ff), (rows, tiling.wg), (columns, following.ng)]
    return [
        Deal(loads.astype(np.float64), plan.channels, machine.groups * plan.split.channels)
        for loads, plan in wanted
        if plan is not None
    ]
