"""Masks: one bool [out, in] for kernels and for elements."""

import numpy as np
import pytest

from fixgrad.errors import DataError
from fixgrad.sparse import Mask

ALIVE = np.array([[True, False, True], [False, False, True]])


def test_count_size_and_density() -> None:
    mask = Mask(ALIVE)
    assert (mask.count, mask.size, mask.shape) == (3, 6, (2, 3))
    assert mask.density == 0.5
    assert Mask(np.zeros((0, 4), dtype=bool)).density == 1.0


def test_full_keeps_everything() -> None:
    assert Mask.full((4, 5, 3, 3)) == Mask(np.ones((4, 5), dtype=bool))
    assert Mask.full((4, 5)).density == 1.0


def test_expand_repeats_the_mask_over_the_taps_without_a_copy() -> None:
    expanded = Mask(ALIVE).expand((2, 3, 3, 5))
    assert expanded.shape == (2, 3, 3, 5)
    assert (expanded == ALIVE[:, :, None, None]).all()
    assert expanded.strides[2:] == (0, 0)
    assert not expanded.flags.writeable
    assert np.array_equal(Mask(ALIVE).expand((2, 3)), ALIVE)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.float32])
def test_apply_zeroes_dead_kernels_whole_and_leaves_the_argument_alone(dtype: type) -> None:
    weight = np.arange(1, 2 * 3 * 3 * 3 + 1).reshape(2, 3, 3, 3).astype(dtype)
    before = weight.copy()
    masked = Mask(ALIVE).apply(weight)
    assert masked.dtype == dtype
    assert np.array_equal(masked[ALIVE], weight[ALIVE])
    assert not masked[~ALIVE].any()
    assert np.array_equal(weight, before)


def test_apply_zeroes_a_dead_nan() -> None:
    masked = Mask(ALIVE).apply(np.full((2, 3), np.nan))
    assert np.array_equal(masked[~ALIVE], np.zeros(3))
    assert np.isnan(masked[ALIVE]).all()


def test_a_mask_does_not_change_with_the_array_it_was_made_from() -> None:
    source = ALIVE.copy()
    mask = Mask(source)
    source[:] = False
    assert mask.count == 3
    with pytest.raises(ValueError, match="read-only"):
        mask.alive[0, 0] = False


def test_and_keeps_what_both_keep() -> None:
    assert (Mask(ALIVE) & Mask(~ALIVE)).count == 0
    assert (Mask(ALIVE) & Mask.full((2, 3))) == Mask(ALIVE)
    with pytest.raises(DataError, match=r"\[2, 3\] and \[3, 2\]"):
        Mask(ALIVE) & Mask(ALIVE.T)


@pytest.mark.parametrize("alive", [np.ones((2, 2)), np.ones((2, 2), dtype=np.uint8), np.ones(3, dtype=bool)])
def test_what_is_no_mask_is_refused(alive: np.ndarray) -> None:
    with pytest.raises(DataError, match=f"dtype {alive.dtype} with {alive.ndim} axes"):
        Mask(alive)


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 3, 3), (2, 3, 3), (6,)])
def test_a_weight_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"mask"):
        Mask(ALIVE).apply(np.zeros(shape))
