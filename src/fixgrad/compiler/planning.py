"""The plan of a step: the search's choice for every layer, or the reasons why there is none."""

from collections.abc import Sequence
from dataclasses import replace

from fixgrad.compiler.cost import Job, instruction_cycles
from fixgrad.compiler.feasibility import unfit_phases
from fixgrad.compiler.infeasible import Infeasible, InfeasibleError
from fixgrad.compiler.layout import micro_batches, stored_bytes
from fixgrad.compiler.search import LayerChoice, best_layer
from fixgrad.compiler.stages import Stage
from fixgrad.machine import Machine
from fixgrad.network import Recipe


def plan(
    found: Sequence[Stage],
    kernels: Sequence[int],
    machine: Machine,
    batch: int,
    recipe: Recipe,
    *,
    trains: bool,
    count_padding: bool,
) -> list[LayerChoice]:
    """The tilings of every stage.

    Args:
        kernels: live kernels of each stage.

    Raises:
        InfeasibleError: a layer does not fit the machine.
    """
    layers = [
        stage_jobs(stage, live, machine, batch, recipe, trains, count_padding) for stage, live in zip(found, kernels, strict=True)
    ]
    each = instruction_cycles(sum(job.mac_cycles for jobs in layers for job in jobs.values()))
    choices, reasons = [], list[Infeasible]()
    for stage, jobs in zip(found, layers, strict=True):
        choice = best_layer(
            {phase: replace(job, instruction_cycles=each) for phase, job in jobs.items()}, stage.matrix_shape[0]
        )
        if choice is None:
            reasons += unfit_phases(jobs)
        else:
            choices.append(choice)
    if len(choices) < len(found):
        raise InfeasibleError(reasons)
    return choices


def stage_jobs(
    stage: Stage, kernels: int, machine: Machine, batch: int, recipe: Recipe, trains: bool, count_padding: bool
) -> dict[str, Job]:
    """The phases of a stage as the cost model sees them."""
    outputs, columns = stage.matrix_shape
    parts = micro_batches(batch, machine.lanes)
    state = 2 * (stored_bytes(recipe.stored_bits) + stored_bytes(recipe.momentum_bits)) + 1

    def job(phase: str, out: int, read: int, pipelined: bool) -> Job:
        return Job(stage, machine, phase, out, read, kernels, parts, count_padding, state, pipelined)

    jobs = {"ff": job("ff", outputs, columns, True)}
    if trains and stage.sink is not None:
        # NG of a linear layer takes the pixels of its source one after the other.
        jobs["ng"] = replace(
            job("ng", stage.source.channels, outputs, False),
            kernels=-(-kernels // stage.source_pixels),
            micro_batches=parts * stage.source_pixels,
        )
    if trains:
        jobs["wg"] = job("wg", outputs, columns, False)
    return jobs
