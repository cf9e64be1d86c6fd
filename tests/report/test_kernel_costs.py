"""Costs of kernels: the slope of what the machine takes, and pruning by them saves its time."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fixgrad.machine.files import machine_named
from fixgrad.network.models import model
from fixgrad.report.kernel_costs import PARTS, kernel_costs
from fixgrad.report.predicted_step import predicted_step
from fixgrad.train.request import RunRequest, prepare
from fixgrad.train.run import TrainingRun

MACHINE = machine_named("kcu1500")


def test_costs_are_the_slopes_of_the_simulated_step() -> None:
    network = model("digits")
    table = kernel_costs(MACHINE)(network, 32)
    assert table.unit == "cycles/1024 on kcu1500, simulated"
    assert set(table.costs) == {layer.name for layer in network.mac_layers}
    assert all(cost >= 1 for cost in table.costs.values())
    # Two 3 x 3 kernels of one map cost about the same; one of a map with a quarter of the pixels, less.
    assert table.costs["conv2"] > 2 * table.costs["conv3"] or network.shapes["conv2"] == network.shapes["conv3"]
    dense = predicted_step(network, {}, MACHINE, 32, prepare(RunRequest(model="digits", data="digits")).plan.recipe)
    kernels = {layer.name: layer.weight_shape[0] * layer.weight_shape[1] for layer in network.mac_layers}
    saved = sum(table.costs[name] * count for name, count in kernels.items()) / PARTS / MACHINE.clock_mhz
    assert 0.5 * dense.us < saved <= 1.1 * dense.us


def test_a_network_that_is_not_compiled_is_costed_by_bounds() -> None:
    table = kernel_costs(MACHINE)(model("resnet20"), 32)
    assert table.unit == "cycles/1024 on kcu1500, bound"


def test_a_plan_holds_its_costs(tmp_path: Path) -> None:
    """So a run can be resumed on a machine that would cost kernels in another way."""
    torch.set_num_threads(1)
    request = RunRequest(model="digits", data="digits", epochs=2, batch=240, density="0.4", prune_epoch=1, allocate="macs")
    run = TrainingRun.begin(request, tmp_path / "run", costs=kernel_costs(MACHINE))
    metrics = [metrics for metrics, _ in run.train()]
    run.close()
    assert run.plan.pruning is not None
    budget = run.plan.pruning.budget
    assert budget is not None
    spent = sum(
        budget.costs[layer.name] * round(metrics[-1].densities[layer.name] * layer.weight_shape[0] * layer.weight_shape[1])
        for layer in run.plan.network.mac_layers
    )
    assert budget.at(0.4) - max(budget.costs.values()) < spent <= budget.at(0.4)
    TrainingRun.resume(tmp_path / "run").close()


def test_an_allocation_by_cycles_needs_a_machine() -> None:
    request = RunRequest(model="digits", data="digits", density="0.4", allocate="macs")
    with pytest.raises(ValueError, match="--allocate macs counts the cycles of a machine, and there is none"):
        prepare(request)
    with pytest.raises(ValueError, match="--allocate global shares one number out"):
        prepare(replace(request, allocate="global", density="talk"))
