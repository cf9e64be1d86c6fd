"""A data set as training uses it: a training set, a test set, and how pixels become codes."""

from dataclasses import dataclass

from fixgrad.errors import DataError
from fixgrad.train.data.augment import Augment
from fixgrad.train.data.batches import Batches, Layout
from fixgrad.train.data.image_set import ImageSet
from fixgrad.train.data.normalise import Normalise


@dataclass(frozen=True, slots=True, eq=False)
class DataSource:
    """What `open_data` returns.

    Attributes:
        train: the training set.
        test: the test set; same image shape and classes.
        normalise: from pixels to codes, one for both.
        augment: what happens to training images; None for nothing.
        validation: images held out of the training set, if asked for.

    Raises:
        DataError: the sets do not fit together.
    """

    train: ImageSet
    test: ImageSet
    normalise: Normalise
    augment: Augment | None = None
    validation: ImageSet | None = None

    def __post_init__(self) -> None:
        for other in (self.test, self.validation):
            if other is not None and (other.shape, other.class_names) != (self.train.shape, self.train.class_names):
                raise DataError(
                    f"{self.name}: the {other.split} images are {list(other.shape)} of {len(other.class_names)} classes, the "
                    f"train images {list(self.train.shape)} of {len(self.train.class_names)}: both must be the same"
                )

    @property
    def name(self) -> str:
        """The data set's name."""
        return self.train.name

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.train.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.train.shape

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, drop_last: bool = True, layout: Layout = "NCHW"
    ) -> Batches:
        """The batches of a training epoch: shuffled and augmented by (seed, epoch)."""
        return Batches(
            self.train,
            self.normalise,
            batch_size,
            seed=seed,
            epoch=epoch,
            augment=self.augment,
            drop_last=drop_last,
            layout=layout,
        )

    def test_batches(self, batch_size: int, *, layout: Layout = "NCHW") -> Batches:
        """The test set in its own order, every image once, as it is."""
        return self._evaluation(self.test, batch_size, layout)

    def validation_batches(self, batch_size: int, *, layout: Layout = "NCHW") -> Batches:
        """As `test_batches`, of the images held out for validation.

        Raises:
            DataError: none were held out.
        """
        if self.validation is None:
            raise DataError(f"{self.name} was opened without a validation set: ask for a share of the training images")
        return self._evaluation(self.validation, batch_size, layout)

    def _evaluation(self, images: ImageSet, batch_size: int, layout: Layout) -> Batches:
        return Batches(images, self.normalise, batch_size, shuffle=False, drop_last=False, layout=layout)
