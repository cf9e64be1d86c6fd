"""What the loop asks of whatever trains: fixed point and the float baseline answer alike."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fixgrad.network import Network, State
from fixgrad.network.state_arrays import StateArrays, state_to_arrays

Codes = NDArray[np.integer[Any]]
Masks = Mapping[str, NDArray[np.bool_]]


class StepReport(Protocol):
    """What a step tells.

    Attributes:
        loss: mean cross-entropy of the batch in nats.
        correct: images of the batch that were right.
        saturated: share of the elements of each requantised tensor that saturated, 0 to 1.
        overflows: accumulators that left 32 bits in this step.
        forward_bits, error_bits: (bits of the largest accumulator, its fractional bits) of each requantised tensor.
    """

    @property
    def loss(self) -> float: ...
    @property
    def correct(self) -> int: ...
    @property
    def saturated(self) -> Mapping[str, float]: ...
    @property
    def overflows(self) -> set[str]: ...
    @property
    def forward_bits(self) -> Mapping[str, tuple[int, int]]: ...
    @property
    def error_bits(self) -> Mapping[str, tuple[int, int]]: ...


class Trainer(Protocol):
    """Trains one network step by step."""

    network: Network

    def calibrate(self, x: Codes, labels: Codes) -> None:
        """Choose the first scales from a batch: codes [batch, ...], labels [batch]. Nothing is updated."""

    def step(self, x: Codes, labels: Codes) -> StepReport:
        """One update."""

    def predict(self, x: Codes) -> NDArray[Any]:
        """Logits [batch, classes]: codes, or floats."""

    def weights(self) -> dict[str, NDArray[Any]]:
        """Every weight as it is stored: codes, or floats. By its parameter's name, ``conv1.weight``."""

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """The masks [out, in] that are set, by the parameter's name."""

    def prune(self, masks: Masks) -> None:
        """Keep only what the masks keep; what is dead stays dead."""

    def set_masks(self, masks: Masks) -> None:
        """Put masks in the place of those set: what comes to life starts at zero, and so does its momentum."""

    def watch_gradients(self) -> None:
        """The next step computes the gradients of dead kernels too."""

    def take_gradients(self) -> dict[str, NDArray[Any]]:
        """The gradients of all weights in the last step, which was watched: summed over the workers, by parameter name."""

    def exponents(self) -> dict[str, int]:
        """The exponent in force of each tensor, ``activation/conv1``; empty without fixed point."""

    def snapshot(self) -> StateArrays:
        """All that has to be remembered between two steps."""


class Executor(Protocol):
    """An executor of the integer training step: the PyTorch one, or the NumPy reference behind the same verbs."""

    network: Network

    def calibrate(self, x: Codes, labels: Codes) -> None:
        """Fill the empty scale histories."""

    def step(self, x: Codes, labels: Codes) -> StepReport:
        """One update."""

    def predict(self, x: Codes) -> Any:
        """Logit codes [batch, classes], an array or a tensor on any device."""

    def prune(self, parameter: str, mask: NDArray[np.bool_]) -> None:
        """Keep only what the mask keeps."""

    def set_mask(self, parameter: str, mask: NDArray[np.bool_]) -> None:
        """Put a mask in the place of the one that is set."""

    def watch_gradients(self) -> None:
        """The next step keeps the gradients of dead kernels too."""

    def take_gradients(self) -> dict[str, NDArray[Any]]:
        """Gradients of the weights in the step that was watched, int32."""

    def to_state(self) -> State:
        """The state between two steps."""


class FixedPointTrainer:
    """Training in fixed point, on any executor."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.network = executor.network

    def calibrate(self, x: Codes, labels: Codes) -> None:
        """Fill the scale histories from one batch."""
        self._executor.calibrate(x, labels)

    def step(self, x: Codes, labels: Codes) -> StepReport:
        """One update."""
        return self._executor.step(x, labels)

    def predict(self, x: Codes) -> NDArray[Any]:
        """Logit codes [batch, classes]."""
        logits = self._executor.predict(x)
        return np.asarray(logits if isinstance(logits, np.ndarray) else logits.cpu())

    def weights(self) -> dict[str, NDArray[Any]]:
        """Stored codes, int32."""
        parameters = self._executor.to_state().parameters
        return {name: parameter.stored for name, parameter in parameters.items() if name.endswith(".weight")}

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """The masks that are set."""
        parameters = self._executor.to_state().parameters
        return {name: parameter.mask for name, parameter in parameters.items() if parameter.mask is not None}

    def prune(self, masks: Masks) -> None:
        """Weights and momenta of what is dead become zero."""
        for name, mask in masks.items():
            self._executor.prune(name, mask)

    def set_masks(self, masks: Masks) -> None:
        """What comes to life starts at zero."""
        for name, mask in masks.items():
            self._executor.set_mask(name, mask)

    def watch_gradients(self) -> None:
        """The next step computes the gradients of dead kernels too."""
        self._executor.watch_gradients()

    def take_gradients(self) -> dict[str, NDArray[Any]]:
        """WG of all kernels in the step that was watched, int32 (wrapped)."""
        return self._executor.take_gradients()

    def exponents(self) -> dict[str, int]:
        """Exponents of activations and errors."""
        state = self._executor.to_state()
        kinds = {"activation": state.activation_scales, "error": state.error_scales}
        return {f"{kind}/{name}": history.exponent for kind, histories in kinds.items() for name, history in histories.items()}

    def snapshot(self) -> StateArrays:
        """The executor's state."""
        return state_to_arrays(self._executor.to_state())
