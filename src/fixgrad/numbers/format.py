"""Number formats: what an integer code stands for."""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.numbers.rounding import Rounding, round_real


class Overflow(StrEnum):
    """What happens to a code that does not fit."""

    SATURATE = "saturate"  #: clamped to the symmetric range
    WRAP = "wrap"  #: taken modulo 2**bits, as two's complement


@dataclass(frozen=True, slots=True)
class Format:
    """A fixed-point number format: value = code * 2**-frac.

    Attributes:
        bits: width of the code, 2 to 32.
        frac: fractional bits, any integer: negative for steps above 1, larger than `bits` for values far
            below 1.
        rounding: how values between two codes are rounded when they are brought into this format.
        overflow: what happens to values outside of it. Saturating formats are symmetric: 8 bits hold
            -127..127, 255 codes, so that the negation of every code is a code and no product needs the corner
            -128 * -128.

    Raises:
        UsageError: a width out of range, or a field of the wrong type.
    """

    bits: int
    frac: int
    rounding: Rounding = Rounding.NEAREST
    overflow: Overflow = Overflow.SATURATE

    def __post_init__(self) -> None:
        for name in ("bits", "frac"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise UsageError(f"format {name} is {value!r}: it must be an integer")
            object.__setattr__(self, name, int(value))
        if not 2 <= self.bits <= 32:
            raise UsageError(f"format bits is {self.bits}: choose a width from 2 to 32")
        for name, modes in (("rounding", Rounding), ("overflow", Overflow)):
            value = getattr(self, name)
            if value not in list(modes):
                raise UsageError(f"format {name} is {value!r}: choose {' or '.join(modes)}")
            object.__setattr__(self, name, modes(value))

    @property
    def max_code(self) -> int:
        """The largest code: 127 for 8 bits."""
        return (1 << (self.bits - 1)) - 1

    @property
    def min_code(self) -> int:
        """The smallest code: -127 for 8 saturating bits, -128 for 8 wrapping bits."""
        return -self.max_code if self.overflow is Overflow.SATURATE else -self.max_code - 1

    @property
    def step(self) -> float:
        """The value of code 1."""
        return 2.0**-self.frac

    def with_frac(self, frac: int) -> "Format":
        """The same format at another scale."""
        return replace(self, frac=frac)

    def decode(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Values of the codes, float64, exact."""
        return np.ldexp(np.asarray(codes, np.float64), -self.frac)

    def encode(self, values: NDArray[np.floating], random: NDArray[np.uint32] | None = None) -> NDArray[np.int64]:
        """Codes (int64) of real values, rounded and brought into range as the format says.

        Args:
            values: any shape; must be finite.
            random: 32 random bits for each element, needed by stochastic rounding only.

        Raises:
            DataError: a value is not finite.
        """
        return self.fit(round_real(np.asarray(values, np.float64), self.frac, self.rounding, random))

    def fit(self, codes: NDArray[np.integer]) -> NDArray[np.int64]:
        """Codes brought into range (saturated or wrapped), int64."""
        wide = np.asarray(codes, np.int64)
        if self.overflow is Overflow.SATURATE:
            return np.clip(wide, self.min_code, self.max_code)
        half = np.int64(1 << (self.bits - 1))
        return ((wide + half) & np.int64((1 << self.bits) - 1)) - half

    def __str__(self) -> str:
        """Q-notation: Qm.n has m integer bits (the sign apart) and n fractional bits; m + n + 1 = bits."""
        name = f"Q{self.bits - 1 - self.frac}.{self.frac}"
        if self.overflow is Overflow.WRAP:
            name += " wrap"
        return name if self.rounding is Rounding.NEAREST else f"{name} {self.rounding}"
