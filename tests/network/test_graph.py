"""Networks: shapes, checks, and the description as JSON."""

import json

import pytest

from fixgrad.errors import UsageError
from fixgrad.network import (
    INPUT,
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Network,
    PadChannels,
    ReLU,
    ReLU6,
    SlidingMaxPool2d,
)
from fixgrad.network.layers import layer_from_dict
from fixgrad.network.models import MODELS, model
from fixgrad.network.windows import Span, reciprocal
from fixgrad.numbers.convolution import ConvGeometry


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


READS = {"name": "layer", "inputs": ("a",)}


@pytest.mark.parametrize(
    ("layer", "inputs", "expected"),
    [
        (Add(name="s", inputs=("a", "b")), ((3, 4, 4), (3, 4, 4)), (3, 4, 4)),
        (Concat(name="s", inputs=("a", "b")), ((3, 4, 4), (5, 4, 4)), (8, 4, 4)),
        (PadChannels(**READS, before=2, behind=1), ((3, 4, 4),), (6, 4, 4)),
        (Dropout(**READS, p=0.5), ((7,),), (7,)),
        (ReLU6(**READS), ((3, 4, 4),), (3, 4, 4)),
        (BatchNorm(**READS, channels=3), ((3, 4, 4),), (3, 4, 4)),
        (SlidingMaxPool2d(**READS, window=(3, 3), geometry=ConvGeometry((2, 2), (1, 1))), ((3, 7, 8),), (3, 4, 4)),
        (AvgPool2d(**READS, window=(2, 3), geometry=ConvGeometry((1, 2))), ((3, 4, 7),), (3, 3, 3)),
        (AdaptiveAvgPool2d(**READS, output=(3, 2)), ((3, 7, 8),), (3, 3, 2)),
    ],
)
def test_shapes_of_layers(layer, inputs, expected):
    assert layer.output_shape(*inputs) == expected
    assert layer_from_dict(json.loads(json.dumps(layer.to_dict()))) == layer


@pytest.mark.parametrize(
    ("layer", "inputs", "message"),
    [
        (Add(name="s", inputs=("a", "b")), ((3, 4, 4), (3, 1, 1)), "they must be equal \\(nothing is broadcast\\)"),
        (Add(name="s", inputs=("a",)), ((3,),), "s adds 1 tensors: it takes 2 to 128"),
        (Concat(name="s", inputs=("a", "b")), ((3, 4, 4), (3, 2, 4)), "all but the channels must be equal"),
        (PadChannels(**READS, before=-1, behind=1), ((3, 4, 4),), "give 0 or more"),
        (Dropout(**READS, p=0.995), ((7,),), "drops with probability 0.995: choose 0 to 0.99"),
        (BatchNorm(**READS, channels=4), ((3, 4, 4),), "layer normalises 4 channels"),
        (BatchNorm(**READS, channels=3, eps=0.0), ((3, 4, 4),), "has eps 0.0: choose a number above 0"),
        (BatchNorm(**READS, channels=3, momentum=1.5), ((3, 4, 4),), "has momentum 1.5: choose 0 to 1"),
        (BatchNorm(**READS, channels=3, clip6=True), ((3, 4, 4),), "not rectified"),
        (SlidingMaxPool2d(**READS, window=(3, 3)), ((7,),), "pool before you flatten"),
        (SlidingMaxPool2d(**READS, window=(3, 3), geometry=ConvGeometry(padding=(2, 0))), ((3, 7, 8),), "at most half a window"),
        (AvgPool2d(**READS, window=(65, 65)), ((3, 70, 70),), "averages 4225 pixels: at most 4096"),
        (AvgPool2d(**READS, window=(1, 1), geometry=ConvGeometry(padding=(2, 2))), ((3, 4, 4),), "a window that holds no pixel"),
        (AdaptiveAvgPool2d(**READS, output=(0, 1)), ((3, 4, 4),), "give at least 1"),
    ],
)
def test_layers_that_do_not_fit_say_so(layer, inputs, message):
    with pytest.raises(UsageError, match=message):
        layer.output_shape(*inputs)


def test_windows_count_what_they_cover_or_their_padding():
    pool = AvgPool2d(**READS, window=(3, 2), geometry=ConvGeometry((2, 1), (1, 1)))
    rows, columns = pool.spans((1, 4, 2))
    assert rows == [Span(0, 2, 3), Span(1, 4, 3)]
    assert columns == [Span(0, 1, 2), Span(0, 2, 2), Span(1, 2, 2)]
    assert AdaptiveAvgPool2d(**READS, output=(2, 3)).spans((1, 5, 7))[0] == [Span(0, 3, 3), Span(2, 5, 3)]
    assert [reciprocal(count) for count in (1, 2, 3, 49, 4096)] == [1 << 23, 1 << 22, 2796203, 171196, 2048]


def test_a_graph_knows_readers_rectifiers_and_what_is_trained():
    layers = (
        CONV,
        MaxPool2d(name="pool", inputs=(INPUT,)),
        BatchNorm(name="norm", inputs=("conv",), channels=3, relu=True, clip6=True),
        MaxPool2d(name="small", inputs=("norm",)),
        Concat(name="both", inputs=("small", "other")),
        Flatten(name="flat", inputs=("both",)),
        Linear(name="head", inputs=("flat",), in_features=20, out_features=4),
    )
    shrink = SlidingMaxPool2d(name="other", inputs=("pool",), window=(2, 2))
    network = small(*layers[:4], shrink, *layers[4:])
    assert [reader.layer.name for reader in network.readers[INPUT]] == ["conv", "pool"]
    assert network.trainable == {"conv", "norm", "small", "both", "flat", "head"}
    assert network.rectifier_of("small") == layers[2]
    assert network.rectifier_of("both") is None
    assert network.error_name("conv", layers[2]) == "conv"
    assert network.error_name(INPUT, CONV) == "input@conv"
    assert [layer.name for layer in network.outside_of_a_chain] == ["pool", "norm", "other", "both"]
    assert list(network.parameters) == ["conv.weight", "conv.bias", "norm.gamma", "norm.beta", "head.weight", "head.bias"]


def test_wide_codes_go_to_a_normalisation_alone():
    wide = Conv2d(name="conv", inputs=(INPUT,), in_channels=2, filters=3, kernel=(3, 3), out_bits=16)
    total = Add(name="total", inputs=("conv", "conv"))
    head = Linear(name="head", inputs=("flat",), in_features=48, out_features=4)
    with pytest.raises(UsageError, match="total reads codes of 16 bits from conv: it takes 8"):
        small(wide, total, Flatten(name="flat", inputs=("total",)), head)
    with pytest.raises(UsageError, match="flat reads 2 tensors: flatten takes one"):
        small(CONV, Flatten(name="flat", inputs=("conv", "conv")), head)
