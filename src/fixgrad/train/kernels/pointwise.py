"""What happens to each element between the GEMMs of a step: requantise, pool, update. The interface.

Two implementations compute the same integers: `TorchPointwise` in eager PyTorch, for any device, and `NumbaPointwise`,
which fuses each function into one pass over the CPU's memory.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fixgrad.network.recipe import UpdateConstants
from fixgrad.network.update import ParameterFormats, TermShifts
from fixgrad.numbers import StreamKey


class Placement(NamedTuple):
    """Where a tensor's images lie in the global batch: the position of the first one, and the size of that batch."""

    first: int
    batch: int


class Seen(NamedTuple):
    """Largest magnitude of an accumulator, number of saturated elements, and whether a bias left 32 bits."""

    largest: int
    saturated: int
    overflow: bool


class Measured:
    """What the range detector and the saturation counter of one tensor saw, kept on its device.

    `values` is int64 [3]: largest magnitude of an accumulator, number of saturated elements, and 1 after an overflow.
    """

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(3, dtype=torch.int64, device=device)

    def note_magnitude(self, largest: Tensor) -> None:
        torch.maximum(self.values[0], largest, out=self.values[0])

    def note_saturated(self, count: Tensor) -> None:
        self.values[1] += count

    def note_overflow(self, flag: Tensor) -> None:
        self.values[2] |= flag.to(torch.int64)

    def read(self) -> Seen:
        """What was seen so far, on the host."""
        largest, saturated, overflow = self.values.tolist()
        return Seen(largest, saturated, bool(overflow))


class UpdateJob(NamedTuple):
    """The update of one parameter, in place.

    Attributes:
        stored, momentum, gradient: int32, one shape, [out, rows, columns, in] for a convolution, contiguous.
        operand: int8 in that shape, to be filled from the new stored values; None for a bias.
        operand_shift: right shift from stored codes to operands.
        key: stream of stochastic rounding, None for nearest.
    """

    stored: Tensor
    momentum: Tensor
    gradient: Tensor
    operand: Tensor | None
    operand_shift: int
    formats: ParameterFormats
    shifts: TermShifts
    constants: UpdateConstants
    key: StreamKey | None


class Pointwise(Protocol):
    """Pointwise functions on tensors with channels innermost: [images, rows, columns, channels] or [images, features]."""

    def forward_magnitude(self, sums: Tensor, bias: Tensor | None, relu: bool, measured: Measured) -> None:
        """Measure FF accumulators after bias and rectifier (calibration)."""

    def requantise_forward(
        self, sums: Tensor, bias: Tensor | None, relu: bool, shift: int, bits: int, out: Tensor, measured: Measured
    ) -> None:
        """FF accumulators int32, plus the aligned bias int32 [channels], to codes of `bits` bits in `out`."""

    def error_magnitude(self, sums: Tensor, gate: Tensor | None, measured: Measured) -> None:
        """Measure NG accumulators behind the gate (calibration)."""

    def requantise_error(
        self,
        sums: Tensor,
        gate: Tensor | None,
        shift: int,
        key: StreamKey | None,
        place: Placement,
        out: Tensor,
        measured: Measured,
    ) -> None:
        """NG accumulators int32, set to 0 where `gate` (int8 codes) is not positive, to int8 codes in `out`.

        Rounding is stochastic on the stream `key`, or to nearest without one.
        """

    def pool(self, maps: Tensor, window: tuple[int, int]) -> Tensor:
        """Maximum of each window."""

    def pool_error(self, maps: Tensor, errors: Tensor, window: tuple[int, int]) -> Tensor:
        """The error of each window at its first maximum in raster order, zero elsewhere."""

    def rectify_error(self, maps: Tensor, errors: Tensor) -> Tensor:
        """The errors where `maps` is positive, zero elsewhere."""

    def column_sums(self, errors: Tensor) -> Tensor:
        """Sums over all but the last dimension, int64."""

    def update(self, job: UpdateJob) -> int:
        """Update a parameter in place; returns its largest stored magnitude."""

    def operand(self, stored: Tensor, shift: int, out: Tensor) -> None:
        """8-bit operands of stored codes: their rounded, saturated top."""
