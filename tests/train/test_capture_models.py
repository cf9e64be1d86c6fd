"""ResNet-18, ResNet-20 and MobileNetV2 as people write them: captured as they are, and trained."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fixgrad.network import Recipe, initial_state
from fixgrad.network.models import model
from fixgrad.train.capture import capture
from fixgrad.train.executor import TorchExecutor
from fixgrad.train.float_baseline import FloatTrainer
from fixgrad.train.prepared import PreparedModel

README = Path(__file__).parents[2] / "README.md"


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, with one rectifier module for both places."""

    def __init__(self, inputs: int, filters: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """The ResNet of large images, of basic blocks."""

    def __init__(self, blocks: tuple[int, ...] = (2, 2, 2, 2), classes: int = 1000) -> None:
        super().__init__()
        self.inputs = 64
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._stage(64, blocks[0], 1)
        self.layer2 = self._stage(128, blocks[1], 2)
        self.layer3 = self._stage(256, blocks[2], 2)
        self.layer4 = self._stage(512, blocks[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, classes)

    def _stage(self, filters: int, blocks: int, stride: int) -> nn.Sequential:
        downsample = None
        if stride != 1 or self.inputs != filters:
            convolution = nn.Conv2d(self.inputs, filters, kernel_size=1, stride=stride, bias=False)
            downsample = nn.Sequential(convolution, nn.BatchNorm2d(filters))
        layers = [BasicBlock(self.inputs, filters, stride, downsample)]
        self.inputs = filters
        layers += [BasicBlock(filters, filters) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class LambdaLayer(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class SmallBlock(nn.Module):
    """A block of the ResNet of small images: functions, and a shortcut without weights."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or inputs != filters:
            self.shortcut = LambdaLayer(
                lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, filters // 4, filters // 4), "constant", 0)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class SmallResNet(nn.Module):
    """The ResNet of CIFAR; 3 blocks a stage are ResNet-20."""

    def __init__(self, blocks: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, classes)

    def _stage(self, inputs: int, filters: int, blocks: int, stride: int) -> nn.Sequential:
        first = SmallBlock(inputs, filters, stride)
        return nn.Sequential(first, *(SmallBlock(filters, filters, 1) for _ in range(1, blocks)))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


class ConvNormActivation(nn.Sequential):
    """Convolution, normalisation, ReLU6."""

    def __init__(self, inputs: int, filters: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        convolution = nn.Conv2d(inputs, filters, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(filters), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear bottleneck."""

    def __init__(self, inputs: int, filters: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.use_shortcut = stride == 1 and inputs == filters
        layers: list[nn.Module] = [] if expansion == 1 else [ConvNormActivation(inputs, hidden, kernel=1)]
        layers += [
            ConvNormActivation(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, filters, 1, 1, 0, bias=False),
            nn.BatchNorm2d(filters),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """Inverted residuals behind each other."""

    def __init__(self, classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        settings = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
        features: list[nn.Module] = [ConvNormActivation(3, 32, stride=2)]
        inputs = 32
        for expansion, filters, blocks, first in settings:
            for index in range(blocks):
                features.append(InvertedResidual(inputs, filters, first if index == 0 else 1, expansion))
                inputs = filters
        features.append(ConvNormActivation(inputs, 1280, kernel=1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return self.classifier(torch.flatten(x, 1))


MODELS = {"resnet18": ResNet, "resnet20": SmallResNet, "mobilenetv2": MobileNetV2}


@pytest.mark.parametrize("name", MODELS)
def test_the_built_in_networks_are_those_that_people_write(name: str) -> None:
    """Every parameter of the built-in network has the name and the shape of the module's."""
    built_in = model(name)
    network, weights = capture(MODELS[name](), name, built_in.input_shape, built_in.input_frac)
    assert network.parameters == built_in.parameters
    assert dict(network.shapes).keys() - built_in.shapes.keys() <= {layer.name for layer in network if not layer.parameters}
    assert sorted(network.shapes.values()) == sorted(built_in.shapes.values())
    kinds = [sorted(layer.kind for layer in each) for each in (network, built_in)]
    assert [kind for kind in kinds[0] if kind[-9:] != "avgpool2d"] == [kind for kind in kinds[1] if kind[-9:] != "avgpool2d"]
    assert sum(value.size for key, value in weights.items() if key in network.parameters) == {
        "resnet18": 11_689_512,
        "resnet20": 269_722,
        "mobilenetv2": 3_504_872,
    }[name]


@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("resnet20", 32), ("mobilenetv2", 32)])
def test_the_network_computes_what_the_module_computes(name: str, size: int) -> None:
    torch.manual_seed(0)
    module = MODELS[name](classes=10)
    _disturb_statistics(module)
    network, weights = capture(module, name, (3, size, size), 6)
    codes = np.random.default_rng(0).integers(-127, 128, (2, 3, size, size)).astype(np.int8)
    expected = module.eval()(torch.from_numpy(codes.astype(np.float32) / 64)).detach().numpy()
    found = FloatTrainer(network, weights, Recipe(), total_steps=1).predict(codes)
    assert np.allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def _disturb_statistics(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.1)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "size"), [("resnet20", 32), pytest.param("resnet18", 32, marks=SLOW), pytest.param("mobilenetv2", 32, marks=SLOW)]
)
def test_they_train(name: str, size: int) -> None:
    """The loss of a batch that is seen again and again falls."""
    torch.manual_seed(0)
    network, weights = capture(MODELS[name](classes=10), name, (3, size, size), 6)
    recipe = Recipe(learning_rate=0.02, momentum=0.9, weight_decay=0.0)
    executor = TorchExecutor(network, initial_state(network, weights, recipe), recipe, total_steps=100)
    rng = np.random.default_rng(1)
    codes, labels = rng.integers(-127, 128, (8, 3, size, size)).astype(np.int8), np.arange(8)
    executor.calibrate(codes, labels)
    losses = [executor.step(codes, labels).loss for _ in range(8)]
    assert min(losses[-3:]) < 0.7 * losses[0], losses


@SLOW
def test_resnet18_trains_in_the_ten_lines_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the rate that stands there, which such a network starts with badly, in floats too, and recovers from."""
    (example,) = re.findall(r"```python\n(import fixgrad\n.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    losses: list[float] = []

    def recorded(net: PreparedModel, images: Tensor, labels: Tensor) -> Tensor:
        value = loss(net, images, labels)
        losses.append(value.item())
        return value

    loss = PreparedModel.loss
    monkeypatch.setattr(PreparedModel, "loss", recorded)
    data = load_digits()
    images = torch.from_numpy(data.images[:1024, None].astype(np.float32)).expand(-1, 3, -1, -1) / 8 - 1
    images = F.interpolate(images, scale_factor=4, mode="bilinear")
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(images, torch.from_numpy(data.target[:1024])), batch_size=64, shuffle=True)
    names = {"torch": torch, "model": ResNet(classes=10), "loader": loader, "epochs": 5}
    exec(example, names)
    assert len(losses) == 5 * 16
    assert np.mean(losses[-16:]) < 0.5 * np.log(10), losses
    assert names["optimiser"].report.overflows == set()
    correct = names["net"](images[:256]).argmax(dim=1) == torch.from_numpy(data.target[:256])
    assert correct.float().mean() > 0.7


class Everything(nn.Module):
    """What else people write: branches, changes in place, shapes from the batch, vectors that are normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(8)
        self.narrow = nn.Conv2d(8, 4, 1, bias=False)
        self.wide = nn.Conv2d(8, 4, (1, 3), padding=(0, 1), dilation=1)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.shrink = nn.Conv2d(16, 12, 1)
        self.uneven = nn.AdaptiveAvgPool2d((3, None))
        self.hidden = nn.Linear(16, 12, bias=False)
        self.hidden_norm = nn.BatchNorm1d(12)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        before = self.narrow(x)
        after = self.relu(x)  # changes x as well: whoever reads x from here on reads the rectified one
        branches = [before, self.wide(x), self.pool(self.norm(after))]
        x = torch.cat(branches, dim=1)
        smooth = F.avg_pool2d(self.shrink(x), 3, 1, 1, count_include_pad=False)
        x = torch.add(x, F.pad(smooth, (0, 0, 0, 0, 2, 2)))
        x = F.relu6(self.uneven(x)[:, :, ::1, ::2], inplace=True)
        x = x.mean([-1, -2], keepdim=True).view(x.shape[0], -1)
        x = self.hidden_norm(self.hidden(x)).relu_()
        return self.last(F.dropout(self.drop(x), 0.2, self.training))


def test_what_else_people_write_computes_the_same() -> None:
    torch.manual_seed(3)
    module = Everything()
    _disturb_statistics(module)
    network, weights = capture(module, "everything", (3, 9, 7), 6)
    kinds = {layer.kind for layer in network}
    assert {"concat", "add", "pad_channels", "relu6", "relu", "sliding_maxpool2d", "avgpool2d", "dropout", "batchnorm"} <= kinds
    codes = np.random.default_rng(0).integers(-127, 128, (4, 3, 9, 7)).astype(np.int8)
    expected = module.eval()(torch.from_numpy(codes.astype(np.float32) / 64)).detach().numpy()
    found = FloatTrainer(network, weights, Recipe(), total_steps=1).predict(codes)
    assert np.allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    recipe = Recipe(learning_rate=0.02)
    executor = TorchExecutor(network, initial_state(network, weights, recipe), recipe, total_steps=20)
    labels = np.arange(4)
    executor.calibrate(codes, labels)
    losses = [executor.step(codes, labels).loss for _ in range(12)]
    assert min(losses[-4:]) < losses[0]
