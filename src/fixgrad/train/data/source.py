"""A data set as training uses it: a training set, a test set, and how pixels become codes."""

from dataclasses import dataclass, replace

from fixgrad.errors import DataError, UsageError
from fixgrad.train.data.augment import Augment
from fixgrad.train.data.batches import Batches, Layout
from fixgrad.train.data.image_set import ImageSet
from fixgrad.train.data.normalise import Normalise
from fixgrad.train.data.split import hold_out


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
        train = self.train
        for other in (self.test, self.validation):
            if other is not None and (other.shape, other.class_names) != (train.shape, train.class_names):
                raise DataError(
                    f"{self.name}: the {other.split} images are {list(other.shape)} of "
                    f"{len(other.class_names)} classes, the training images {list(train.shape)} of "
                    f"{len(train.class_names)}: make them agree"
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

    def with_validation(self, percent: int) -> "DataSource":
        """The same with `percent` of the training images (rounded down, at least one) held out for
        validation.

        The choice depends on the set alone, not on a run's seed; the test set stays untouched for the last
        word.

        Raises:
            UsageError: a percentage outside 1 to 90, or a training set too small to share.
        """
        if not 1 <= percent <= 90:
            raise UsageError(f"validation share is {percent} %: choose 1 to 90")
        count = len(self.train)
        if count < 2:
            raise UsageError(f"{self.name} has {count} training image: none can be held out for validation")
        kept, held = hold_out(count, max(1, count * percent // 100), "split/validation")
        return replace(
            self, train=self.train.take(kept, "train"), validation=self.train.take(held, "validation")
        )

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
            UsageError: none were held out.
        """
        if self.validation is None:
            raise UsageError(
                f"{self.name} has no validation images: open it with a share of the training images"
            )
        return self._evaluation(self.validation, batch_size, layout)

    def _evaluation(self, images: ImageSet, batch_size: int, layout: Layout) -> Batches:
        return Batches(images, self.normalise, batch_size, shuffle=False, drop_last=False, layout=layout)
