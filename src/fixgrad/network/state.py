"""Everything that a run has to remember: stored weights, momenta, masks, scales, and the step. Plain arrays, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError
from fixgrad.network.batch_norm import BatchNorm
from fixgrad.network.graph import Network
from fixgrad.network.layers import MacLayer
from fixgrad.network.normalisation import RUNNING_BITS, RUNNING_MEAN_FRAC, RUNNING_VARIANCE_FRAC, Running
from fixgrad.network.recipe import OPERAND_BITS, Recipe
from fixgrad.network.scaling import ScaleHistory
from fixgrad.network.update import ParameterFormats
from fixgrad.numbers import Format, Rounding, magnitude_bits, requantise
from fixgrad.numbers.rounding import round_real

#: Bits of head-room of a stored weight above the largest initial one.
WEIGHT_HEADROOM = 2
#: A bias may always grow to 2**2.
BIAS_EXPONENT = 2
#: Left and right limit of the shift that brings a bias to the accumulators' scale.
MAX_BIAS_SHIFT = 31


@dataclass(slots=True)
class Parameter:
    """One weight or bias tensor.

    Attributes:
        formats: widths and scales.
        stored: int32 codes of `formats.stored_bits` bits.
        momentum: int32 codes of `formats.momentum_bits` bits; under Adam the first moment, words of `fixgrad.network.moments`.
        operand_shift: right shift from a stored code to an 8-bit operand.
        magnitude: bits of the largest stored code, as the last update measured it. The next update emits its operands with
            the shift that follows from it: hardware must know the shift before the pass that would measure a newer one.
        mask: for weights, the survivors: bool [out, in] (kernels of a convolution, elements of a linear layer).
        second_moment: of Adam, words; None under SGD.
    """

    formats: ParameterFormats
    stored: NDArray[np.int32]
    momentum: NDArray[np.int32]
    operand_shift: int
    magnitude: int
    mask: NDArray[np.bool_] | None = None
    second_moment: NDArray[np.int32] | None = None

    @property
    def operand_frac(self) -> int:
        """Fractional bits of the operand codes."""
        return self.formats.stored_frac - self.operand_shift

    @property
    def next_operand_shift(self) -> int:
        """Shift of the operands that the coming update emits; a bias is no operand and has none."""
        return 0 if self.stored.ndim == 1 else operand_shift_for(self.magnitude, self.formats.stored_bits)

    def operand(self) -> NDArray[np.int64]:
        """The 8-bit operand codes: the rounded, saturated top of the stored codes."""
        return requantise(self.stored, self.operand_shift, OPERAND_BITS)

    def prune(self, mask: NDArray[np.bool_]) -> None:
        """Keep only what `mask` keeps: dead weights and moments become zero, and what was dead stays dead.

        Raises:
            DataError: the mask's shape is not [out, in] of the parameter.
        """
        if mask.shape != self.stored.shape[:2]:
            raise DataError(f"the mask has shape {mask.shape}: the parameter needs {self.stored.shape[:2]}")
        self.mask = mask.copy() if self.mask is None else self.mask & mask
        live = self.expanded_mask()
        assert live is not None
        self.stored = np.where(live, self.stored, 0).astype(np.int32)
        self.momentum = np.where(live, self.momentum, 0).astype(np.int32)
        if self.second_moment is not None:
            self.second_moment = np.where(live, self.second_moment, 0).astype(np.int32)

    def set_mask(self, mask: NDArray[np.bool_]) -> None:
        """Put `mask` in the place of the one in force: what comes to life starts at zero. Raises as `prune`."""
        before, self.mask = self.mask, None
        try:
            self.prune(mask)
        except DataError:
            self.mask = before
            raise

    def expanded_mask(self) -> NDArray[np.bool_] | None:
        """The mask, broadcastable to the parameter's shape."""
        if self.mask is None or self.mask.ndim == self.stored.ndim:
            return self.mask
        return self.mask.reshape(*self.mask.shape, *(1,) * (self.stored.ndim - self.mask.ndim))


def operand_shift_for(magnitude: int, stored_bits: int) -> int:
    """Right shift that makes stored codes of `magnitude` bits fit the 7 magnitude bits of an operand: 0 to stored_bits - 8."""
    return min(max(magnitude - (OPERAND_BITS - 1), 0), stored_bits - OPERAND_BITS)


