"""What a step takes on a machine with the masks of a run: compiled and simulated, or bounded where it does not fit."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.compiler import InfeasibleError, compile_step
from fixgrad.compiler.support import unfit_layers
from fixgrad.errors import UsageError
from fixgrad.machine import Machine
from fixgrad.machine.files import machine_named
from fixgrad.network import Network, Recipe
from fixgrad.simulate.bounds import LayerCost, Phase, StepCost, step_cost
from fixgrad.simulate.timing import LayerTiming, StepTiming, simulate_step
from fixgrad.train.metrics import PredictionKind
from fixgrad.train.run import Prediction, StepPrediction

Masks = Mapping[str, NDArray[np.bool_]]
#: Steps remembered. A run has two, dense and pruned; the demonstration has one more for each seed.
REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class PredictedStep:
    """The time of a step, with all that is known of it.

    Attributes:
        figures: simulated, or the bounds where the compiler refuses the network.
        reason: why it could not be simulated, in one line; empty where it was.
    """

    figures: StepTiming | StepCost
    reason: str = ""

    @property
    def kind(self) -> PredictionKind:
        """Where the figures come from."""
        return PredictionKind.SIMULATED if isinstance(self.figures, StepTiming) else PredictionKind.BOUND

    @property
    def machine(self) -> str:
        """Its name."""
        return self.figures.machine

    @property
    def us(self) -> float:
        """Time of the step in microseconds; of a bound, the least."""
        return self.figures.us if isinstance(self.figures, StepTiming) else self.figures.total_us

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.us / 1e6

    @property
    def gops(self) -> float:
        """Equivalent GOP/s of the step, as the talk counts; of a bound, the most."""
        return self.figures.gops if isinstance(self.figures, StepTiming) else self.figures.total_gops

    def row(self, layer: str, phase: Phase) -> LayerTiming | LayerCost | None:
        """One layer and phase; None where it has none, such as NG of the first layer."""
        return next((row for row in self.figures.layers if row.name == layer and row.phase is phase), None)

    def times_as_fast_as(self, other: "PredictedStep") -> float | None:
        """The ratio of the times; None where one is a bound and the other is not, because that ratio says nothing."""
        return other.us / self.us if self.kind is other.kind else None

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values. It follows from the run alone, so the time that the tools took is left out."""
        figures = {name: value for name, value in self.figures.to_dict().items() if name != "seconds"}
        return {**figures, "kind": str(self.kind), "reason": self.reason}


class _Pruned:
    """The masks that prune something; equal if their bytes are."""

    def __init__(self, masks: Masks) -> None:
        self.masks = {name: mask.copy() for name, mask in sorted(masks.items()) if not mask.all()}
        digest = sha256()
        for name, mask in self.masks.items():
            digest.update(f"{name} {mask.dtype} {mask.shape};".encode())
            digest.update(mask.tobytes())
        self._digest = digest.digest()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pruned) and self._digest == other._digest


def predicted_step(network: Network, masks: Masks, machine: Machine, batch: int, recipe: Recipe) -> PredictedStep:
    """Compile and simulate a training step; where the compiler refuses the network, its bounds, and why.

    Results are remembered, so masks that have not changed cost nothing.

    Args:
        masks: live kernels (elements of linear layers), bool [out, in] by parameter name (``conv1.weight``); a weight without
            one is dense.
        batch: images of a step.

    Raises:
        UsageError: a mask for no weight or of the wrong shape, or a batch below 1.
    """
    return _predicted(network, _Pruned(masks), machine, batch, recipe)


@lru_cache(maxsize=REMEMBERED)
def _predicted(network: Network, pruned: _Pruned, machine: Machine, batch: int, recipe: Recipe) -> PredictedStep:
    try:
        return PredictedStep(simulate_step(compile_step(network, pruned.masks, machine, batch, recipe)))
    except InfeasibleError as error:
        reason = _one_line(error.reasons)
    except UsageError as error:
        reason = str(error)
    except Exception as error:  # a prediction must never cost the training run beside which it is printed
        reason = f"the compiler or the simulator failed, {type(error).__name__}: {error}"
    by_layer = {name.removesuffix(".weight"): mask for name, mask in pruned.masks.items()}
    return PredictedStep(step_cost(network, by_layer, machine, batch, recipe), reason)


def _one_line(reasons: Iterable[object]) -> str:
    first, *others = map(str, reasons)
    return f"{first} (and {len(others)} more: see `fixgrad check`)" if others else first


def why_none(machine: Machine, network: Network) -> str | None:
    """Why no time is predicted at all: bounds by the multipliers would mislead where a machine lacks a whole unit."""
    if network.is_chain or machine.elementwise_lanes:
        return None
    return _one_line(unfit_layers(network, machine))


def step_prediction(machine: str) -> StepPrediction:
    """The prediction that the training loop prints after each epoch.

    Args:
        machine: a preset, or a JSON file.

    Raises:
        UsageError: there is none.
    """
    chosen = machine_named(machine)

    def predict(network: Network, masks: Masks, batch: int, recipe: Recipe) -> Prediction | None:
        if why_none(chosen, network) is not None:
            return None
        step = predicted_step(network, masks, chosen, batch, recipe)
        return Prediction(step.seconds, step.kind, step.reason)

    return StepPrediction(chosen.name, predict, partial(why_none, chosen))
