"""From a network and its masks to a program."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.context import Context
from fixgrad.compiler.image import MemoryLayout
from fixgrad.compiler.layout import lay_out, with_program
from fixgrad.compiler.lower import lower_step
from fixgrad.compiler.matrix import KernelMatrix, alive_kernels, in_memory
from fixgrad.compiler.ordering import channel_orders
from fixgrad.compiler.planning import plan
from fixgrad.compiler.program import Program
from fixgrad.compiler.stages import stages
from fixgrad.compiler.tiling import LayerTiling
from fixgrad.errors import UsageError
from fixgrad.machine import Machine
from fixgrad.network import Network, Recipe

BoolArray = NDArray[np.bool_]
Masks = Mapping[str, BoolArray]
Mode = Literal["train", "forward"]


def compile_step(
    network: Network,
    masks: Masks | None,
    machine: Machine,
    batch: int,
    recipe: Recipe | None = None,
    *,
    mode: Mode = "train",
    count_padding: bool = False,
) -> Program:
    """Compile one step of `network` for `machine`.

    Args:
        masks: live kernels (elements of linear layers), bool [out, in] by parameter name (``conv1.weight``); a weight
            without one is dense.
        batch: images of a step.
        recipe: its widths decide how weights lie in memory.
        mode: ``train`` for FF, loss, NG, WG and update; ``forward`` for FF alone.
        count_padding: let taps in the zero padding take a cycle, as on the talk's machine.

    Raises:
        InfeasibleError: the network does not fit the machine; its `reasons` say why and what would help.
        UsageError: a mask for no weight or of the wrong shape, or a batch below 1.
    """
    if batch < 1:
        raise UsageError(f"batch is {batch}: a step needs at least 1 image")
    recipe, trains = recipe or Recipe(), mode == "train"
    alive = checked_masks(network, masks or {})
    found = stages(network)
    logical = [alive_kernels(stage, alive.get(f"{stage.name}.weight")) for stage in found]
    live = [int(np.count_nonzero(mask)) for mask in logical]
    choices = plan(found, live, machine, batch, recipe, trains=trains, count_padding=count_padding)
    tilings = [choice.tiling for choice in choices]
    orders = channel_orders(found, logical, tilings, machine)
    matrices = [
        KernelMatrix(in_memory(stage, mask, orders[stage.target.name], orders[stage.source.name]), tiling.block_rows)
        for stage, mask, tiling in zip(found, logical, tilings, strict=True)
    ]
    layout = lay_out(found, matrices, orders, machine, batch, recipe, trains)
    context = Context(machine, batch, found, matrices, layout, count_padding, trains)
    lower_step(context, tilings, recipe)
    return _program(context, network, recipe, mode, alive, tilings)


def _program(
    context: Context, network: Network, recipe: Recipe, mode: Mode, masks: dict[str, BoolArray], tilings: list[LayerTiling]
) -> Program:
    stream, machine = context.stream, context.machine
    encoded = stream.encode()
    layout = MemoryLayout(
        table=with_program(context.layout, encoded.size),
        network=network,
        recipe=recipe,
        batch=context.batch,
        lanes=machine.lanes,
        stages=tuple(context.stages),
        matrices=tuple(context.matrices),
        trains=context.trains,
    )
    return Program(
        machine=machine,
        network=network,
        batch=context.batch,
        recipe=recipe,
        mode=mode,
        count_padding=context.count_padding,
        masks=masks,
        encoded=encoded,
        layout=layout,
        labels=tuple(stream.labels),
        kernel_counts=np.array(stream.kernel_counts, np.int32).reshape(-1, machine.groups, machine.pes_per_group),
        taps=np.array(stream.taps, np.int32).reshape(-1, machine.pes_per_group),
        tilings=tuple(tilings),
    )


def checked_masks(network: Network, masks: Masks) -> dict[str, NDArray[np.bool_]]:
    """The masks that prune something, checked.

    Raises:
        UsageError: a name of no weight, or a shape that is not [out, in] of it.
    """
    shapes = {f"{layer.name}.weight": layer.weight_shape[:2] for layer in network.mac_layers}
    alive = {}
    for name, mask in masks.items():
        if name not in shapes:
            raise UsageError(f"mask {name!r} is for no weight of {network.name}: it has {', '.join(shapes)}")
        if mask.shape != shapes[name] or mask.dtype != np.bool_:
            raise UsageError(f"mask {name} is {mask.dtype} {list(mask.shape)}: expected bool {list(shapes[name])}")
        if not mask.all():
            alive[name] = mask.copy()
    return alive

