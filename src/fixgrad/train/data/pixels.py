"""What a user's dataset may call an image or a label, brought to uint8 [C, H, W] and int."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError

_CHANNELS = (1, 3)
_MAX_PIXEL = 255
#: Labels above this are taken for a mistake (a hash, a file offset) before a table of that many classes is
#: made.
MAX_LABEL = 99_999


def as_pixels(image: object, where: str) -> NDArray[np.uint8]:
    """An image as uint8 [C, H, W].

    Args:
        image: a NumPy array, a torch tensor or a Pillow image: [H, W], [C, H, W] or [H, W, C] with C = 1 or
            3. Where both ends could be the channels, a tensor is taken as [C, H, W] and anything else as [H,
            W, C]. Integers are pixel levels 0 to 255; floats are 0 to 1 and become round(255 * x), half up;
            booleans are black and white.
        where: names the image in messages.

    Raises:
        DataError: another shape or type, or a value out of range.
    """
    tensor = hasattr(image, "detach")  # torch's own way to NumPy; torch itself need not be imported here
    array = _as_array(image, where)
    return _levels(_channels_first(array, tensor, where), where)


def as_label(label: object, where: str) -> int:
    """A label as an int: an integer, or a NumPy or torch scalar of integers.

    Raises:
        DataError: anything else, or out of range.
    """
    array = _as_array(label, where)
    if array.size != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{where} has the label {label!r:.60}, expected one integer")
    number = int(array.reshape(()))
    if not 0 <= number <= MAX_LABEL:
        raise DataError(f"{where} has the label {number}, expected 0 to {MAX_LABEL}")
    return number


def _as_array(value: Any, where: str) -> NDArray[Any]:
    plain = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    if getattr(plain, "mode", None) in (
        "P",
        "1",
        "CMYK",
        "YCbCr",
        "RGBA",
        "LA",
    ):  # Pillow: indices, inks, alpha
        plain = plain.convert("L" if plain.mode in ("1", "LA") else "RGB")
    try:
        return np.asarray(plain)
    except Exception as error:  # __array__ of a foreign class, ragged lists
        raise DataError(f"{where} holds a {type(value).__name__} that is no array: {error}") from error


def _channels_first(array: NDArray[Any], tensor: bool, where: str) -> NDArray[Any]:
    shape = array.shape
    if len(shape) == 2 and 0 not in shape:
        return array[None]
    if len(shape) == 3 and 0 not in shape:
        first, last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
        if first and (tensor or not last):
            return array
        if last:
            return array.transpose(2, 0, 1)
    raise DataError(
        f"{where} has an image of shape {list(shape)}: expected [H, W], [C, H, W] or [H, W, C] with 1 or 3 "
        "channels and no empty side"
    )


def _levels(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(_MAX_PIXEL)
    if kind not in "iuf":
        raise DataError(f"{where} has an image of {array.dtype}: expected integers 0 to 255 or floats 0 to 1")
    top = 1 if kind == "f" else _MAX_PIXEL
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= top):  # so written, NaN is refused too
        raise DataError(
            f"{where} has {array.dtype} pixels from {low} to {high}, expected 0 to {top}: return the image "
            "before any normalisation, which is done in integers here"
        )
    if kind == "f":
        return np.floor(array.astype(np.float64) * _MAX_PIXEL + 0.5).astype(np.uint8)
    return array.astype(np.uint8)
