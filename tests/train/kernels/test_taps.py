"""FF, NG and WG tap by tap, without the padding, against the same with it."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from fixgrad.errors import UsageError
from fixgrad.network import Recipe, initial_state
from fixgrad.network.builder import NetworkBuilder
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.train.executor import TorchExecutor
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.kernels.convolution import correlate, slide
from fixgrad.train.kernels.gemm import GemmPath
from fixgrad.train.kernels.im2col import forward_windows, pixels_seen
from fixgrad.train.kernels.pointwise_torch import TorchPointwise
from fixgrad.train.kernels.taps import share_inside, taps_inside
from fixgrad.train.kernels.workers import workers

pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731


def summed(sums):
    for task in sums.tasks:
        task()
    return sums.total().sums


@given(
    size=pair(1, 5), kernel=pair(1, 3), stride=pair(1, 3), padding=pair(0, 4), dilation=pair(1, 3),
    images=st.integers(1, 3), path=st.sampled_from(GemmPath), team=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_same_sums(size, kernel, stride, padding, dilation, images, path, team, seed):
    try:
        windows = forward_windows(size, kernel, ConvGeometry(stride, padding, dilation))
    except UsageError:
        assume(False)
    rng = np.random.default_rng(seed)
    x, dy = (torch.from_numpy(rng.integers(-127, 128, shape, np.int8)) for shape in ((images, *size, 5), (images, *windows.outputs, 7)))
    kernels = Kernels(path, TorchPointwise(), workers(team))
    assert torch.equal(
        summed(correlate(x, dy, windows, 1, kernels, by_taps=True)), summed(correlate(x, dy, windows, 1, kernels))
    )
    rows, columns = (seen >= 0 for seen in pixels_seen(windows, size))
    assert share_inside(windows, size) == rows.sum() * columns.sum() / (rows.size * columns.size)
    assert [tap.is_blind for tap in taps_inside(windows, size)] == [
        not (row.any() and column.any()) for row in rows.T for column in columns.T
    ]


def slid(product):
    return torch.cat([product.compute(images).sums.clone() for images in product.tiles])


@given(
    size=pair(1, 5), kernel=pair(1, 3), stride=pair(1, 3), padding=pair(0, 4), dilation=pair(1, 3),
    channels=st.sampled_from([1, 5, 1041]), images=st.integers(1, 3), path=st.sampled_from(GemmPath),
    turned=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_same_maps(size, kernel, stride, padding, dilation, channels, images, path, turned, seed):
    """FF as it is; NG has the same windows where nothing is spread out. Weights come as they lie, or turned round."""
    try:
        windows = forward_windows(size, kernel, ConvGeometry(stride, padding, dilation))
    except UsageError:
        assume(False)
    rng, depth = np.random.default_rng(seed), kernel[0] * kernel[1] * channels
    maps = torch.from_numpy(rng.integers(-127, 128, (images, *size, channels), np.int8))
    weights = torch.from_numpy(rng.integers(-127, 128, (1, 7, depth) if turned else (1, depth, 7), np.int8))
    if turned:
        weights = weights.transpose(1, 2)
    kernels = Kernels(path, TorchPointwise(), workers(1))
    assert torch.equal(slid(slide(maps, weights, windows, kernels, by_taps=True)), slid(slide(maps, weights, windows, kernels)))


def small_maps():
    """Maps of 4x4, 2x2 and 1x1 pixels."""
    builder = NetworkBuilder("small-maps", (3, 4, 4), 6)
    tensor = builder.conv_norm("conv1", "norm1", "input", 8, 3, relu=True)
    tensor = builder.conv_norm("conv2", "norm2", tensor, 12, 3, stride=2, relu=True)
    tensor = builder.conv_norm("conv3", "norm3", tensor, 10, 3, relu=True)
    tensor = builder.conv_norm("conv4", "norm4", tensor, 8, 3, stride=2, relu=True)
    return builder.classifier("last", tensor, 5)


@pytest.mark.parametrize("pruned", [False, True])
def test_a_step_is_the_same_whichever_way_is_quicker(monkeypatch, pruned):
    states = []
    for by_taps in (False, True):
        asked = []

        def chosen(key, whole, narrow, team, by_taps=by_taps, asked=asked):
            asked.append(key[:2] if key[0] == "taps" and isinstance(key[1], str) else key[0])
            return narrow() if by_taps or key[0] != "taps" else whole()

        monkeypatch.setattr("fixgrad.train.layers.conv2d.quicker", chosen)
        monkeypatch.setattr("fixgrad.train.layers.mac.quicker", chosen)
        network = small_maps()
        rng = np.random.default_rng(0)
        weights = {name: rng.normal(0, 0.2, shape) for name, shape in network.parameters.items()}
        recipe = Recipe(learning_rate=0.05)
        executor = TorchExecutor(network, initial_state(network, weights, recipe), recipe, total_steps=4)
        if pruned:
            executor.prune("conv2.weight", np.arange(12)[:, None] % 2 == np.zeros((1, 8), int))
        x, labels = rng.integers(-127, 128, (6, 3, 4, 4)).astype(np.int8), np.arange(6) % 5
        executor.calibrate(x, labels)
        for _ in range(3):
            executor.step(x, labels)
        assert {"taps", ("taps", "ff"), ("taps", "ng")} <= set(asked)
        states.append(executor.state_dict())
    one, other = states
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name
