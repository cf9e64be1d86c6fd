"""What a change of masks does: from weights and gradients to the next masks, the same on every worker and machine."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.sparse import Mask, allocate, exchange, keep_balanced, keep_count, magnitude_scores
from fixgrad.train.plan import Plan
from fixgrad.train.pruning import magnitude_masks
from fixgrad.train.pruning_schedule import Budget, PruningSchedule

Masks = Mapping[str, NDArray[np.bool_]]
Weights = Mapping[str, NDArray[Any]]
NewMasks = dict[str, NDArray[np.bool_]]


def schedule_of(plan: Plan) -> PruningSchedule | None:
    """When the masks of a run change; None where they never do."""
    if plan.prune_epoch is None:
        return None
    begin, options = plan.prune_epoch * plan.steps_per_epoch, plan.pruning
    if options is None:
        return PruningSchedule(begin, begin, 1)
    end = begin if options.until is None else options.until * plan.steps_per_epoch
    return PruningSchedule(begin, end, options.every, options.exchange, options.exchange_until * plan.steps_per_epoch)


def pruned_masks(plan: Plan, progress: float, weights: Weights, masks: Masks) -> NewMasks:
    """The masks after the share `progress` (above 0, up to 1) of what is to be pruned; what is dead stays dead.

    Args:
        weights: stored codes or floats, by parameter name.
        masks: those set already.
    """
    balance = 0.0 if plan.pruning is None else plan.pruning.balance
    if plan.pruning is not None and plan.pruning.budget is not None:
        found = _allocated(plan.pruning.budget, progress, weights, masks)
    else:
        assert plan.densities is not None
        densities = {layer: 1.0 - (1.0 - density) * progress if progress < 1 else density for layer, density in plan.densities.items()}
        if not balance:
            return magnitude_masks(weights, densities, masks)
        found = {f"{layer}.weight": _densest(weights[f"{layer}.weight"], density) for layer, density in densities.items()}
    if not balance:
        return found
    return {name: _balanced(weights[name], int(mask.sum()), masks.get(name), balance) for name, mask in found.items()}


def exchanged_masks(share: float, weights: Weights, gradients: Weights, masks: Masks) -> NewMasks:
    """The masks after an exchange of the share `share` of the live kernels of each pruned layer."""
    return {
        name: exchange(weights[name], gradients[name], Mask(mask), share, name.removesuffix(".weight")).alive
        for name, mask in masks.items()
    }


def _allocated(budget: Budget, progress: float, weights: Weights, masks: Masks) -> NewMasks:
    share = 1.0 - (1.0 - budget.share) * progress if progress < 1 else budget.share
    scores = {layer: magnitude_scores(weights[f"{layer}.weight"]) for layer in budget.costs}
    alive = {layer: masks[f"{layer}.weight"] for layer in budget.costs if f"{layer}.weight" in masks}
    kept = allocate(scores, budget.costs, budget.at(share), alive)
    return {f"{layer}.weight": mask for layer, mask in kept.items()}


def _densest(weight: NDArray[Any], density: float) -> NDArray[np.bool_]:
    """Any mask with as many kernels as the density says: `_balanced` chooses which."""
    mask = np.zeros(weight.shape[:2], np.bool_)
    mask.flat[: keep_count(density, mask.size)] = True
    return mask


def _balanced(weight: NDArray[Any], keep: int, before: NDArray[np.bool_] | None, tolerance: float) -> NDArray[np.bool_]:
    scores = magnitude_scores(weight)
    return keep_balanced(scores, keep, np.ones(scores.shape, np.bool_) if before is None else before, tolerance)
