"""From a network and its masks to a program."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler.context import Context
from fixgrad.compiler.cost import Job
from fixgrad.compiler.feasibility import least_program_bytes, unfit_memory, unfit_optimiser, unfit_program, unfit_waits
from fixgrad.compiler.graph import Graph
from fixgrad.compiler.graph_builder import build_graph
from fixgrad.compiler.image import MemoryLayout
from fixgrad.compiler.infeasible import Infeasible, InfeasibleError
from fixgrad.compiler.layout import RegionTable, lay_out, with_program
from fixgrad.compiler.lower import lower_step
from fixgrad.compiler.matrix import KernelMatrix, alive_kernels, in_memory
from fixgrad.compiler.ordering import channel_orders
from fixgrad.compiler.planning import plan, stage_jobs
from fixgrad.compiler.program import Program
from fixgrad.compiler.register_banks import register_numbers
from fixgrad.compiler.schedule import schedule
from fixgrad.compiler.search import LayerChoice
from fixgrad.compiler.support import unfit_layers
from fixgrad.errors import UsageError
from fixgrad.machine import Machine
from fixgrad.machine.instructions import INSTRUCTION_BYTES, Unit
from fixgrad.network import Network, Recipe

BoolArray = NDArray[np.bool_]
Masks = Mapping[str, BoolArray]
Mode = Literal["train", "forward"]
#: Bytes of predicted traffic, beyond one pass over the data, for a byte of program: the search counts 384 an instruction.
BYTES_MOVED_FOR_ONE = 3


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
    recipe = recipe or Recipe()
    program = None
    for share_errors in (False, True):
        prepared = _prepare(network, masks, machine, batch, recipe, mode == "train", count_padding, share_errors)
        context = Context(
            machine, batch, prepared.graph, prepared.matrices, prepared.table, count_padding, trains=mode == "train"
        )
        lower_step(context, [choice.tiling for choice in prepared.choices], recipe)
        issued = {unit.value: context.stream.issued(unit) for unit in Unit}
        _refuse(unfit_waits(network.name, issued))
        program = _program(context, network, recipe, mode, prepared)
        if program.layout.bytes <= machine.memory.bytes_total or not prepared.graph.nodes:
            break
    assert program is not None
    _refuse(unfit_memory(network.name, program.layout.table, machine, batch, recipe))
    return program


def check(
    network: Network,
    machine: Machine,
    batch: int,
    masks: Masks | None = None,
    recipe: Recipe | None = None,
    *,
    mode: Mode = "train",
) -> list[Infeasible]:
    """Everything that keeps `network` from being compiled for `machine`; an empty list if nothing does. Arguments as above.

    How long the program is shows only when it is written: where memory is so full that it might not find room, it is.
    """
    recipe = recipe or Recipe()
    try:
        prepared = _prepare(network, masks, machine, batch, recipe, mode == "train", False, False)
        if prepared.table.bytes + 2 * prepared.program_bytes > machine.memory.bytes_total:
            compile_step(network, masks, machine, batch, recipe, mode=mode)
    except InfeasibleError as error:
        return list(error.reasons)
    return []


class _Prepared(NamedTuple):
    """Everything that is decided before an instruction is written; `program_bytes` is a prediction, seldom too low."""

    masks: dict[str, BoolArray]
    graph: Graph
    choices: list[LayerChoice]
    matrices: tuple[KernelMatrix, ...]
    table: RegionTable
    program_bytes: int


def _prepare(
    network: Network,
    masks: Masks | None,
    machine: Machine,
    batch: int,
    recipe: Recipe,
    trains: bool,
    count_padding: bool,
    share_errors: bool,
) -> _Prepared:
    """All decisions. Errors share memory if `share_errors` says so, or if the machine will hardly hold them otherwise."""
    if batch < 1:
        raise UsageError(f"batch is {batch}: a step needs at least 1 image")
    _refuse(unfit_layers(network, machine))
    pruned = checked_masks(network, masks or {})
    graph = build_graph(network)
    found = graph.stages
    unknown = unfit_optimiser(network.name, recipe) if trains else ()
    _refuse([*unknown, *unfit_program(graph, batch, trains)])
    alive = [alive_kernels(stage, pruned.get(f"{stage.name}.weight")) for stage in found]
    live = [int(np.count_nonzero(mask)) for mask in alive]
    choices = plan(found, live, machine, batch, recipe, trains=trains, count_padding=count_padding)
    tilings = [choice.tiling for choice in choices]
    orders = channel_orders(graph, alive, tilings, machine)
    matrices = tuple(
        KernelMatrix(in_memory(stage, mask, orders[stage.target.name], orders[stage.source.name]), tiling.block_rows)
        for stage, mask, tiling in zip(found, alive, tilings, strict=True)
    )
    jobs = (
        stage_jobs(stage, kernels, machine, batch, recipe, trains, count_padding)
        for stage, kernels in zip(found, live, strict=True)
    )
    predicted = _program_bytes(jobs, choices)
    registers = register_numbers(graph) if trains else {}
    table = lay_out(graph, matrices, orders, machine, batch, recipe, trains, registers)
    if graph.nodes and (share_errors or table.bytes + predicted > machine.memory.bytes_total):
        table = lay_out(graph, matrices, orders, machine, batch, recipe, trains, registers, share_errors=True)
    shortest = with_program(table, least_program_bytes(found, live, tilings, machine, batch))
    _refuse(unfit_memory(network.name, shortest, machine, batch, recipe, predicted))
    return _Prepared(pruned, graph, choices, matrices, table, predicted)


def _program_bytes(jobs: Iterable[Mapping[str, Job]], choices: Iterable[LayerChoice]) -> int:
    """How long the program will be, from what the search expects it to move beyond one pass over the data."""
    least = sum(job.least_bytes for phases in jobs for job in phases.values())
    moved = sum(phase.bytes for choice in choices for phase in choice.phases.values())
    return max(int(moved) - least, 0) // BYTES_MOVED_FOR_ONE


def _refuse(reasons: Iterable[Infeasible]) -> None:
    listed = list(reasons)
    if listed:
        raise InfeasibleError(listed)


def _program(context: Context, network: Network, recipe: Recipe, mode: Mode, prepared: _Prepared) -> Program:
    stream, machine = context.stream, context.machine
    code = stream.code()
    layout = MemoryLayout(
        table=with_program(context.layout, len(code) * INSTRUCTION_BYTES),
        network=network,
        recipe=recipe,
        batch=context.batch,
        lanes=machine.lanes,
        graph=prepared.graph,
        matrices=prepared.matrices,
        trains=context.trains,
    )
    return Program(
        machine=machine,
        network=network,
        batch=context.batch,
        recipe=recipe,
        mode=mode,
        count_padding=context.count_padding,
        masks=prepared.masks,
        code=code,
        layout=layout,
        labels=stream.labels(),
        kernel_counts=np.array(stream.kernel_counts, np.int32).reshape(-1, machine.groups, machine.pes_per_group),
        taps=np.array(stream.taps, np.int32).reshape(-1, machine.pes_per_group),
        schedule=schedule(prepared.graph.stages, prepared.choices),
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

