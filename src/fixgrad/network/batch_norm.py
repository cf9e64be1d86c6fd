"""Batch normalisation as a layer: shapes and parameters. Its integers are those of `fixgrad.network.normalisation`."""

from dataclasses import dataclass
from typing import ClassVar

from fixgrad.errors import UsageError
from fixgrad.network.layers import Layer, Shape

#: Width of the codes that it reads from a layer with weights.
WIDE_BITS = 16
#: Fractional bits of the momentum of the running statistics.
AVERAGE_FRAC = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm(Layer):
    """gamma * (x - mean) / sqrt(variance + eps) + beta, with the mean and variance of each channel (or feature) in the batch.

    Source: S. Ioffe and C. Szegedy, "Batch Normalization", ICML 2015.

    Attributes:
        channels: or features.
        eps: added to the variance.
        momentum: share of a batch in the running mean and variance, which evaluation uses.
        relu: whether the result is rectified before it is requantised.
        clip6: whether it is also cut off at 6 (ReLU6).
    """

    kind: ClassVar[str] = "batchnorm"
    rescales: ClassVar[bool] = True
    channels: int
    eps: float = 1e-5
    momentum: float = 0.1
    relu: bool = False
    clip6: bool = False

    @property
    def rectifies(self) -> bool:
        return self.relu

    @property
    def ceiling(self) -> int | None:
        return 6 if self.clip6 else None

    @property
    def gamma(self) -> str:
        """Name of the factors."""
        return f"{self.name}.gamma"

    @property
    def beta(self) -> str:
        """Name of the offsets."""
        return f"{self.name}.beta"

    @property
    def parameters(self) -> dict[str, Shape]:
        return {self.gamma: (self.channels,), self.beta: (self.channels,)}

    @property
    def average_factor(self) -> int:
        """The momentum with AVERAGE_FRAC fractional bits."""
        return int(self.momentum * (1 << AVERAGE_FRAC) + 0.5)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if shape[0] != self.channels:
            raise UsageError(f"{self.name} normalises {self.channels} channels, but its input has the shape {shape}")
        if not 0 < self.eps < 1:
            raise UsageError(f"{self.name} has eps {self.eps}: choose a number above 0 and below 1")
        if not 0 <= self.momentum <= 1:
            raise UsageError(f"{self.name} has momentum {self.momentum}: choose 0 to 1")
        if self.clip6 and not self.relu:
            raise UsageError(f"{self.name} is cut off at 6 but not rectified: set relu too")
        return shape
