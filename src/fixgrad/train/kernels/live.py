"""Products of pruned layers without the channels that are dead, where that is quicker.

A channel is dead where the mask keeps none of its kernels: as an input it is read by nobody, as an output it gives zeros.
Without dead channels a product is smaller, but they have to be taken out of maps and weights, and zeros put back. Which is
quicker depends on the shapes and on the machine: it is tried, once for each shape in a process. Both give the same integers.
(Dead kernels between live ones are multiplied as zeros: 8-bit instructions do that faster than any others skip them, unless
some nine tenths are dead.)
"""

import time
from collections.abc import Callable, Hashable
from math import inf
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from fixgrad.train.kernels.convolution import Accumulators, Product, Sum
from fixgrad.train.kernels.scratch import scratch

Work = TypeVar("Work", Product, Sum)

#: Times that each candidate is tried: the quickest counts.
TRIALS = 3
#: What is gained must be more than the trial's error.
MARGIN = 0.95

_decisions: dict[Hashable, bool] = {}


class Live(NamedTuple):
    """Channels of a weight [out, ..., in] that have a live kernel: ascending numbers, or None where all have."""

    inputs: Tensor | None
    outputs: Tensor | None

    def of_weights(self, weights: Tensor) -> Tensor:
        """What is left of [out, ..., in]."""
        if self.outputs is not None:
            weights = weights.index_select(0, self.outputs)
        return of_channels(weights, self.inputs)

    def put_back(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """A gradient of what is left in the shape of the whole, zero elsewhere."""
        if self.inputs is not None:
            gradient = gradient.new_zeros((*gradient.shape[:-1], shape[-1])).index_copy_(-1, self.inputs, gradient)
        if self.outputs is not None:
            gradient = gradient.new_zeros(shape).index_copy_(0, self.outputs, gradient)
        return gradient


def live_channels(mask: Tensor) -> Live | None:
    """Of a mask [out, in]; None where no channel is dead, and where no kernel is live."""
    inputs, outputs = (mask.any(dim=dim).nonzero().flatten() for dim in (0, 1))
    if len(inputs) == 0 or (len(inputs), len(outputs)) == (mask.shape[1], mask.shape[0]):
        return None
    return Live(
        inputs if len(inputs) < mask.shape[1] else None,
        outputs if len(outputs) < mask.shape[0] else None,
    )


def of_channels(maps: Tensor, channels: Tensor | None) -> Tensor:
    """The channels, the last dimension, of those numbers."""
    return maps if channels is None else maps.index_select(-1, channels)


def among_zeros(product: Product, channels: Tensor | None, width: int) -> Product:
    """A product of some output channels as one of all `width`."""
    if channels is None:
        return product
    numbers = channels

    def compute(part: slice) -> Accumulators:
        sums, overflow = product.compute(part)
        whole = scratch("among zeros", (*sums.shape[:-1], width), sums).zero_()
        return Accumulators(whole.index_copy_(-1, numbers, sums), overflow)

    return Product(product.tiles, compute)


def quicker(key: Hashable, whole: Callable[[], Work], narrow: Callable[[], Work], team: int) -> Work:
    """The work that takes less time, by a trial of both when `key` comes up for the first time.

    Args:
        key: everything on which the times depend: the phase and all shapes.
        whole, narrow: make the work; nothing of it has been done yet.
        team: threads that share its parts, but not its making.
    """
    if key not in _decisions:
        _decisions[key] = _cost(narrow, team) < MARGIN * _cost(whole, team)
    return narrow() if _decisions[key] else whole()


def _cost(make: Callable[[], Work], team: int) -> float:
    """Seconds of this thread's processor time, which others on the machine do not lengthen."""
    least = inf
    for _ in range(TRIALS):
        begin = time.thread_time()
        work = make()
        made = time.thread_time()
        parts = _do_first(work)
        done = time.thread_time()
        least = min(least, made - begin + (done - made) * max(1.0, parts / team))
    return least


def _do_first(work: Product | Sum) -> int:
    """Do the first part; how many there are."""
    if isinstance(work, Sum):
        work.tasks[0]()
        return len(work.tasks)
    work.compute(work.tiles[0])
    return len(work.tiles)
