"""Exchange of kernels at constant density: the weakest are dropped, and dead ones that the gradient asks for are grown.

Source: Evci, Gale, Menick, Castro, Elsen, Rigging the Lottery (ICML 2020): drop by magnitude, grow by the magnitude of the
dense gradient. One difference: only what was dead before may grow, so that everything dropped is really exchanged.
"""

from math import floor

import numpy as np

from fixgrad.errors import DataError, UsageError
from fixgrad.sparse.criteria import keep_highest, magnitude_scores
from fixgrad.sparse.masks import Array, BoolArray, Mask


def exchange(weight: Array, gradient: Array, mask: Mask, share: float, layer: str = "weight") -> Mask:
    """A mask of as many kernels (elements) as `mask`, of which `share` are others.

    Args:
        weight: stored codes or floats, [out, in, kh, kw] or [out, in].
        gradient: of the same shape, with that of dead kernels too.
        mask: before.
        share: of the live kernels to exchange, 0 to 1, rounded down; at most as many as are dead.
        layer: for messages.

    Kernels of equal score are chosen in the order of their linear indices. Raises `UsageError` for a share outside 0 to 1,
    `DataError` for shapes that do not fit.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"layer {layer}: share {share!r} of exchanged kernels is not a number with 0 <= share <= 1")
    mask.check_fits(weight.shape)
    if gradient.shape != weight.shape:
        raise DataError(f"layer {layer}: the gradient {list(gradient.shape)} has not the shape of the weight {list(weight.shape)}")
    alive = mask.alive
    count = min(floor(share * mask.count), mask.size - mask.count, mask.count)
    if count == 0:
        return mask
    # keep_highest keeps at least one, so an exchange of all starts from none.
    kept: BoolArray = np.zeros_like(alive) if count == mask.count else keep_highest(magnitude_scores(weight), mask.count - count, alive)
    grown = keep_highest(magnitude_scores(gradient), count, ~alive)
    return Mask(kept | grown)
