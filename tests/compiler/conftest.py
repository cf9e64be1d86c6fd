"""Small networks for the tests of the compiler."""

from collections.abc import Callable

import numpy as np
import pytest

from fixgrad.network import INPUT, Conv2d, Flatten, Layer, Linear, MaxPool2d, Network
from fixgrad.numbers.convolution import ConvGeometry


def _random_network(seed: int) -> Network:
    """One or two convolutions of odd sizes, strides and windows, and a linear layer."""
    rng = np.random.default_rng([seed, 11])

    def pair(low: int, high: int) -> tuple[int, int]:
        return int(rng.integers(low, high)), int(rng.integers(low, high))

    shape, layers, tensor = (int(rng.integers(1, 5)), *pair(8, 24)), list[Layer](), INPUT
    first = shape
    for index in range(int(rng.integers(1, 3))):
        kernel = pair(1, min(8, *(edge + 1 for edge in shape[1:])))
        geometry = ConvGeometry(stride=pair(1, 4), padding=(int(rng.integers(kernel[0])), int(rng.integers(kernel[1]))))
        conv = Conv2d(
            name=f"conv{index}", inputs=(tensor,), in_channels=shape[0], filters=int(rng.integers(1, 12)),
            kernel=kernel, geometry=geometry, relu=True,
        )  # fmt: skip
        layers.append(conv)
        tensor, shape = conv.name, conv.output_shape(shape)
        window = pair(1, 5)
        if max(window) > 1 and shape[1] >= window[0] and shape[2] >= window[1]:
            layers.append(MaxPool2d(name=f"pool{index}", inputs=(tensor,), window=window))
            tensor, shape = f"pool{index}", layers[-1].output_shape(shape)
    layers.append(Flatten(name="flat", inputs=(tensor,)))
    features = int(np.prod(shape))
    layers.append(Linear(name="head", inputs=("flat",), in_features=features, out_features=5, out_bits=16))
    return Network(f"random{seed}", first, 6, tuple(layers))


@pytest.fixture(scope="session")
def random_network() -> Callable[[int], Network]:
    """A small network for a seed."""
    return _random_network
