"""What no instruction computes is named: on machines without an elementwise unit everything that is no chain, on others little."""


import pytest

from fixgrad.compiler import InfeasibleError, check, compile_step
from fixgrad.machine import PRESETS
from fixgrad.network import (
    INPUT,
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    ReLU6,
    SlidingMaxPool2d,
)
from fixgrad.network.models import MODELS, model
from fixgrad.numbers.convolution import ConvGeometry

PLAIN, GRAPH = PRESETS["kcu1500"], PRESETS["kcu1500-graph"]


def between(*layers: Layer, size: int = 6) -> Network:
    """A network of a convolution, some layers behind it, and a linear layer."""
    conv = Conv2d(name="conv", inputs=(INPUT,), in_channels=2, filters=2, kernel=(1, 1))
    last = layers[-1].name if layers else "conv"
    flat = Flatten(name="flat", inputs=(last,))
    shapes = {INPUT: (2, size, size)}
    for layer in (conv, *layers, flat):
        shapes[layer.name] = layer.output_shape(*(shapes[tensor] for tensor in layer.inputs))
    head = Linear(name="head", inputs=("flat",), in_features=shapes["flat"][0], out_features=2, out_bits=16)
    return Network("case", (2, size, size), 6, (conv, *layers, flat, head))


def reasons(network: Network, machine) -> list[str]:
    return [str(reason) for reason in check(network, machine, 4)]


def test_a_machine_without_the_unit_names_the_layer_and_a_preset_that_has_it() -> None:
    network = between(Add(name="total", inputs=("conv", INPUT)))
    line = (
        "total (ff) needs 1 elementwise unit (add), available are 0: "
        "elementwise_lanes above 0, as machine kcu1500-graph has them, or a chain of layers such as vgg11"
    )
    assert reasons(network, PLAIN) == [line]
    with pytest.raises(InfeasibleError) as caught:
        compile_step(network, None, PLAIN, 4)
    assert str(caught.value) == line
    (reason,) = caught.value.reasons
    assert (reason.layer, reason.phase, reason.needed, reason.available) == ("total", "ff", 1, 0)
    assert check(network, GRAPH, 4) == []


def test_a_machine_without_a_sister_names_the_first_preset_that_has_the_unit() -> None:
    network = between(Add(name="total", inputs=("conv", INPUT)))
    assert "as machine u280 has them" in reasons(network, PRESETS["ecp5-85f"])[0]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((ReLU6(name="six", inputs=("conv",)),), "six (ff) needs 1 instruction for relu6, available are 0: a ReLU without a ceiling"),
        ((Dropout(name="drop", inputs=("conv",), p=0.5),), "drop (ff) needs 1 instruction for dropout, available are 0"),
        ((BatchNorm(name="norm", inputs=("conv",), channels=2, relu=True, clip6=True),), "norm (ff) needs 1 instruction for a ceiling"),
        ((Add(name="three", inputs=("conv", INPUT, INPUT)),), "three (ff) needs 3 operands of a sum, available are 2: sums of 2"),
        (
            (AvgPool2d(name="pool", inputs=("conv",), window=(3, 3), geometry=ConvGeometry(padding=(1, 1)), count_padding=False),),
            "pool (ff) needs 2 factors for windows of different sizes, available are 1",
        ),
        ((AdaptiveAvgPool2d(name="pool", inputs=("conv",), output=(7, 7)),), "pool (ff) needs 2 factors for windows of different"),
        ((MaxPool2d(name="pool", inputs=("conv",), window=(16, 16)),), "pool (ff) needs 256 pixels of a window, available are 255"),
        (
            (SlidingMaxPool2d(name="pool", inputs=("conv",), window=(2, 2), geometry=ConvGeometry(dilation=(2, 2))),),
            "pool (ff) needs 2 pixels of dilation, available are 1",
        ),
        (
            (
                Flatten(name="early", inputs=("conv",)),
                BatchNorm(name="norm", inputs=("early",), channels=2 * 16 * 16),
            ),
            "norm (ff) needs 1 memory layout for flattened maps of several pixels, available are 0: this layer before flattening",
        ),
    ],
    ids=lambda value: value[-1].name if isinstance(value, tuple) else "",
)
def test_what_the_unit_does_not_compute_is_named(layers: tuple[Layer, ...], expected: str) -> None:
    found = reasons(between(*layers, size=16), GRAPH)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_a_tensor_with_three_readers_is_named() -> None:
    convs = [Conv2d(name=f"way{n}", inputs=("conv",), in_channels=2, filters=2, kernel=(1, 1)) for n in range(3)]
    sums = [Add(name="some", inputs=("way0", "way1")), Add(name="all", inputs=("some", "way2"))]
    assert reasons(between(*convs, *sums), GRAPH) == [
        "conv (ng) needs 3 operands for the errors of its readers, available are 2: a network whose tensors have 2 readers at most"
    ]


def test_pools_that_post_does_not_do_are_left_to_the_unit() -> None:
    two = (MaxPool2d(name="first", inputs=("conv",), window=(2, 2)), MaxPool2d(name="second", inputs=("first",), window=(2, 2)))
    wide = (MaxPool2d(name="pool", inputs=("conv",), window=(8, 8)),)
    assert reasons(between(*two, size=16), PLAIN) == [
        "second (ff) needs 2 poolings behind one layer, available are 1: one pool of the combined window"
    ]
    assert "pixels along an edge of the window" in reasons(between(*wide, size=16), PLAIN)[0]
    for layers in (two, wide):
        assert reasons(between(*layers, size=16), GRAPH) == []


def test_more_elements_than_a_normalisation_sums() -> None:
    network = between(BatchNorm(name="norm", inputs=("conv",), channels=2), size=300)
    (reason,) = check(network, GRAPH, 200)
    assert str(reason) == (
        "norm (ff) needs 18,000,000 elements of a channel to normalise, available are 16,777,216: a batch of at most 186"
    )


@pytest.mark.parametrize("name", MODELS)
def test_chains_are_chains(name: str) -> None:
    assert model(name).is_chain == (name in ("vgg11", "vgg16", "digits"))


@pytest.mark.parametrize(("name", "fits"), [("resnet20", True), ("resnet18", True), ("mobilenetv2", False)])
def test_built_in_residual_networks(name: str, fits: bool) -> None:
    assert (check(model(name), GRAPH, 8) == []) == fits
    assert len(check(model(name), PLAIN, 8)) == 1
