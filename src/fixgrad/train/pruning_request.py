"""What a user asks of pruning, and the densities, the budget and the schedule that follow from it."""

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from fixgrad.errors import UsageError
from fixgrad.network import Network
from fixgrad.train.defaults import default_prune_epoch
from fixgrad.train.pruning import layer_densities, training_macs
from fixgrad.train.pruning_schedule import Budget, PruningOptions

if TYPE_CHECKING:
    from fixgrad.train.request import RunRequest

#: What `--allocate` understands.
ALLOCATIONS = ("uniform", "global", "macs")
#: Steps between two changes of masks (Evci et al., 2020, take 100), but at least one an epoch.
DEFAULT_EVERY = 100
#: Of a run's epochs, the share after which nothing is exchanged any more (Evci et al., 2020).
EXCHANGE_SHARE = 3 / 4


class CostTable(NamedTuple):
    """What one kernel or element of each layer costs in a training step: integers, in a unit that people are told."""

    unit: str
    costs: Mapping[str, int]


#: From a network and the images of a step.
KernelCosts = Callable[[Network, int], CostTable]


def check_pruning(request: "RunRequest") -> None:
    """What can be refused before the network is known; raises UsageError."""
    if request.density is not None and request.macs is not None:
        raise UsageError("--density and --macs both say how much to keep: give one of them")
    if request.allocate not in ALLOCATIONS:
        raise UsageError(f"--allocate {request.allocate!r} is unknown: choose {', '.join(ALLOCATIONS)}")
    if request.prunes:
        if request.regrow is None and request.regrow_until is not None:
            raise UsageError("--regrow-until says when to stop exchanging kernels, but not how many: give --regrow too")
        return
    needed = {
        "--prune-epoch says when": request.prune_epoch,
        "--prune-until says until when": request.prune_until,
        "--prune-every says how often": request.prune_every,
        "--allocate says where": None if request.allocate == "uniform" else request.allocate,
        "--regrow says what to exchange in masks": request.regrow,
        "--balance says which kernels": request.balance,
    }
    for what, value in needed.items():
        if value is not None:
            raise UsageError(f"{what} to prune, but not how much: give --density talk, a number or a file too")


def settled_pruning(
    request: "RunRequest", network: Network, steps: int, epochs: int, batch: int, costs: KernelCosts | None
) -> tuple[dict[str, float] | None, PruningOptions | None]:
    """(density of each layer, what else there is to pruning); each None where it is not asked for.

    Raises:
        UsageError: a number out of range, or an allocation by cycles without a machine.
    """
    if not request.prunes:
        return None, None
    budget = _budget(request, network, batch, costs)
    densities = None if budget is not None or request.density is None else layer_densities(request.density, network)
    begin = default_prune_epoch(epochs) if request.prune_epoch is None else request.prune_epoch
    done = begin if request.prune_until is None else request.prune_until
    until = max(done + 1, int(epochs * EXCHANGE_SHARE)) if request.regrow_until is None else request.regrow_until
    changes = request.prune_until is not None or request.regrow is not None
    options = PruningOptions(
        budget=budget,
        until=request.prune_until,
        every=(min(DEFAULT_EVERY, steps) if request.prune_every is None else request.prune_every) if changes else 1,
        exchange=request.regrow or 0.0,
        exchange_until=until if request.regrow else 0,
        balance=request.balance or 0.0,
    )
    return densities, None if options == PruningOptions(every=1) else options


def _budget(request: "RunRequest", network: Network, batch: int, costs: KernelCosts | None) -> Budget | None:
    if request.macs is not None:
        return _of_all(request.macs, network, mac_costs(network))
    if request.allocate == "uniform":
        return None
    assert request.density is not None
    try:
        share = float(request.density)
    except ValueError:
        raise UsageError(
            f"--allocate {request.allocate} shares one number out among the layers, but --density is {request.density!r}: "
            "give a number, or leave --allocate out"
        ) from None
    if request.allocate == "global":
        return _of_all(share, network, weight_costs(network))
    if costs is None:
        raise UsageError("--allocate macs counts the cycles of a machine, and there is none: name one")
    return _of_all(share, network, costs(network, batch))


def _of_all(share: float, network: Network, table: CostTable) -> Budget:
    dense = sum(table.costs[layer.name] * prod(layer.weight_shape[:2]) for layer in network.mac_layers)
    return Budget(share, table.unit, dict(table.costs), dense)


def weight_costs(network: Network) -> CostTable:
    """Weights of a kernel: its taps."""
    return CostTable("weights", {layer.name: prod(layer.weight_shape[2:]) for layer in network.mac_layers})


def mac_costs(network: Network) -> CostTable:
    """Multiply-accumulates of a kernel in FF, NG and WG of one image, padding counted."""
    macs = {layer.name: training_macs(network, layer) // prod(layer.weight_shape[:2]) for layer in network.mac_layers}
    return CostTable("MACs", macs)
