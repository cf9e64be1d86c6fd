"""Sparsity: masks by kernel and element, pruning criteria, densities per layer, and the CSB format.

`Mask` and `prune` decide what is alive; `CSB` stores what is alive in the talk's Compressed Sparse Blocks,
read alike in normal and in transposed order. See docs/sparse.md.
"""

from fixgrad.sparse.allocation import allocate, cost_of, energy_shares
from fixgrad.sparse.balance import keep_balanced, unevenness
from fixgrad.sparse.blocks import BlockGrid
from fixgrad.sparse.criteria import CRITERIA, keep_count, magnitude_scores, prune
from fixgrad.sparse.csb import CSB, StorageBytes
from fixgrad.sparse.densities import TALK_DENSITIES, DensitySpec, Layer, densities_for
from fixgrad.sparse.masks import Mask
from fixgrad.sparse.regrow import exchange
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
    "allocate",
    "cost_of",
    "densities_for",
    "energy_shares",
    "exchange",
    "keep_balanced",
    "keep_count",
    "magnitude_scores",
    "prune",
    "unevenness",
]
