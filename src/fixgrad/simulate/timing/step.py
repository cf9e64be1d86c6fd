"""Simulate the timing of a compiled step, and put together what it took."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fixgrad.compiler.graph import Node
from fixgrad.compiler.program import Program
from fixgrad.machine import Machine
from fixgrad.machine.energy import Design, StepEnergy, energy_of_step
from fixgrad.machine.energy_data import load_energy_table
from fixgrad.machine.resources import Resources, resources_of
from fixgrad.network.layers import MacLayer
from fixgrad.simulate.bounds import Phase
from fixgrad.simulate.dram import Fidelity
from fixgrad.simulate.lower_bound import layer_bound
from fixgrad.simulate.node_bound import backward_bound, forward_bound, sums_bound
from fixgrad.simulate.timing.activity import step_counts
from fixgrad.simulate.timing.assumptions import DEFAULT, Assumptions
from fixgrad.simulate.timing.attribution import Cause
from fixgrad.simulate.timing.result import LayerTiming, Seconds, StepTiming
from fixgrad.simulate.timing.run import Simulation
from fixgrad.simulate.timing.work import Row


def simulate_step(
    program: Program,
    *,
    dram: Fidelity = Fidelity.CLOSED_FORM,
    assumptions: Assumptions = DEFAULT,
    compile_seconds: float = 0.0,
) -> StepTiming:
    """The timing of a program.

    Args:
        program: see `fixgrad.compiler.compile_step`.
        dram: closed forms, or a bank-level model that is some ten times slower.
        assumptions: depths of queues and buffers.
        compile_seconds: how long the compiler took, for the record.
    """
    start = time.perf_counter()
    simulation = simulate(program, dram, assumptions)
    return timing_of(program, simulation, dram, Seconds(compile_seconds, time.perf_counter() - start))


def simulate(
    program: Program,
    dram: Fidelity = Fidelity.CLOSED_FORM,
    assumptions: Assumptions = DEFAULT,
    keep_samples: bool = False,
) -> Simulation:
    """Run a program; see `Simulation`. `keep_samples` keeps what a timeline shows of memory."""
    with _no_collection():
        return Simulation(program, dram, assumptions, keep_samples)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the cyclic garbage collector: a simulation makes many small tuples and no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def timing_of(program: Program, simulation: Simulation, dram: Fidelity, seconds: Seconds) -> StepTiming:
    """The result of a simulation that has been run.

    Raises:
        AssertionError: a layer's phase moved fewer bytes than any schedule must.
    """
    dense = sum(layer.macs(program.network.shapes[layer.name]) for layer in program.network.mac_layers)
    resources = resources_of(program.machine)
    rows = [_layer_timing(program, simulation, number, row) for number, row in enumerate(simulation.work.rows)]
    return StepTiming(
        network=program.network.name,
        machine=program.machine.name,
        batch=program.batch,
        mode=program.mode,
        count_padding=program.count_padding,
        dram=str(dram),
        cycles=simulation.cycles,
        clock_mhz=program.machine.clock_mhz,
        macs_per_cycle=program.machine.macs,
        pass_gop=2 * dense * program.batch / 1e9,
        layers=tuple(rows),
        energy=_energy(program, simulation, resources),
        resources=resources.to_dict(),
        seconds=seconds,
        instructions=simulation.work.instructions,
    )


def _layer_timing(program: Program, simulation: Simulation, number: int, row: Row) -> LayerTiming:
    machine, network = program.machine, program.network
    layer = network.layer(row.layer)
    dense = layer.macs(network.shapes[layer.name]) if isinstance(layer, MacLayer) else 0
    cycles = simulation.ledger.cycles[number]
    scale = machine.pes * machine.clock_mhz
    us = sum(cycles.values()) / scale
    macs = cycles[Cause.COMPUTE] * program.batch // -(-program.batch // machine.lanes)
    bound = _least_bytes(program, row)
    moved = simulation.memory.row_bytes[number]
    assert moved >= bound, f"{row.layer} {row.phase} moved {moved} bytes, fewer than the {bound} that any schedule must move"
    return LayerTiming(
        name=layer.name,
        phase=Phase(row.phase),
        us=us,
        gops=2 * dense * program.batch / us / 1000 if us else 0.0,
        bound=max(cycles, key=lambda cause: cycles[cause]),
        utilisation=macs / (machine.macs * machine.clock_mhz * us) if us else 0.0,
        macs=macs,
        dram_bytes=moved,
        dram_bytes_lower_bound=bound,
        causes={cause: value / scale for cause, value in cycles.items()},
    )


def _least_bytes(program: Program, row: Row) -> int:
    """Bytes that no schedule of a layer's phase avoids."""
    graph, machine, batch = program.layout.graph, program.machine, program.batch
    step, back = graph.step_of(row.layer), next((item for item in graph.backward if item.step.name == row.layer), None)
    sums = sums_bound(back, machine, batch) if back is not None and row.phase == "ng" else 0
    if isinstance(step, Node):
        if row.phase == "ff":
            return forward_bound(step, machine, batch)
        return sums + (0 if back is None else backward_bound(back, machine, batch))
    if row.phase == "ng" and step.sink is None:
        return sums
    mask = program.masks.get(f"{step.name}.weight")
    return sums + layer_bound(program.network, step.layer, row.phase, mask, machine, batch, program.recipe).bytes


def _energy(program: Program, simulation: Simulation, resources: Resources) -> StepEnergy | None:
    """None for a chip without coefficients."""
    machine = program.machine
    if machine.device.part not in load_energy_table().parts:
        return None
    seconds = simulation.cycles / (machine.clock_mhz * 1e6)
    return energy_of_step(step_counts(program, simulation), design_of(machine, resources), seconds)


def design_of(machine: Machine, resources: Resources) -> Design:
    """The machine as the energy model knows it, with the LUTs that it is estimated to take."""
    memory = machine.memory
    return Design(machine.device.part, resources.lut, machine.macs, machine.clock_mhz, memory.standard, memory.channels)
