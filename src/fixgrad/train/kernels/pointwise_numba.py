"""The pointwise functions of a training step on the CPU, each one pass over memory (see `fixgrad.train.kernels.fused`)."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fixgrad.network.recipe import MOMENTUM_FRAC, OPERAND_BITS, UpdateConstants
from fixgrad.network.update import TERM_BITS, ParameterFormats, TermShifts
from fixgrad.numbers import StreamKey
from fixgrad.numbers.counter_hash import HASH_KEY_ROUND, HASH_ROUNDS
from fixgrad.train.kernels import fused, fused_adam, fused_im2col
from fixgrad.train.kernels.adam_numba import adam_words
from fixgrad.train.kernels.im2col import Windows, pixels_seen
from fixgrad.train.kernels.pointwise import AdamJob, Placement, UpdateJob
from fixgrad.train.kernels.pointwise_torch import TorchPointwise
from fixgrad.train.kernels.scratch import scratch

_ROUNDS = np.array(HASH_ROUNDS, np.uint32).reshape(-1)
_INT32_MIN = -(1 << 31)
_NO_KEY = StreamKey(0, 0)
_NO_BIAS = np.empty(0, np.int32)
#: Not the result itself: a loop whose arrays may overlap is not made of vectors.
_NO_GATE = np.empty(0, np.int8)

if (len(HASH_ROUNDS), HASH_KEY_ROUND) != (fused.HASH_ROUNDS, fused.HASH_KEY_ROUND):
    raise ImportError("the compiled hash has other rounds than fixgrad.numbers.counter_hash: bring fused.py up to date")


class NumbaPointwise(TorchPointwise):
    """See `fixgrad.train.kernels.pointwise.Pointwise`. Measures and 32-bit logits, which are rare, are eager's."""

    def im2col(self, maps: Tensor, windows: Windows) -> Tensor:
        images, height, width, channels = maps.shape
        if windows.is_identity((height, width)):
            return maps.reshape(-1, channels)
        rows, columns = pixels_seen(windows, (height, width))
        positions, depth = images * len(rows) * len(columns), rows.shape[1] * columns.shape[1] * channels
        out = scratch("im2col", (positions * depth + fused_im2col.VECTOR,), maps)
        fused_im2col.gather(maps.contiguous().numpy(), rows, columns, out.numpy())
        return out[: positions * depth].view(positions, depth)

    def requantise_forward(self, sums: Tensor, bias: Tensor | None, relu: bool, shift: int, bits: int, out: Tensor) -> Tensor:
        if out.dtype == torch.int32:
            return super().requantise_forward(sums, bias, relu, shift, bits, out)
        addend = _NO_BIAS if bias is None else bias.numpy()
        limit = (1 << (bits - 1)) - 1
        largest, saturated, overflow = fused.requantise_forward(
            _flat(sums), addend, 0 if relu else _INT32_MIN, shift, limit, _flat(out)
        )
        return _measure(largest, saturated, overflow)

    def requantise_error(
        self, sums: Tensor, gate: Tensor | None, shift: int, key: StreamKey | None, place: Placement, out: Tensor
    ) -> Tensor:
        codes, words = _flat(out), key or _NO_KEY
        channels = out.shape[-1]
        largest, saturated = fused.requantise_error(
            _flat(sums),
            _NO_GATE if gate is None else _flat(gate),
            gate is not None,
            shift,
            key is not None,
            *words,
            _ROUNDS,
            len(codes) // (len(out) * channels),
            channels,
            place.first,
            place.batch,
            codes,
        )
        return _measure(largest, saturated, 0)

    def pool(self, maps: Tensor, window: tuple[int, int], out: Tensor) -> None:
        fused.pool(maps.numpy(), *window, out.numpy())

    def pool_error(self, maps: Tensor, pooled: Tensor, errors: Tensor, window: tuple[int, int], out: Tensor) -> None:
        covered = out.shape[1] // window[0] * window[0], out.shape[2] // window[1] * window[1]
        if covered != tuple(out.shape[1:3]):
            out.zero_()  # what lies in no window
        taken = np.empty(out.shape[3], np.int8)
        fused.pool_error(maps.numpy(), pooled.numpy(), errors.numpy(), *window, taken, out.numpy())

    def column_sums(self, errors: Tensor) -> Tensor:
        sums = np.zeros(errors.shape[-1], np.int64)
        fused.column_sums(_rows(errors), sums)
        return torch.from_numpy(sums)

    def update(self, job: UpdateJob) -> Tensor:
        arrays = job.stored.numpy(), job.momentum.numpy(), job.gradient.numpy(), *_mask_and_operand(job)
        words = _update_words(job.constants, job.shifts, job.formats, job.operand_shift)
        return torch.tensor(fused.update(*arrays, words, job.key is not None, *(job.key or _NO_KEY), _ROUNDS, job.position))

    def adam(self, job: AdamJob) -> Tensor:
        moments = job.first.numpy(), job.second.numpy()
        arrays = job.stored.numpy(), *moments, job.gradient.numpy(), *_mask_and_operand(job)
        words = np.array(adam_words(job), np.int64)
        return torch.tensor(fused_adam.adam(*arrays, words, job.key is not None, *(job.key or _NO_KEY), _ROUNDS, job.position))


