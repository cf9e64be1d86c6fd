"""Ordinary modules become networks, or are refused with everything that has to change."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fixgrad.errors import UsageError
from fixgrad.network import Conv2d, Flatten, Linear, MaxPool2d, Recipe, ReLU
from fixgrad.network.models import model
from fixgrad.numbers import ConvGeometry
from fixgrad.train.capture import Captured, capture
from fixgrad.train.float_baseline import FloatTrainer, float_module

SHAPE = (1, 8, 8)


def captured(module: nn.Module, shape: tuple[int, int, int] = SHAPE) -> Captured:
    return capture(module, "mine", shape, 6)


class Functional(nn.Module):
    """Everything that is understood, as functions and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding="same"), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 6, (1, 3))))
        self.strided = nn.Conv2d(6, 8, 3, stride=2, padding=(1, 0), groups=2, bias=False)
        self.identity = nn.Identity()
        self.hidden = nn.Linear(16, 16)
        self.logits = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.body(x))
        x = self.identity(self.strided(x).relu_())
        x = F.max_pool2d(x, 2, stride=(2, 2))
        x = torch.relu(x.contiguous().view(x.size(0), -1).reshape(x.shape[0], -1))
        return self.logits(F.relu(self.hidden(x)))


def test_functions_methods_and_nested_modules() -> None:
    torch.manual_seed(0)
    module = Functional()
    network, weights = captured(module)
    assert [type(layer) for layer in network] == [Conv2d, Conv2d, Conv2d, MaxPool2d, Flatten, ReLU, Linear, Linear]
    names = [layer.name for layer in network]
    assert names[:3] == ["body_0", "body_2_0", "strided"]
    assert names[-2:] == ["hidden", "logits"]
    assert [layer.relu for layer in network.mac_layers] == [True, True, True, True, False]
    assert [layer.out_bits for layer in network.mac_layers] == [8, 8, 8, 8, 16]
    strided = network.layer("strided")
    assert isinstance(strided, Conv2d)
    assert strided.geometry == ConvGeometry(stride=(2, 2), padding=(1, 0), groups=2)
    assert not strided.bias
    assert set(weights) == set(network.parameters)
    for name, value in module.state_dict().items():
        ours = name.replace(".", "_", name.count(".") - 1)
        assert np.array_equal(weights[ours], value.numpy().astype(np.float64))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8)])
def test_the_network_computes_what_the_module_computes(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(shape[0], 6, 3, padding=1, dilation=1),
        nn.MaxPool2d((2, 1)),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3),
        nn.ReLU(inplace=True),
        nn.Dropout(0.0),
        nn.AdaptiveAvgPool2d((4, 8)),
        nn.Flatten(),
        nn.Linear(6 * 4 * 8, 5, bias=False),
    )
    network, weights = captured(module, shape)
    trainer = FloatTrainer(network, weights, Recipe(), total_steps=1)
    codes = np.random.default_rng(0).integers(-127, 128, (4, *shape)).astype(np.int8)
    expected = module(torch.from_numpy(codes.astype(np.float32) / 64)).detach().numpy()
    assert np.allclose(trainer.predict(codes), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["digits", "vgg11"])