def bias_shift(accumulator_frac: int, bias_frac: int) -> int:
    """Left shift (negative: right) of a stored bias to the accumulators' scale, held within -31..31."""
    return max(min(accumulator_frac - bias_frac, MAX_BIAS_SHIFT), -MAX_BIAS_SHIFT)


@dataclass(slots=True)
class State:
    """The state of a run between two steps.

    Attributes:
        step: the number of updates done.
        parameters: by name, ``conv1.weight``.
        activation_scales: by the name of the layer that produced the tensor and gave it a scale of its own.
        error_scales: by the name of the tensor whose error it is (the input of a layer, or the logits), or by ``tensor@layer``
            for what one of its readers contributes.
        overflows: accumulators' sticky flags: names of ``layer/phase`` seen so far.
        running: mean and variance of each batch normalisation, by its name.
        moment_steps: the number of updates that the moments hold: what Adam corrects their bias by.
    """

    step: int
    parameters: dict[str, Parameter]
    activation_scales: dict[str, ScaleHistory] = field(default_factory=dict)
    error_scales: dict[str, ScaleHistory] = field(default_factory=dict)
    overflows: set[str] = field(default_factory=set)
    running: dict[str, Running] = field(default_factory=dict)
    moment_steps: int = 0

    def weight(self, layer: MacLayer) -> Parameter:
        """The layer's weight."""
        return self.parameters[f"{layer.name}.weight"]

    def bias(self, layer: MacLayer) -> Parameter | None:
        """The layer's bias, if it has one."""
        return self.parameters.get(f"{layer.name}.bias")


def new_parameter(values: NDArray[np.floating], recipe: Recipe, *, is_bias: bool) -> Parameter:
    """A parameter from initial real values; moments zero.

    The stored range is the smallest power of two above the largest initial magnitude, times 2**WEIGHT_HEADROOM.

    Raises:
        DataError: a value is not finite.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise DataError("an initial weight is not finite: initialise the network with finite numbers")
    largest = float(np.abs(values).max(initial=0.0))
    exponent = int(np.frexp(largest)[1]) + WEIGHT_HEADROOM if largest else 0
    if is_bias:
        exponent = max(exponent, BIAS_EXPONENT)
    frac = recipe.stored_bits - 1 - exponent
    stored = Format(recipe.stored_bits, frac).encode(values).astype(np.int32)
    formats = ParameterFormats(recipe.stored_bits, frac, recipe.momentum_bits)
    magnitude = magnitude_bits(stored)
    shift = 0 if is_bias else operand_shift_for(magnitude, recipe.stored_bits)
    second = np.zeros_like(stored) if recipe.optimiser.is_adaptive else None
    return Parameter(formats, stored, np.zeros_like(stored), shift, magnitude, second_moment=second)


def initial_state(network: Network, weights: Mapping[str, NDArray[np.floating]], recipe: Recipe) -> State:
    """The state before the first step, from real initial values of every parameter.

    Raises:
        DataError: a parameter is missing, has another shape, or is not finite.
    """
    parameters = {}
    for name, shape in network.parameters.items():
        if name not in weights:
            raise DataError(f"no initial value for {name}: expected an array of shape {shape}")
        if tuple(weights[name].shape) != tuple(shape):
            raise DataError(f"the initial value of {name} has shape {tuple(weights[name].shape)}: expected {shape}")
        parameters[name] = new_parameter(weights[name], recipe, is_bias=not name.endswith(".weight"))
    return State(0, parameters, running={layer.name: _running(layer, weights) for layer in network.batch_norms})


def _running(layer: BatchNorm, weights: Mapping[str, NDArray[np.floating]]) -> Running:
    """The running statistics to begin with: those given as ``NAME.running_mean`` and ``NAME.running_variance``, or 0 and 1."""
    mean = weights.get(f"{layer.name}.running_mean", np.zeros(layer.channels))
    variance = weights.get(f"{layer.name}.running_variance", np.ones(layer.channels))
    if mean.shape != (layer.channels,) or variance.shape != (layer.channels,):
        shapes = f"{mean.shape} and {variance.shape}"
        raise DataError(f"the running statistics of {layer.name} have shapes {shapes}: expected ({layer.channels},)")
    limit = (1 << (RUNNING_BITS - 1)) - 1
    codes = (
        np.clip(round_real(np.asarray(values, np.float64), frac, Rounding.NEAREST), -limit, limit)
        for values, frac in ((mean, RUNNING_MEAN_FRAC), (variance, RUNNING_VARIANCE_FRAC))
    )
    return Running(*codes)
