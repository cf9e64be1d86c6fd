"""Networks: shapes, checks, and the description as JSON."""

import json

import pytest

from fixgrad.errors import UsageError
from fixgrad.network import INPUT, Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
from fixgrad.network.layers import layer_from_dict
from fixgrad.network.models import MODELS, model


def small(*layers):
    return Network("small", (2, 6, 6), 6, layers)


CONV = Conv2d(name="conv", inputs=(INPUT,), in_channels=2, filters=3, kernel=(3, 3), relu=True)
POOL = MaxPool2d(name="pool", inputs=("conv",))
FLAT = Flatten(name="flat", inputs=("pool",))
HEAD = Linear(name="head", inputs=("flat",), in_features=12, out_features=4, out_bits=16)


def test_shapes_follow_the_layers():
    network = small(CONV, POOL, FLAT, HEAD)
    assert dict(network.shapes) == {INPUT: (2, 6, 6), "conv": (3, 4, 4), "pool": (3, 2, 2), "flat": (12,), "head": (4,)}
    assert network.parameters == {"conv.weight": (3, 2, 3, 3), "conv.bias": (3,), "head.weight": (4, 12), "head.bias": (4,)}
    assert network.classes == 4
    assert network.logits == "head"


def test_formats_pass_through_pooling_and_flattening():
    network = small(CONV, POOL, FLAT, HEAD)
    assert network.source_of("flat") == "conv"
    assert network.source_of(INPUT) == INPUT
    assert network.is_rectified("flat")
    assert not network.is_rectified("head")
    assert not network.is_rectified(INPUT)


def test_a_rectifier_that_stands_alone_rectifies():
    plain = Conv2d(name="conv", inputs=(INPUT,), in_channels=2, filters=3, kernel=(3, 3))
    network = small(plain, ReLU(name="relu", inputs=("conv",)), Flatten(name="flat", inputs=("relu",)), Linear(
        name="head", inputs=("flat",), in_features=48, out_features=4))  # fmt: skip
    assert network.is_rectified("flat")
    assert not network.is_rectified("conv")


@pytest.mark.parametrize("name", MODELS)
def test_every_model_survives_json(name):
    network = model(name)
    assert Network.from_dict(json.loads(json.dumps(network.to_dict()))) == network


def test_vgg11_is_the_talks_network():
    network = model("vgg11")
    macs = {layer.name: layer.macs(network.shapes[layer.name]) for layer in network.mac_layers}
    weights = sum(_size(layer.weight_shape) for layer in network.mac_layers)
    assert sum(macs.values()) == 153_293_824
    assert weights == 9_747_136
    # GOP for a batch of 32, as the talk's table prints them; its dense8 should read 0.0003.
    gop = {name: round(2 * 32 * count / 1e9, 2) for name, count in macs.items()}
    assert gop["conv1"] == 0.11
    assert gop["conv2"] == gop["conv3_1"] == gop["conv4_1"] == 1.21
    assert gop["conv3_2"] == gop["conv4_2"] == 2.42
    assert gop["conv5_1"] == gop["conv5_2"] == 0.60
    assert round(2 * 32 * macs["dense8"] / 1e9, 4) == 0.0003


def _size(shape):
    size = 1
    for extent in shape:
        size *= extent
    return size


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((CONV, CONV), "two layers of small are named 'conv'"),
        ((POOL,), "pool reads 'conv', which no layer before it produces"),
        ((CONV, POOL, HEAD), "head reads 'flat'"),
        ((Flatten(name="flat", inputs=(INPUT,)),), "nothing to train"),
        ((CONV,), "the logits must be a vector"),
        ((CONV, POOL, FLAT), "must end with the layer that gives the logits"),
        (
            (CONV, POOL, FLAT, Linear(name="head", inputs=("flat",), in_features=13, out_features=4)),
            "head reads 13 features, but its input has the shape \\(12,\\)",
        ),
        (
            (Conv2d(name="conv", inputs=(INPUT,), in_channels=5, filters=3, kernel=(3, 3)),),
            "conv reads 5 channels, but its input has the shape \\(2, 6, 6\\)",
        ),
        ((CONV, MaxPool2d(name="pool", inputs=("conv",), window=(5, 5))), "pool pools windows of \\(5, 5\\)"),
        (
            (CONV, Flatten(name="flat", inputs=(INPUT,))),
            "conv of small is read by no layer: only the last one, flat, may be",
        ),
    ],
)
def test_networks_that_do_not_fit_together_say_so(layers, message):
    with pytest.raises(UsageError, match=message):
        small(*layers)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "softmax", "name": "s"}, "layer kind 'softmax' is unknown"),
        ({"kind": "linear", "name": "l", "inputs": ["x"], "in_features": 3}, "layer 'l' of kind linear"),
        ({"kind": "linear", "name": "l", "inputs": ["x"], "wings": 3}, "layer 'l' of kind linear"),
    ],
)
def test_damaged_descriptions_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        layer_from_dict(fields)


def test_an_unknown_model_gets_a_hint():
    with pytest.raises(UsageError, match="did you mean vgg11"):
        model("vgg-11")
