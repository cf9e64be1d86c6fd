"""Sums over the steps of an epoch."""

from fixgrad.train.trainer import StepReport


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

    def add(self, report: StepReport, images: int) -> None:
        """Count one step on `images` images."""
        self._steps += 1
        self._images += images
        self._correct += report.correct
        self._loss += report.loss
        self.overflows |= report.overflows
        for name, share in report.saturated.items():
            self._saturated[name] = self._saturated.get(name, 0.0) + share

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

    def most_saturated(self) -> tuple[str, float]:
        """The tensor of which the largest share saturated, and that share; no name where nothing did."""
        shares = self.saturation()
        name = max(shares, key=lambda tensor: shares[tensor], default="")
        return (name, shares[name]) if name and shares[name] > 0 else ("", 0.0)