def _mask_and_operand(job: UpdateJob | AdamJob) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two that a job may lack, empty then."""
    mask = np.empty((0, 0), np.bool_) if job.mask is None else job.mask.numpy()
    operand = np.empty((0, 0, 0), np.int8) if job.operand is None else job.operand.numpy()
    return mask, operand


class UpdateWords(NamedTuple):
    """The constants of an update as the compiled function reads them, int64 each.

    `left` and `right` are shifts, one of them 0; `half` rounds a right shift; `bound` clamps before a left one.
    """

    momentum: int
    rate: int
    decay: int
    gradient_left: int
    gradient_right: int
    gradient_half: int
    gradient_bound: int
    decay_left: int
    decay_right: int
    decay_half: int
    decay_bound: int
    term_limit: int
    momentum_shift: int
    momentum_half: int
    momentum_limit: int
    step_left: int
    step_right: int
    step_half: int
    stored_limit: int
    operand_shift: int
    operand_half: int
    operand_limit: int


@lru_cache(maxsize=1024)
def _update_words(
    constants: UpdateConstants, shifts: TermShifts, formats: ParameterFormats, operand_shift: int
) -> NDArray[np.int64]:
    """An `UpdateWords` as an array. Many layers share one, and so do the steps between two changes of the rate."""
    step = shifts.step
    words = UpdateWords(
        constants.momentum,
        constants.rate.mantissa,
        constants.decay.mantissa,
        *_align_words(shifts.gradient),
        *_align_words(shifts.decay),
        _limit(TERM_BITS),
        MOMENTUM_FRAC,
        _half(MOMENTUM_FRAC),
        _limit(formats.momentum_bits),
        max(step, 0),
        max(-step, 0),
        _half(-step),
        _limit(formats.stored_bits),
        operand_shift,
        _half(operand_shift),
        _limit(OPERAND_BITS),
    )
    return np.array(words, np.int64)


def _align_words(left: int) -> tuple[int, int, int, int]:
    bound = _limit(TERM_BITS) >> left if left >= 0 else _limit(64)
    return max(left, 0), max(-left, 0), _half(-left), bound


def _half(shift: int) -> int:
    return 1 << (shift - 1) if shift > 0 else 0


def _limit(bits: int) -> int:
    return (1 << (bits - 1)) - 1


def _measure(largest: int, saturated: int, overflow: int) -> Tensor:
    """What `torch.tensor` makes of them, in a fraction of its time."""
    return torch.from_numpy(np.array((largest, saturated, overflow), np.int64))


def _flat(tensor: Tensor) -> NDArray[Any]:
    """All elements in their order, without a copy: the tensors of a tile are contiguous."""
    codes: NDArray[Any] = tensor.numpy()
    return codes.reshape(-1)


def _rows(tensor: Tensor) -> NDArray[Any]:
    """[rows, channels] without a copy: the tensors of a tile are contiguous."""
    codes: NDArray[Any] = tensor.numpy()
    return codes.reshape(-1, codes.shape[-1])
