"""Sparsity: masks by kernel and element, pruning criteria, densities per layer, and the CSB format.

`Mask` and `prune` decide what is alive; `CSB` stores what is alive in the talk's Compressed Sparse Blocks,
read alike in normal and in transposed order. See docs/sparse.md.
"""

from fixgrad.sparse.blocks import BlockGrid
from fixgrad.sparse.criteria import CRITERIA, keep_count, magnitude_scores, prune
from fixgrad.sparse.csb import CSB, StorageBytes
from fixgrad.sparse.densities import TALK_DENSITIES, DensitySpec, Layer, densities_for
from fixgrad.sparse.masks import Mask
from fixgrad.sparse.validation import CSBError

__all__ = [
    "CRITERIA",
    "CSB",
    "TALK_DENSITIES",
    "BlockGrid",
    "CSBError",
    "DensitySpec",
    "Layer",
    "Mask",
    "StorageBytes",
    "densities_for",
    "keep_count",
    "magnitude_scores",
    "prune",
]
