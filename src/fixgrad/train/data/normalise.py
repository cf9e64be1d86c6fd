"""From pixels to 8-bit operand codes, in integers: value = code * 2**-frac."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.numbers import saturate, shift_nearest

PIXEL_LEVELS = 256
#: Fractional bits of every data set's codes: code 64 has the value 1, and the 8 bits hold -1.98..1.98.
INPUT_FRAC = 6
_MAX_CODE = 127


@dataclass(frozen=True, slots=True)
class Normalise:
    """code = saturate8(((pixel - mean) * multiplier) >> shift), rounded to nearest (half up).

    Attributes:
        mean: the pixel level that becomes code 0, one for each channel, 0 to 255.
        multiplier: 1 to 255.
        shift: bits dropped after the product, 0 to 15.
        frac: fractional bits of the code: value = code * 2**-frac. With a spread of about 2**frac codes the
            values have about unit variance, as the usual normalisation (p - mean) / std gives, but without
            its division.

    Raises:
        UsageError: a field out of range.
    """

    mean: tuple[int, ...]
    multiplier: int
    shift: int
    frac: int

    def __post_init__(self) -> None:
        if not self.mean or not all(0 <= level < PIXEL_LEVELS for level in self.mean):
            raise UsageError(f"normalise mean is {self.mean}: give a pixel level, 0 to 255, for each channel")
        if not 1 <= self.multiplier < PIXEL_LEVELS:
            raise UsageError(f"normalise multiplier is {self.multiplier}: choose 1 to 255")
        if not 0 <= self.shift <= 15:
            raise UsageError(f"normalise shift is {self.shift}: choose 0 to 15")

    @property
    def channels(self) -> int:
        """Channels of the images it is made for."""
        return len(self.mean)

    def table(self) -> NDArray[np.int8]:
        """The code of every pixel level, int8 [C, 256], read-only: the definition, evaluated once."""
        return _table(self)

    def codes(self, images: NDArray[np.uint8]) -> NDArray[np.int8]:
        """Codes of the pixels: uint8 [n, C, H, W] in, int8 [n, C, H, W] out."""
        out = np.empty(images.shape, np.int8)
        self.write_codes(images, out)
        return out

    def write_codes(self, images: NDArray[np.uint8], out: NDArray[np.int8]) -> None:
        """As `codes`, into `out` (int8 [n, C, H, W], any strides: the inside of a padded array will do)."""
        for channel, levels in enumerate(self.table()):
            out[:, channel] = levels[images[:, channel]]

    def values(self, codes: NDArray[np.int8]) -> NDArray[np.float32]:
        """What the codes stand for, float32 and exact: the float baseline trains on these."""
        return np.ldexp(codes.astype(np.float32), -self.frac)


@lru_cache(maxsize=16)
def _table(normalise: Normalise) -> NDArray[np.int8]:
    centred = np.arange(PIXEL_LEVELS)[None, :] - np.array(normalise.mean)[:, None]
    table = saturate(shift_nearest(centred * normalise.multiplier, normalise.shift), 8).astype(np.int8)
    table.flags.writeable = False
    return table


def normalise_for(images: NDArray[np.uint8]) -> Normalise:
    """The normalisation of a training set whose statistics nobody has published; integers only.

    The mean of each channel is rounded to a pixel level. The scale is the power of two, from 1/2 to 16, that
    uses the most of the 8 bits while less than 5 % of the pixels saturate (1/2 never saturates more than the
    corner of the range).

    Args:
        images: uint8 [n, C, H, W], at least one pixel.
    """
    counts = np.stack([pixel_counts(images[:, channel]) for channel in range(images.shape[1])])
    total = int(counts[0].sum())
    levels = np.arange(PIXEL_LEVELS)
    mean = tuple(int((2 * int(count @ levels) + total) // (2 * total)) for count in counts)
    distance = np.abs(levels[None, :] - np.array(mean)[:, None])
    for multiplier in (16, 8, 4, 2, 1):
        saturated = int(counts[distance * multiplier > _MAX_CODE].sum())
        if 20 * saturated < counts.size // PIXEL_LEVELS * total:
            return Normalise(mean, multiplier, 0, INPUT_FRAC)
    return Normalise(mean, 1, 1, INPUT_FRAC)


def pixel_counts(pixels: NDArray[np.uint8], chunk: int = 4096) -> NDArray[np.int64]:
    """How often each of the 256 levels occurs, int64 [256]. In chunks, since bincount widens its input."""
    counts = np.zeros(PIXEL_LEVELS, np.int64)
    for start in range(0, len(pixels), chunk):
        counts += np.bincount(pixels[start : start + chunk].ravel(), minlength=PIXEL_LEVELS)
    return counts
