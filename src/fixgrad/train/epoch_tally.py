"""Sums and ranges over the steps of an epoch."""

from dataclasses import asdict, dataclass
from typing import Any

from fixgrad.train.trainer import StepReport

#: Of a 32-bit accumulator, without its sign.
ACCUMULATOR_MAGNITUDE_BITS = 31


@dataclass(slots=True)
class TensorRange:
    """What was seen of one requantised tensor in an epoch.

    Attributes:
        saturated: mean share of its elements that saturated, 0 to 1.
        worst_step: the largest share in one step.
        accumulator_bits: magnitude bits of the largest accumulator that it was made of; 31 fill 32-bit accumulators. 0: all zero.
        exponents: the smallest and the largest exponent E that a step measured: all values were below 2^E. None: all zero.
    """

    saturated: float = 0.0
    worst_step: float = 0.0
    accumulator_bits: int = 0
    exponents: tuple[int, int] | None = None

    def measured(self, bits: int, frac: int) -> None:
        """Take the largest accumulator of a step in: its bits, and its fractional bits."""
        if bits:
            exponent = bits - frac
            low, high = self.exponents or (exponent, exponent)
            self.exponents = min(low, exponent), max(high, exponent)
            self.accumulator_bits = max(self.accumulator_bits, bits)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {**asdict(self), "exponents": None if self.exponents is None else list(self.exponents)}


def headroom(seen: TensorRange) -> int:
    """Bits of the 32-bit accumulators that the largest one left free: 31 for zeros, 0 where one more bit would wrap."""
    return ACCUMULATOR_MAGNITUDE_BITS - seen.accumulator_bits


class EpochTally:
    """Adds up what the steps of an epoch report.

    Attributes:
        overflows: accumulators that left 32 bits in any step.
    """

    def __init__(self) -> None:
        self.overflows: set[str] = set()
        self._steps = 0
        self._images = 0
        self._correct = 0
        self._loss = 0.0
        self._saturated: dict[str, float] = {}
        self._ranges: dict[str, TensorRange] = {}

    def add(self, report: StepReport, images: int) -> None:
        """Count one step on `images` images."""
        self._steps += 1
        self._images += images
        self._correct += report.correct
        self._loss += report.loss
        self.overflows |= report.overflows
        for name, share in report.saturated.items():
            self._saturated[name] = self._saturated.get(name, 0.0) + share
            seen = self._ranges.setdefault(name, TensorRange())
            seen.worst_step = max(seen.worst_step, share)
        for kind, measured in (("activation", report.forward_bits), ("error", report.error_bits)):
            for name, (bits, frac) in measured.items():
                self._ranges.setdefault(f"{kind}/{name}", TensorRange()).measured(bits, frac)

    @property
    def loss(self) -> float:
        """Mean loss of the steps, in nats."""
        return self._loss / max(self._steps, 1)

    @property
    def accuracy(self) -> float:
        """Share of the images that were right, 0 to 1."""
        return self._correct / max(self._images, 1)

    def saturation(self) -> dict[str, float]:
        """Mean share of the elements of each tensor that saturated, 0 to 1."""
        return {name: total / self._steps for name, total in self._saturated.items()}

    def ranges(self) -> dict[str, TensorRange]:
        """What was seen of each requantised tensor, ``activation/conv1``."""
        for name, share in self.saturation().items():
            self._ranges[name].saturated = share
        return self._ranges

    def widest(self) -> tuple[str, int]:
        """The tensor whose range changed most, and by how many powers of two; no name where none did."""
        spans = {name: seen.exponents[1] - seen.exponents[0] for name, seen in self._ranges.items() if seen.exponents}
        name = max(spans, key=lambda tensor: spans[tensor], default="")
        return (name, spans[name]) if name and spans[name] > 0 else ("", 0)

    def most_saturated(self) -> tuple[str, float]:
        """The tensor of which the largest share saturated, and that share; no name where nothing did."""
        shares = self.saturation()
        name = max(shares, key=lambda tensor: shares[tensor], default="")
        return (name, shares[name]) if name and shares[name] > 0 else ("", 0.0)