def test_a_built_in_network_comes_back_from_its_module(name: str) -> None:
    network = model(name)
    found = capture(float_module(network), name, network.input_shape, network.input_frac).network
    assert found == network


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.0).eval(), nn.Linear(64, 10))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    captured(module)
    assert [part.training for part in module.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_double_precision_weights_keep_their_values() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    assert np.array_equal(captured(module).weights["1.weight"], module[1].weight.detach().numpy())


class Unsuited(nn.Module):
    """A network of today with much that has no fixed-point form."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4, affine=False)
        self.norm = nn.GroupNorm(2, 4)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout2d()
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.gate = nn.Linear(64, 64)
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(self.bn(self.conv(x))))
        y = self.pool(self.drop(self.again(x) + 1)).flatten(1)
        y = y * torch.sigmoid(self.gate(y))
        return F.log_softmax(self.last(y), dim=1)


def test_all_that_does_not_fit_is_listed_at_once_by_name() -> None:
    with pytest.raises(UsageError) as refused:
        captured(Unsuited())
    message = str(refused.value)
    assert message.startswith("model mine cannot be trained in fixed point: ")
    for part in (
        "bn: has no factors and offsets; set affine=True",
        "norm: GroupNorm: use BatchNorm2d",
        "gelu: gelu(): use ReLU or ReLU6",
        "add: add(): adds a number; give the layer before it a bias",
        "drop: Dropout2d: whole channels are not dropped here; use Dropout",
        "pool: use max-pooling without ceil_mode and return_indices",
        "sigmoid: sigmoid(): use ReLU or ReLU6",
        "mul: mul(): products of two tensors are not trained here",
        "log_softmax: log_softmax(): remove it: the loss includes the softmax",
    ):
        assert part in message
    assert "\n" not in message


class Chunked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        first, _second = self.conv(x).chunk(2, 1)
        return self.last(first.flatten(1))


class Aside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last, self.aside = nn.Linear(64, 10), nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(x.flatten(1))
        self.aside(x)
        return x


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.layer(x.flatten(1))))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = -x
        return self.last(x.flatten(1))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.last(x.flatten(1)), y


class Direct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10, 64))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight)


def _classifier(*layers: nn.Module, features: int = 64) -> nn.Sequential:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 10))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "chunk": (Chunked, "chunk: gives several tensors"),
    "a layer beside the result": (Aside, "aside has no part in the result"),
    "shared weights": (Shared, "layer: is used twice, and weights cannot be shared"),
    "control flow": (Branching, "cannot be followed on images .*branches that depend on values"),
    "two inputs": (Pair, r"cannot be followed|more than one input"),
    "bare parameters": (Direct, "linear: .*use the module Linear"),
    "a rectified result": (lambda: nn.Sequential(*_classifier(), nn.ReLU()), "1 gives the logits, but is rectified"),
    "no layers": (nn.Identity, "has no layers: it must end with"),
    "a map at the end": (lambda: nn.Sequential(nn.Conv2d(1, 10, 3)), "the logits must be a vector"),
    "a pool at the end": (lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2)), "ends with 1: it must end with"),
    "wrong channels": (lambda: _classifier(nn.Conv2d(3, 4, 3)), "through 0: .*to have 3 channels"),
    "wrong features": (lambda: _classifier(features=65), "cannot be followed on images .* through 1"),
    "frozen weights": (lambda: _classifier(nn.Conv2d(1, 1, 1).requires_grad_(False)), "0: has frozen weights"),
    "windows beyond the padding": (lambda: _classifier(nn.MaxPool2d(3, 2, ceil_mode=True), features=16), "0: use max-pooling without"),
    "another divisor": (lambda: _classifier(nn.AvgPool2d(2, divisor_override=3), features=16), "0: use average pooling without"),
    "a normalisation without statistics": (
        lambda: _classifier(nn.BatchNorm2d(1, track_running_stats=False)),
        "0: has no exponential running statistics; set track_running_stats=True",
    ),
    "a cumulative average": (lambda: _classifier(nn.BatchNorm2d(1, momentum=None)), "0: has no exponential running statistics"),
    "one-dimensional pooling": (lambda: nn.Sequential(nn.Flatten(), nn.AvgPool1d(1), nn.Linear(64, 10)), "1: AvgPool1d: use AvgPool2d"),
    "reflected padding": (
        lambda: _classifier(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")),
        "0: padding_mode is 'reflect'; use 'zeros'",
    ),
    "an even kernel padded to the same size": (
        lambda: _classifier(nn.Conv2d(1, 1, 2, padding="same")),
        "0: padding 'same' of an even kernel",
    ),
    "another activation": (lambda: _classifier(nn.Conv2d(1, 1, 1), nn.SiLU()), "1: SiLU: use ReLU or ReLU6"),
    "a flattening across the batch": (lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 10)), "0: makes 3x1x64 out of"),
    "reparametrised weights": (
        lambda: nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(64, 10))),
        "1: ParametrizedLinear: reparametrised weights",
    ),
    "a module of another kind": (lambda: _classifier(nn.PixelShuffle(1)), "0: PixelShuffle: Conv2d, Linear, BatchNorm2d"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_trained_is_refused(what: str) -> None:
    make, expected = REFUSED[what]
    with pytest.raises(UsageError, match=expected) as refused:
        captured(make())
    assert "\n" not in str(refused.value)


def test_names_with_dots_lose_them_and_must_still_differ() -> None:
    network = captured(_classifier()).network
    assert [layer.name for layer in network] == ["0", "1"]
    module = nn.Sequential()
    module.add_module("a", nn.Sequential(nn.Conv2d(1, 1, 1)))
    module.add_module("a_0", nn.Conv2d(1, 1, 1))
    module.add_module("flat", nn.Flatten())
    module.add_module("last", nn.Linear(64, 10))
    with pytest.raises(UsageError, match="two layers of mine are named 'a_0'"):
        captured(module)


def test_a_layer_called_input_is_not_taken_for_the_image() -> None:
    module = nn.Sequential()
    module.add_module("input", nn.Flatten())
    module.add_module("last", nn.Linear(64, 10))
    network = captured(module).network
    assert [layer.name for layer in network] == ["input_", "last"]
