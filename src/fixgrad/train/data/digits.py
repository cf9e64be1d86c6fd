"""Handwritten digits: 1,797 grey images of 8x8 pixels that come with scikit-learn, so nothing is downloaded.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998 (its test
part). Pixels count the ink of a 4x4 block: 0 to 16.
"""

import numpy as np

from fixgrad.train.data.image_set import ImageSet
from fixgrad.train.data.normalise import INPUT_FRAC, Normalise
from fixgrad.train.data.source import DataSource
from fixgrad.train.data.split import hold_out

TEST_IMAGES = 360
#: Mean 4.88 and standard deviation 6.02 of the pixels: 11 codes a level bring the spread to 66, close to
#: 2**6.
NORMALISE = Normalise(mean=(5,), multiplier=11, shift=0, frac=INPUT_FRAC)


def open_digits() -> DataSource:
    """1,437 training and 360 test images, always the same. Not augmented: a mirrored digit is none."""
    # Imported here: scikit-learn takes longer to import than the digits take to train an epoch.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    everything = ImageSet("digits", "all", images, labels, tuple(str(digit) for digit in range(10)))
    kept, held = hold_out(len(everything), TEST_IMAGES, "split/digits")
    return DataSource(everything.take(kept, "train"), everything.take(held, "test"), NORMALISE)
