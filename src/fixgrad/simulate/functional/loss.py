"""LOSS: the gradient of softmax cross-entropy, by table."""

import numpy as np
from numpy.typing import NDArray

from fixgrad.machine.encoding import Instruction
from fixgrad.network.softmax import loss_gradient
from fixgrad.numbers import StreamKey, hash32, saturate, shift_nearest, shift_stochastic
from fixgrad.simulate.functional.chip import Chip, magnitudes
from fixgrad.simulate.functional.fault import Fault
from fixgrad.simulate.functional.post import ERROR_BITS, add_bias_gradient


def loss(chip: Chip, i: Instruction) -> NDArray[np.int64]:
    """Errors of one micro-batch from its logits and labels; returns their codes [classes, 1, 1, lanes]."""
    param, lanes = chip.entry(i.param), chip.machine.lanes
    logits = chip.words_at(i.logits, "<i2" if i.logit_bits > 8 else "i1", (i.classes,), (1,))[:, : i.images]
    labels = chip.integers_at(i.labels, "<u2", lanes)[: i.images].astype(np.int64)
    if i.images and labels.max() >= i.classes:
        raise Fault(f"label {labels.max()} is none of {i.classes} classes")
    errors = loss_gradient(logits.T, param["frac"], labels).T
    if param["stochastic"]:
        image = i.random_image + np.arange(i.images)
        elements = chip.integers_at(i.element, "<u4", i.classes).astype(np.int64)[:, None] + image
        wide = shift_stochastic(errors, param["shift"], hash32(elements, StreamKey(param["key_low"], param["key_high"])))
    else:
        wide = shift_nearest(errors, param["shift"])
    codes = np.zeros((i.classes, lanes), np.int64)
    codes[:, : i.images] = saturate(wide, ERROR_BITS)
    overflow = i.with_bias and add_bias_gradient(chip, i.bias_gradient, codes)
    chip.measure(i.statistics, magnitudes(errors), int((codes[:, : i.images] != wide).sum()), bool(overflow))
    chip.words_at(i.target, "i1", (i.classes,), (1,))[...] = codes
    return codes[:, None, None, :]
