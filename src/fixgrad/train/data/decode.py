"""Image files to pixels, through Pillow (imported when the first file is read)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

#: Pillow's names of pixel types: grey of 8 bits or less, and those whose range a conversion to 8 bits would
#: cut off.
_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_WIDE_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself before it is decoded: its smaller side in pixels, and whether it is grey."""

    side: int
    grey: bool


def read_header(path: Path) -> Header:
    """The header of an image file.

    Raises:
        DataError: not an image, or one of more than 8 bits a channel.
    """
    with _opened(path) as image:
        return Header(min(image.size), image.mode in _GREY_MODES)


def decode(path: Path, size: int, grey: bool) -> NDArray[np.uint8]:
    """The central square of an image, resized bilinearly to `size`; uint8 [C, size, size], C = 1 if `grey`
    else 3.

    The orientation that a camera recorded is applied; transparency is dropped.

    Raises:
        DataError: the file is not a readable image.
    """
    from PIL import Image, ImageOps

    with _opened(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("L" if grey else "RGB")
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    pixels = np.asarray(square, np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


@contextmanager
def _opened(path: Path) -> Iterator["Image"]:
    """The file, open; whatever goes wrong while it is becomes a DataError that names it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode in _WIDE_MODES:
                raise DataError(f"{path} has pixels of type {image.mode}: convert it to 8 bits a channel")
            yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that Pillow can read: replace or remove it") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error ...
        raise DataError(f"{path} is a damaged image ({error}): replace or remove it") from error
