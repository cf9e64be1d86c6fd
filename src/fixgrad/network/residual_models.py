"""Built-in networks with shortcuts and batch normalisation."""

from fixgrad.network.builder import NetworkBuilder
from fixgrad.network.graph import INPUT, Network
from fixgrad.network.junctions import PadChannels
from fixgrad.network.windows import SlidingMaxPool2d
from fixgrad.numbers.convolution import ConvGeometry

#: Fractional bits of the input codes of the built-in networks: (pixel - mean) / 64.
INPUT_FRAC = 6
#: Expansion, channels, blocks and stride of each stage of MobileNetV2 (Sandler et al., CVPR 2018, table 2).
_MOBILE_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def resnet20() -> Network:
    """ResNet-20 for 32x32 RGB images and 10 classes, with shortcuts without weights (option A).

    Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2: 0.27 M weights.
    """
    b = NetworkBuilder("resnet20", (3, 32, 32), INPUT_FRAC)
    tensor = b.conv_norm("conv1", "bn1", INPUT, 16, 3, relu=True)
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(3):
            name = f"layer{stage}_{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            shortcut = tensor if stride == 1 else _option_a(b, name, tensor, filters)
            tensor = _basic_block(b, name, tensor, shortcut, filters, stride)
    return b.classifier("linear", tensor, 10)


def resnet18() -> Network:
    """ResNet-18 for 224x224 RGB images and 1,000 classes.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1; shortcuts are projections where
    the shape changes (option B): 11.7 M weights.
    """
    b = NetworkBuilder("resnet18", (3, 224, 224), INPUT_FRAC)
    tensor = b.conv_norm("conv1", "bn1", INPUT, 64, 7, stride=2, relu=True)
    overlapping = ConvGeometry((2, 2), (1, 1))
    tensor = b.append(SlidingMaxPool2d(name="maxpool", inputs=(tensor,), window=(3, 3), geometry=overlapping))
    for stage, filters in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{stage}_{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            shortcut = tensor
            if stride > 1:
                shortcut = b.conv_norm(f"{name}_downsample_0", f"{name}_downsample_1", tensor, filters, 1, stride=stride)
            tensor = _basic_block(b, name, tensor, shortcut, filters, stride)
    return b.classifier("fc", tensor, 1000)


def mobilenetv2() -> Network:
    """MobileNetV2 for 224x224 RGB images and 1,000 classes: 3.5 M weights.

    Source: M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2.
    """
    b = NetworkBuilder("mobilenetv2", (3, 224, 224), INPUT_FRAC)
    tensor = b.conv_norm("features_0_0", "features_0_1", INPUT, 32, 3, stride=2, relu=True, clip6=True)
    number = 0
    for expansion, filters, blocks, first_stride in _MOBILE_STAGES:
        for block in range(blocks):
            number += 1
            tensor = _inverted(b, f"features_{number}", tensor, expansion, filters, first_stride if block == 0 else 1)
    tensor = b.conv_norm(f"features_{number + 1}_0", f"features_{number + 1}_1", tensor, 1280, 1, relu=True, clip6=True)
    return b.classifier("classifier_1", tensor, 1000, dropout=0.2)


def _basic_block(b: NetworkBuilder, name: str, tensor: str, shortcut: str, filters: int, stride: int) -> str:
    """Two 3x3 convolutions, and the shortcut added."""
    tensor = b.conv_norm(f"{name}_conv1", f"{name}_bn1", tensor, filters, 3, stride=stride, relu=True)
    tensor = b.conv_norm(f"{name}_conv2", f"{name}_bn2", tensor, filters, 3)
    return b.add(f"{name}_add", tensor, shortcut, relu=True)


def _option_a(b: NetworkBuilder, name: str, tensor: str, filters: int) -> str:
    """Every second pixel, and zeros for the channels that are new."""
    every_second = ConvGeometry((2, 2))
    picked = b.append(SlidingMaxPool2d(name=f"{name}_pick", inputs=(tensor,), window=(1, 1), geometry=every_second))
    more = filters - b.channels(tensor)
    return b.append(PadChannels(name=f"{name}_pad", inputs=(picked,), before=more // 2, behind=more - more // 2))


def _inverted(b: NetworkBuilder, name: str, tensor: str, expansion: int, filters: int, stride: int) -> str:
    """Expansion, depthwise convolution, linear bottleneck; a shortcut where the shape stays."""
    wide, place = tensor, 0
    hidden = expansion * b.channels(tensor)
    if expansion > 1:
        wide = b.conv_norm(f"{name}_conv_0_0", f"{name}_conv_0_1", tensor, hidden, 1, relu=True, clip6=True)
        place = 1
    names = f"{name}_conv_{place}_0", f"{name}_conv_{place}_1"
    deep = b.conv_norm(*names, wide, hidden, 3, stride=stride, groups=hidden, relu=True, clip6=True)
    narrow = b.conv_norm(f"{name}_conv_{place + 1}", f"{name}_conv_{place + 2}", deep, filters, 1)
    same = stride == 1 and b.channels(tensor) == filters
    return b.add(f"{name}_add", tensor, narrow) if same else narrow
