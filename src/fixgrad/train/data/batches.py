"""Batches of operand codes in an order that only the seed and the epoch decide."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.numbers import permutation, stream_key
from fixgrad.train.data.augment import Augment, crop_and_flip
from fixgrad.train.data.image_set import ImageSet
from fixgrad.train.data.normalise import Normalise

#: Order of the axes of a batch: N images, C channels, H rows, W columns.
Layout = Literal["NCHW", "NHWC"]


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits `count` images, int64 [count]: a permutation (stream ``order``)."""
    return permutation(count, stream_key(seed, epoch, "order"))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One batch.

    Attributes:
        codes: int8 [B, C, H, W] (or [B, H, W, C]), C-contiguous; value = code * 2**-frac of the data set's
            `Normalise`.
        labels: int64 [B].
        indices: int64 [B], the places of the images in their set.
    """

    codes: NDArray[np.int8]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


class Batches:
    """The batches of one pass over a set: a sequence, so that any step can be asked for directly.

    ``batches[step]`` depends on the arguments below and the step alone, which is what makes a resumed run
    meet the same data; ``batches.from_step(step)`` goes on from there.
    """

    def __init__(
        self,
        images: ImageSet,
        normalise: Normalise,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
        augment: Augment | None = None,
        drop_last: bool = True,
        layout: Layout = "NCHW",
    ) -> None:
        """Plan the pass.

        Args:
            images: the set to visit.
            normalise: from its pixels to codes.
            batch_size: images in a batch, >= 1.
            seed: the run's seed.
            epoch: number of the pass, >= 0; with the seed it decides order and augmentation.
            shuffle: visit in `epoch_order`; otherwise in the order of the set.
            augment: crop and flip; None for neither.
            drop_last: leave out a last batch that is not full. The images left out differ from epoch to
                epoch.
            layout: order of the axes of the codes.

        Raises:
            UsageError: a batch size below 1, or so large that no full batch is left; channels that do not
                match.
        """
        if batch_size < 1:
            raise UsageError(f"batch size is {batch_size}: choose 1 or more images")
        if drop_last and batch_size > len(images):
            raise UsageError(
                f"batch size is {batch_size}, but {images.name} has {len(images)} {images.split} images: "
                f"choose at most {len(images)}"
            )
        if normalise.channels != images.shape[0]:
            raise UsageError(
                f"{images.name} has images of {images.shape[0]} channels, but its normalise has "
                f"{normalise.channels} means: give one for each channel"
            )
        self._set = images
        self._normalise = normalise
        self._batch_size = batch_size
        self._seed, self._epoch = seed, epoch
        self._augment = augment
        self._drop_last = drop_last
        self._layout: Layout = layout
        self._order = epoch_order(len(images), seed, epoch) if shuffle else np.arange(len(images))

    def __len__(self) -> int:
        """Batches, the last one counted if it is kept."""
        full, rest = divmod(len(self._set), self._batch_size)
        return full if self._drop_last or rest == 0 else full + 1

    def __getitem__(self, step: int) -> Batch:
        """Batch number `step`, 0 to len - 1.

        Raises:
            IndexError: there is no such batch.
        """
        return self.part(step, slice(None))

    def part(self, step: int, images: slice) -> Batch:
        """Those `images` of batch number `step`: what a worker of several computes. Nothing else of it is read.

        Raises:
            IndexError: there is no such batch.
        """
        if not 0 <= step < len(self):
            raise IndexError(f"batch {step} of {len(self)}")
        indices = self._order[step * self._batch_size : (step + 1) * self._batch_size][images]
        return Batch(self._codes(indices), self._set.labels[indices], indices)

    def size(self, step: int) -> int:
        """Images in batch number `step`."""
        return min(self._batch_size, len(self._set) - step * self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.from_step(0)

    def from_step(self, start: int) -> Iterator[Batch]:
        """The batches from number `start` to the end; nothing before it is computed."""
        return (self[step] for step in range(start, len(self)))

    def _codes(self, indices: NDArray[np.int64]) -> NDArray[np.int8]:
        pixels = self._set.images[indices]
        augment = self._augment
        codes = (
            self._normalise.codes(pixels) if augment is None else self._augmented(pixels, indices, augment)
        )
        return np.ascontiguousarray(codes.transpose(0, 2, 3, 1)) if self._layout == "NHWC" else codes

    def _augmented(
        self, pixels: NDArray[np.uint8], indices: NDArray[np.int64], augment: Augment
    ) -> NDArray[np.int8]:
        channels, height, width = self._set.shape
        pad = augment.pad
        padded = np.zeros((len(pixels), channels, height + 2 * pad, width + 2 * pad), np.int8)
        self._normalise.write_codes(pixels, padded[:, :, pad : pad + height, pad : pad + width])
        decisions = augment.decide(indices, self._seed, self._epoch, self._set.split)
        return crop_and_flip(padded, (height, width), decisions)
