"""im2col against its definition, pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from fixgrad.errors import UsageError
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.train.kernels.im2col import forward_windows, gradient_windows, im2col
from fixgrad.train.kernels.pointwise_numba import NumbaPointwise

pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731


def slowly(maps, windows):
    """The windows as their attributes define them: what each tap sees, zero between and beside the map's pixels."""
    images, height, width, channels = maps.shape
    (oh, ow), (kh, kw) = windows.outputs, windows.kernel
    out = np.zeros((images, oh, ow, kh, kw, channels), maps.dtype)
    for i, j, u, v in np.ndindex(oh, ow, kh, kw):
        row = i * windows.stride[0] + u * windows.dilation[0] - windows.offset[0]
        column = j * windows.stride[1] + v * windows.dilation[1] - windows.offset[1]
        if row % windows.spread[0] or column % windows.spread[1]:
            continue
        row, column = row // windows.spread[0], column // windows.spread[1]
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j, u, v] = maps[:, row, column]
    return out.reshape(images * oh * ow, kh * kw * channels)


@given(
    size=pair(1, 7), kernel=pair(1, 3), stride=pair(1, 3), padding=pair(0, 4), dilation=pair(1, 3),
    images=st.integers(1, 3), channels=st.sampled_from((1, 2, 3, 11, 32, 37)), seed=st.integers(0, 99),
)  # fmt: skip
def test_forward_and_gradient_windows(size, kernel, stride, padding, dilation, images, channels, seed):
    geometry = ConvGeometry(stride, padding, dilation)
    try:
        outputs = geometry.output_size(*size, *kernel)
    except UsageError:
        assume(False)
    rng = np.random.default_rng(seed)
    for windows, extent in (
        (forward_windows(size, kernel, geometry), size),
        (gradient_windows(size, kernel, geometry), outputs),
    ):
        maps = rng.integers(-127, 128, (images, *extent, channels), np.int8)
        for lower in (im2col, NumbaPointwise().im2col):
            assert np.array_equal(lower(torch.from_numpy(maps), windows).numpy(), slowly(maps, windows))


def test_channels_of_a_group_are_gathered():
    maps = torch.from_numpy(np.random.default_rng(0).integers(-127, 128, (2, 5, 4, 12), np.int8))
    windows = forward_windows((5, 4), (3, 3), ConvGeometry(padding=(1, 1)))
    for part in maps.chunk(3, dim=3):
        assert torch.equal(NumbaPointwise().im2col(part, windows), im2col(part, windows))


@pytest.mark.parametrize("lower", [im2col, NumbaPointwise().im2col])
def test_a_1x1_kernel_needs_no_copy(lower):
    maps = torch.arange(24, dtype=torch.int8).reshape(2, 2, 3, 2)
    columns = lower(maps, forward_windows((2, 3), (1, 1), ConvGeometry()))
    assert columns.data_ptr() == maps.data_ptr()
    assert torch.equal(columns, maps.reshape(12, 2))
