"""Networks that the machine does not compute are refused in one line that names what is none of a chain."""

import pytest

from fixgrad.compiler import check, compile_step
from fixgrad.errors import UsageError
from fixgrad.machine import PRESETS
from fixgrad.network import INPUT, Add, Conv2d, Flatten, Linear, Network
from fixgrad.network.models import MODELS, model

MACHINE = PRESETS["kcu1500"]


def test_the_layers_are_named():
    conv = Conv2d(name="conv", inputs=(INPUT,), in_channels=2, filters=2, kernel=(1, 1))
    layers = (
        conv,
        Add(name="total", inputs=("conv", INPUT)),
        Flatten(name="flat", inputs=("total",)),
        Linear(name="head", inputs=("flat",), in_features=8, out_features=2),
    )
    network = Network("forked", (2, 2, 2), 6, layers)
    expected = r"^forked cannot be compiled yet: .*, and total \(add\) are none of that; train it without a machine"
    for ask in (check, lambda *given: compile_step(given[0], None, *given[1:])):
        with pytest.raises(UsageError, match=expected):
            ask(network, MACHINE, 4)


@pytest.mark.parametrize("name", MODELS)
def test_chains_are_chains(name):
    assert model(name).is_chain == (name in ("vgg11", "vgg16", "digits"))
