"""What happens to each element between the GEMMs of a step: im2col, requantise, pool, update. The interface.

Two implementations compute the same integers: `TorchPointwise` in eager PyTorch, for any device, and `NumbaPointwise`,
which fuses each function into one pass over the CPU's memory.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fixgrad.network.adam import AdamConstants, AdamShifts
from fixgrad.network.recipe import UpdateConstants
from fixgrad.network.update import ParameterFormats, TermShifts
from fixgrad.numbers import StreamKey
from fixgrad.train.kernels.im2col import Windows


class Placement(NamedTuple):
    """Where a tensor's images lie in the global batch: the position of the first one, and the size of that batch."""

    first: int
    batch: int


class Seen(NamedTuple):
    """Largest magnitude of an accumulator, number of saturated elements, and whether adding a bias left 32 bits."""

    largest: int
    saturated: int
    overflow: bool


def combined(measures: list[Tensor]) -> Tensor:
    """The measure of a tensor from those of its parts."""
    if len(measures) == 1:
        return measures[0]
    stacked = torch.stack(measures)
    largest, overflow = stacked[:, 0].amax(), stacked[:, 2].amax()
    return torch.stack((largest, stacked[:, 1].sum(), overflow))


def on_host(measure: Tensor) -> Seen:
    """What a measure says."""
    largest, saturated, overflow = measure.tolist()
    return Seen(largest, saturated, bool(overflow))


class UpdateJob(NamedTuple):
    """The update of one parameter, or some of its outputs, in place.

    Attributes:
        stored, momentum, gradient: int32, one shape, [out, taps, in] of a weight, [1, 1, out] of a bias, contiguous.
        mask: bool [out, in], the weights that live, or None for all.
        position: of the first output in the parameter.
        operand: int8 in that shape, to be filled from the new stored values; None for a bias.
        operand_shift: right shift from stored codes to operands.
        key: stream of stochastic rounding, None for nearest.
    """

    stored: Tensor
    momentum: Tensor
    gradient: Tensor
    mask: Tensor | None
    position: int
    operand: Tensor | None
    operand_shift: int
    formats: ParameterFormats
    shifts: TermShifts
    constants: UpdateConstants
    key: StreamKey | None


class AdamJob(NamedTuple):
    """The same update by Adam; attributes as of `UpdateJob`.

    Attributes:
        first, second: int32 words of the moments, in the shape of `stored`.
    """

    stored: Tensor
    first: Tensor
    second: Tensor
    gradient: Tensor
    mask: Tensor | None
    position: int
    operand: Tensor | None
    operand_shift: int
    formats: ParameterFormats
    shifts: AdamShifts
    constants: AdamConstants
    key: StreamKey | None


class Pointwise(Protocol):
    """Pointwise functions on tensors with channels innermost: [images, rows, columns, channels] or [images, features].

    A *measure* is what the range detector and the saturation counter saw, on the tensor's device: int64 [3] in the order of
    `Seen`.
    """

    def im2col(self, maps: Tensor, windows: Windows) -> Tensor:
        """What each tap sees at each position: see `fixgrad.train.kernels.im2col.im2col`."""

    def measure_forward(self, sums: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        """The measure of FF accumulators after bias and rectifier (calibration)."""

    def requantise_forward(self, sums: Tensor, bias: Tensor | None, relu: bool, shift: int, bits: int, out: Tensor) -> Tensor:
        """FF accumulators int32, plus the aligned bias int32 [channels], to codes of `bits` bits in `out`; their measure."""

    def measure_error(self, sums: Tensor, gate: Tensor | None) -> Tensor:
        """The measure of NG accumulators behind the gate (calibration)."""

    def requantise_error(
        self, sums: Tensor, gate: Tensor | None, shift: int, key: StreamKey | None, place: Placement, out: Tensor
    ) -> Tensor:
        """NG accumulators int32, set to 0 where `gate` (int8 codes) is not positive, to int8 codes in `out`; their measure.

        Rounding is stochastic on the stream `key`, or to nearest without one.
        """

    def pool(self, maps: Tensor, window: tuple[int, int], out: Tensor) -> None:
        """Maximum of each window of int8 codes."""

    def pool_error(self, maps: Tensor, pooled: Tensor, errors: Tensor, window: tuple[int, int], out: Tensor) -> None:
        """The error of each window at its first maximum in raster order, zero elsewhere."""

    def column_sums(self, errors: Tensor) -> Tensor:
        """Sums of int8 codes over all but the last dimension, int64."""

    def update(self, job: UpdateJob) -> Tensor:
        """Update a parameter, or some of its outputs, in place; its largest stored magnitude, an int64 scalar."""

    def adam(self, job: AdamJob) -> Tensor:
        """The same by Adam."""
