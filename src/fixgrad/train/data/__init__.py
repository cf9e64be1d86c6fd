"""Data sets: images, their normalisation to 8-bit codes, augmentation and order, all decided by integers."""

from fixgrad.train.data.augment import Augment
from fixgrad.train.data.batches import Batch, Batches, Layout, epoch_order
from fixgrad.train.data.image_set import ImageSet
from fixgrad.train.data.normalise import Normalise, normalise_for
from fixgrad.train.data.registry import DATA_SETS, open_data
from fixgrad.train.data.source import DataSource

__all__ = [
    "DATA_SETS",
    "Augment",
    "Batch",
    "Batches",
    "DataSource",
    "ImageSet",
    "Layout",
    "Normalise",
    "epoch_order",
    "normalise_for",
    "open_data",
]
