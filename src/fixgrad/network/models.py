"""The built-in networks, described once: training builds its modules from here, and so does the compiler."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from fixgrad.errors import UsageError
from fixgrad.network.graph import INPUT, Network
from fixgrad.network.layers import Conv2d, Flatten, Layer, Linear, MaxPool2d
from fixgrad.network.residual_models import INPUT_FRAC, mobilenetv2, resnet18, resnet20
from fixgrad.numbers.convolution import ConvGeometry

__all__ = ["INPUT_FRAC", "MODELS", "digits", "mobilenetv2", "model", "resnet18", "resnet20", "vgg11", "vgg16"]

_SAME_3X3 = ConvGeometry(padding=(1, 1))
_POOL = "pool"


def _stack(
    name: str,
    input_shape: tuple[int, int, int],
    convolutions: Sequence[tuple[str, int] | str],
    dense: Sequence[tuple[str, int]],
) -> Network:
    """3x3 convolutions with ReLU and 2x2 pools, then fully connected layers; the last one gives 16-bit logits."""
    layers: list[Layer] = []
    tensor, (channels, height, width), pools = INPUT, input_shape, 0

    def add(layer: Layer) -> None:
        nonlocal tensor
        layers.append(layer)
        tensor = layer.name

    for item in convolutions:
        if isinstance(item, str):
            pools += 1
            height, width = height // 2, width // 2
            add(MaxPool2d(name=f"{item}{pools}", inputs=(tensor,)))
            continue
        conv, filters = item
        add(
            Conv2d(
                name=conv,
                inputs=(tensor,),
                in_channels=channels,
                filters=filters,
                kernel=(3, 3),
                geometry=_SAME_3X3,
                relu=True,
            )
        )
        channels = filters
    add(Flatten(name="flatten", inputs=(tensor,)))
    features = channels * height * width
    for index, (linear, size) in enumerate(dense):
        last = index == len(dense) - 1
        add(
            Linear(
                name=linear,
                inputs=(tensor,),
                in_features=features,
                out_features=size,
                relu=not last,
                out_bits=16 if last else 8,
            )
        )
        features = size
    return Network(name, input_shape, INPUT_FRAC, tuple(layers))


def vgg11() -> Network:
    """The talk's network: VGG-11 for 32x32 RGB images, no batch normalisation, with its CIFAR head 512-512-10.

    153.3 M MACs an image and 9.75 M weights (slide "Performance breakdown").
    """
    convolutions = (
        ("conv1", 64),
        _POOL,
        ("conv2", 128),
        _POOL,
        ("conv3_1", 256),
        ("conv3_2", 256),
        _POOL,
        ("conv4_1", 512),
        ("conv4_2", 512),
        _POOL,
        ("conv5_1", 512),
        ("conv5_2", 512),
        _POOL,
    )
    return _stack("vgg11", (3, 32, 32), convolutions, (("dense6", 512), ("dense7", 512), ("dense8", 10)))


def vgg16() -> Network:
    """VGG-16 for 224x224 RGB images and 1,000 classes (Simonyan and Zisserman 2015, configuration D)."""
    convolutions: list[tuple[str, int] | str] = []
    for stage, (filters, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        convolutions += [(f"conv{stage}_{index}", filters) for index in range(1, count + 1)]
        convolutions.append(_POOL)
    return _stack("vgg16", (3, 224, 224), convolutions, (("dense6", 4096), ("dense7", 4096), ("dense8", 1000)))


def digits() -> Network:
    """A small network for 8x8 grey digits: three convolutions and two fully connected layers."""
    convolutions = (("conv1", 32), ("conv2", 32), _POOL, ("conv3", 64), _POOL)
    return _stack("digits", (1, 8, 8), convolutions, (("dense4", 64), ("dense5", 10)))


MODELS: dict[str, Callable[[], Network]] = {
    "vgg11": vgg11,
    "vgg16": vgg16,
    "digits": digits,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "mobilenetv2": mobilenetv2,
}


def model(name: str) -> Network:
    """The built-in network of that name; raises UsageError with the names that exist."""
    if name not in MODELS:
        close = get_close_matches(name, MODELS, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"model {name!r} is unknown: {hint}choose {', '.join(MODELS)}, or FILE.py:FUNCTION of your own")
    return MODELS[name]()
