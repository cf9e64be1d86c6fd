"""A labelled set of images in memory, checked once."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images and their classes.

    Attributes:
        name: the data set, for messages and reports: ``"cifar10"``.
        split: ``"train"``, ``"validation"`` or ``"test"``; also names the random streams of its augmentation.
        images: uint8 [n, C, H, W], may be memory-mapped; kept as a read-only view.
        labels: int64 [n], each in 0..len(class_names) - 1; kept as a read-only view.
        class_names: one for each class, in the order of the labels.

    Raises:
        DataError: wrong shape or type, no images, or a label out of range (the first such image is named).
    """

    name: str
    split: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        self._check_images()
        self._check_labels()
        for field in ("images", "labels"):
            view = getattr(self, field).view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def class_counts(self) -> NDArray[np.int64]:
        """How many images each class has, int64 [classes]."""
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)

    def take(self, indices: NDArray[np.int64], split: str) -> "ImageSet":
        """The images at `indices`, in that order, as a set of its own."""
        return ImageSet(self.name, split, self.images[indices], self.labels[indices], self.class_names)

    def fingerprint(self) -> str:
        """32 hexadecimal digits of shape, pixels and labels: copies that share it train to the same bits."""
        digest = hashlib.blake2b(repr(self.images.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").data)
        return digest.hexdigest()

    def _check_images(self) -> None:
        where = f"the {self.split} images of {self.name}"
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"{where} are {self.images.dtype} {list(self.images.shape)}: expected uint8 [n, channels, "
                "height, width]"
            )
        if 0 in self.images.shape:
            raise DataError(f"{where} have shape {list(self.images.shape)}: no side may be 0")

    def _check_labels(self) -> None:
        where = f"the {self.split} labels of {self.name}"
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"{where} are {self.labels.dtype} {list(self.labels.shape)}: expected int64 "
                f"[{len(self.images)}], one for each image"
            )
        classes = len(self.class_names)
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= classes))
        if wrong.size:
            first = int(wrong[0])
            raise DataError(
                f"{where}: label {first} is {self.labels[first]}, expected 0 to {classes - 1}: correct it"
            )
