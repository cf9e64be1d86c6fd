"""The tiled products of FF, NG and WG against their definitions, for any tiles and any number of threads."""

import numpy as np
import pytest
import torch

from fixgrad.numbers import conv_forward_reference, conv_input_gradient_reference, conv_weight_gradient_reference
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.train.kernels import convolution, tiles
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.kernels.convolution import correlate, correlate_rows, multiply_rows, slide
from fixgrad.train.kernels.gemm import GemmPath
from fixgrad.train.kernels.im2col import forward_windows, gradient_windows
from fixgrad.train.kernels.pointwise_torch import TorchPointwise
from fixgrad.train.kernels.workers import workers

GEOMETRIES = {
    "same": ((3, 3), ConvGeometry(padding=(1, 1))),
    "strided": ((3, 2), ConvGeometry(stride=(2, 3), padding=(1, 0))),
    "dilated": ((2, 3), ConvGeometry(dilation=(3, 2), padding=(2, 3))),
    "grouped": ((3, 3), ConvGeometry(padding=(1, 1), groups=3)),
    "depthwise": ((2, 2), ConvGeometry(stride=(2, 2), groups=6)),
    "pixel": ((1, 1), ConvGeometry()),
}


@pytest.fixture(params=[1, 2, 5])
def many_tiles(request, monkeypatch):
    """Kernels of a team that gets tiles of a few pixels each."""
    monkeypatch.setattr(convolution, "_SMALL_PRODUCTS", 0)
    monkeypatch.setattr(convolution, "_WG_PIXELS", 1)
    monkeypatch.setattr(tiles, "TILE_BYTES", 2048)
    monkeypatch.setattr(tiles, "_SMALL_BYTES", 0)
    return Kernels(GemmPath.INT8, TorchPointwise(), workers(request.param))


def to_last(codes):
    return torch.from_numpy(np.ascontiguousarray(codes.transpose(0, 2, 3, 1)).astype(np.int8))


def gathered(product, images):
    parts = [product.compute(part).copied() for part in product.tiles]
    assert sum(part.stop - part.start for part in product.tiles) == images
    assert all(part.overflow is None for part in parts)
    return torch.cat([part.sums for part in parts])


@pytest.mark.parametrize("name", GEOMETRIES)
def test_three_products(name, many_tiles):
    kernel, geometry = GEOMETRIES[name]
    groups, size, images = geometry.groups, (8, 9), 7
    rng = np.random.default_rng(len(name))
    outputs = geometry.output_size(*size, *kernel)
    x, dy = rng.integers(-127, 128, (images, 6, *size)), rng.integers(-127, 128, (images, 12, *outputs))
    w = rng.integers(-127, 128, (12, 6 // groups, *kernel))
    grouped = torch.from_numpy(w.astype(np.int8)).permute(0, 2, 3, 1).reshape(groups, 12 // groups, *kernel, 6 // groups)
    seen = forward_windows(size, kernel, geometry)

    y = gathered(slide(to_last(x), grouped.flatten(2).transpose(1, 2), seen, many_tiles), images)
    assert np.array_equal(y.permute(0, 3, 1, 2).numpy(), conv_forward_reference(x, w, geometry).values)

    flipped = grouped.flip(2, 3).permute(0, 2, 3, 1, 4).flatten(1, 3)
    dx = gathered(slide(to_last(dy), flipped, gradient_windows(size, kernel, geometry), many_tiles), images)
    assert np.array_equal(dx.permute(0, 3, 1, 2).numpy(), conv_input_gradient_reference(dy, w, size, geometry).values)

    product = correlate(to_last(x), to_last(dy), seen, groups, many_tiles)
    many_tiles.workers.map(lambda task: task(), product.tasks)
    dw = product.total().sums.permute(0, 3, 1, 2).numpy()
    assert np.array_equal(dw, conv_weight_gradient_reference(x, dy, kernel, geometry).values)


@pytest.mark.parametrize("path", GemmPath)
def test_overflowing_sums_wrap_and_are_flagged(path):
    kernels = Kernels(path, TorchPointwise(), workers(2))
    terms = 133_145  # 127 * 127 * 133,145 = 2**31 + 12,057
    x, w = torch.full((3, terms), 127, dtype=torch.int8), torch.full((2, terms), 127, dtype=torch.int8)
    product = multiply_rows(x, w.t(), kernels)
    for part in product.tiles:
        sums, overflow = product.compute(part)
        assert (sums == 12_057 - 2**31).all()
        assert overflow is not None
        assert bool(overflow)
    summed = correlate_rows(x.t().contiguous(), w.t().contiguous(), kernels)
    for task in summed.tasks:
        task()
    sums, overflow = summed.total()
    assert sums.shape == (2, 3)
    assert (sums == 12_057 - 2**31).all()
    assert overflow is not None
    assert bool(overflow)
