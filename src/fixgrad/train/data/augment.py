"""Random crop and horizontal flip, decided by the counter hash.

What happens to an image in an epoch depends on the seed, the epoch and its index in the set alone: not on the
order, the batch size, the number of workers or where a run was resumed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.numbers import hash32, stream_key, uniform_below


@dataclass(frozen=True, slots=True)
class Augment:
    """What may happen to a training image: first a crop, then a flip.

    Attributes:
        pad: the image is framed by this many pixels of code 0 (the mean) and cropped back to its size at one
            of the (2 * pad + 1)**2 places, all equally likely. 0: no crop.
        flip: mirrored left to right with probability 1/2.

    Raises:
        UsageError: a negative pad.
    """

    pad: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise UsageError(f"augment pad is {self.pad}: choose 0 or more pixels")

    def decide(self, indices: NDArray[np.int64], seed: int, epoch: int, split: str) -> "Decisions":
        """The decisions for the images `indices` (int64 [B], their places in the set) of a split in an epoch.

        The streams are ``crop/SPLIT`` and ``flip/SPLIT``, the step is the epoch and the element the index.
        """
        places = 2 * self.pad + 1
        place = uniform_below(indices, stream_key(seed, epoch, f"crop/{split}"), places * places)
        coin = hash32(indices, stream_key(seed, epoch, f"flip/{split}")) >> np.uint32(31)
        return Decisions(place // places, place % places, (coin == 1) & self.flip)


def augment_named(name: str, size: int) -> Augment | None:
    """The augmentation that a user asks for by name, for images of `size` pixels a side.

    ``none``; ``crop`` (from a frame of an eighth of the side, 4 pixels for 32); ``flip``; ``crop+flip``.

    Raises:
        UsageError: another name.
    """
    parts = name.split("+")
    if name == "none":
        return None
    if len(set(parts)) != len(parts) or not set(parts) <= {"crop", "flip"}:
        raise UsageError(f"augmentation {name!r} is unknown: choose none, crop, flip or crop+flip")
    return Augment(pad=max(1, size // 8) if "crop" in parts else 0, flip="flip" in parts)


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What was decided for B images.

    Attributes:
        top: int64 [B], first row of the crop in the padded image, 0..2 * pad.
        left: int64 [B], first column of it.
        flipped: bool [B].
    """

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    flipped: NDArray[np.bool_]


def crop_and_flip(padded: NDArray[np.int8], size: tuple[int, int], decisions: Decisions) -> NDArray[np.int8]:
    """Windows of each image, mirrored where decided.

    Args:
        padded: int8 [B, C, H + 2 * pad, W + 2 * pad].
        size: (H, W).
        decisions: for the B images.

    Returns:
        int8 [B, C, H, W].
    """
    windows = sliding_window_view(padded, size, axis=(2, 3))
    out = windows[np.arange(len(padded)), :, decisions.top, decisions.left]
    flipped = np.flatnonzero(decisions.flipped)
    out[flipped] = out[flipped][..., ::-1]
    return out
