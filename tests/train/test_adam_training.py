"""Training by Adam: executors, masks, the float baseline, forks, and `fixgrad.optim`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fixgrad
from fixgrad.errors import UsageError
from fixgrad.network import Optimiser, Recipe, Schedule, initial_state
from fixgrad.network.models import model
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.network.state_arrays import state_to_arrays
from fixgrad.network.update_rules import use_optimiser
from fixgrad.numbers import Rounding
from fixgrad.train.executor import TorchExecutor
from fixgrad.train.float_baseline import FloatTrainer, float_module
from fixgrad.train.fork import forked_request
from fixgrad.train.initialise import initial_weights
from fixgrad.train.prepared import PreparedModel
from fixgrad.train.request import RunRequest
from fixgrad.train.run import TrainingRun
from fixgrad.train.run_folder import RunFolder

NETWORK = model("digits")
WEIGHTS = initial_weights(NETWORK, 0)
RECIPE = Recipe(optimiser="adam", learning_rate=0.003, weight_decay=0.01, warmup_steps=2)
TOTAL_STEPS = 12


def batch(seed: int, images: int = 8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(-127, 128, (images, 1, 8, 8)).astype(np.int8), random.integers(0, 10, images)


def assert_same(*executors) -> None:
    first, *others = (state_to_arrays(each.to_state() if hasattr(each, "to_state") else each.state) for each in executors)
    for other in others:
        assert other.values == first.values
        assert other.arrays.keys() == first.arrays.keys()
        for name, array in first.arrays.items():
            assert np.array_equal(array, other.arrays[name]), name


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
@pytest.mark.parametrize("rounding", Rounding)
def test_reference_eager_and_compiled_have_the_same_bits(optimiser: str, rounding: Rounding) -> None:
    """Through pruning, a layer whose kernels all die, and kernels that come back to life."""
    recipe = replace(RECIPE, optimiser=optimiser, update_rounding=rounding, stored_bits=16)
    states = [initial_state(NETWORK, WEIGHTS, recipe) for _ in range(3)]
    reference = ReferenceExecutor(NETWORK, states[0], recipe, TOTAL_STEPS)
    torches = [TorchExecutor(NETWORK, states[1 + fused], recipe, TOTAL_STEPS, fused=bool(fused)) for fused in (0, 1)]
    random = np.random.default_rng(0)
    masks = {
        2: ("conv2.weight", random.random((32, 32)) < 0.4),
        3: ("conv3.weight", np.zeros((64, 32), np.bool_)),
        5: ("conv2.weight", random.random((32, 32)) < 0.5),
    }
    for each in (reference, *torches):
        each.calibrate(*batch(0))
    for step in range(7):
        if step in masks:
            name, mask = masks[step]
            reference.state.parameters[name].set_mask(mask)
            for each in torches:
                each.set_mask(name, mask)
        for each in (reference, *torches):
            each.step(*batch(step))
        assert_same(reference, *torches)
    for name in ("conv2.weight", "conv3.weight"):
        parameter = reference.state.parameters[name]
        assert parameter.mask is not None
        assert parameter.second_moment is not None
        for codes in (parameter.stored, parameter.momentum, parameter.second_moment):
            assert not codes[~parameter.mask].any()
    assert reference.state.parameters["conv2.weight"].second_moment.any()
    assert reference.state.moment_steps == 7


@pytest.mark.parametrize("executor", [ReferenceExecutor, TorchExecutor])
def test_a_state_of_another_optimiser_is_refused(executor: Callable[..., object]) -> None:
    state = initial_state(NETWORK, WEIGHTS, Recipe())
    with pytest.raises(UsageError, match=r"has no second moment, but the recipe's optimiser is adam"):
        executor(NETWORK, state, RECIPE, TOTAL_STEPS)
    use_optimiser(state, Optimiser.ADAM)
    executor(NETWORK, state, RECIPE, TOTAL_STEPS)
    with pytest.raises(UsageError, match=r"has a second moment, but the recipe's optimiser is sgd"):
        executor(NETWORK, state, Recipe(), TOTAL_STEPS)


@pytest.mark.parametrize(("optimiser", "theirs"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_the_float_baseline_is_the_adam_of_torch(optimiser: str, theirs: Callable[..., torch.optim.Optimizer]) -> None:
    recipe = Recipe(optimiser=optimiser, learning_rate=0.002, weight_decay=0.03, beta2=0.99, epsilon=1e-5, schedule=Schedule.CONSTANT)
    ours, module = FloatTrainer(NETWORK, WEIGHTS, recipe, total_steps=10), float_module(NETWORK)
    module.load_state_dict({name: torch.from_numpy(value).float() for name, value in WEIGHTS.items()})
    optimiser = theirs(module.parameters(), lr=0.002, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.03)
    for seed in range(5):
        x, labels = batch(seed)
        loss = F.cross_entropy(module(torch.from_numpy(x.astype(np.float32) / 64)), torch.from_numpy(labels))
        assert ours.step(x, labels).loss == pytest.approx(loss.item(), rel=1e-4)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, value in ours.weights().items():
        assert np.allclose(value, dict(module.named_parameters())[name].detach(), atol=2e-5), name


def test_a_float_snapshot_goes_on_as_if_nothing_had_been() -> None:
    ours = FloatTrainer(NETWORK, WEIGHTS, RECIPE, 10)
    ours.step(*batch(0))
    mask = np.random.default_rng(0).random((64, 256)) < 0.3
    ours.prune({"dense4.weight": mask})
    ours.step(*batch(1))
    saved = ours.snapshot()
    assert saved.values == {"step": 2, "moment_steps": 2}
    for kind in ("weight", "momentum", "second_moment"):
        assert not saved.arrays[f"{kind}/dense4.weight"][~mask].any()
    copied = saved._replace(arrays={name: array.copy() for name, array in saved.arrays.items()})
    again = FloatTrainer.from_snapshot(NETWORK, copied, RECIPE, 10)
    assert again.step(*batch(2)) == ours.step(*batch(2))
    for name, array in ours.snapshot().arrays.items():
        assert np.array_equal(again.snapshot().arrays[name], array)


REQUEST = RunRequest(model="digits", data="digits", epochs=2, batch=240, seed=3, optimiser=Optimiser.ADAM)


def finished(request: RunRequest, out: Path) -> RunFolder:
    run = TrainingRun.begin(request, out)
    for _ in run.train():
        pass
    run.close()
    return RunFolder(out)


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path, train, resume, checkpoints) -> None:
    request = replace(REQUEST, density="0.4", prune_epoch=1, update_rounding=Rounding.STOCHASTIC)
    train(request, tmp_path / "whole")
    train(request, tmp_path / "cut", 1)
    resume(tmp_path / "cut", "epoch-0001")
    assert checkpoints(tmp_path / "cut") == checkpoints(tmp_path / "whole")
    saved = RunFolder(tmp_path / "cut").load().state
    mask = saved.arrays["mask/conv2.weight"]
    assert saved.values["moment_steps"] == saved.values["step"] == 10
    assert not saved.arrays["second_moment/conv2.weight"][~mask].any()
    assert saved.arrays["second_moment/conv2.weight"][mask].any(axis=(1, 2)).all()


def test_forks_keep_the_moments_of_their_optimiser_and_begin_others_at_zero(tmp_path: Path) -> None:
    adam = finished(REQUEST, tmp_path / "adam").load()
    onwards = finished(forked_request(str(tmp_path / "adam"), {"epochs": 1, "optimiser": Optimiser.ADAMW}), tmp_path / "adamw")
    first = onwards.load("epoch-0000")
    assert (first.plan.recipe.optimiser, first.plan.recipe.weight_decay) == (Optimiser.ADAMW, 0.01)
    assert all(np.array_equal(array, adam.state.arrays[name]) for name, array in first.state.arrays.items())
    assert (first.state.values["step"], first.state.values["moment_steps"]) == (0, 10)
    assert onwards.load().state.values["moment_steps"] == 15
    sgd = finished(forked_request(str(tmp_path / "adam"), {"epochs": 1, "optimiser": Optimiser.SGD}), tmp_path / "sgd")
    first = sgd.load("epoch-0000")
    assert first.plan.recipe.learning_rate == 0.01
    assert "with moments of zero" in sgd.config()["origin"]["meaning"]
    assert "weights, momenta, scales" in onwards.config()["origin"]["meaning"]
    assert not any(name.startswith("second_moment/") for name in first.state.arrays)
    assert "moment_steps" not in first.state.values
    assert not any(array.any() for name, array in first.state.arrays.items() if name.startswith("momentum/"))
    back = finished(forked_request(str(tmp_path / "sgd"), {"epochs": 1, "optimiser": Optimiser.ADAM}), tmp_path / "back")
    first = back.load("epoch-0000")
    assert first.state.values["moment_steps"] == 0
    assert not any(array.any() for name, array in first.state.arrays.items() if "moment" in name)
    assert np.array_equal(first.state.arrays["stored/conv2.weight"], sgd.load().state.arrays["stored/conv2.weight"])


def test_a_request_of_an_earlier_version_is_one_for_sgd() -> None:
    values = replace(REQUEST, optimiser=Optimiser.SGD).to_dict()
    old = {name: value for name, value in values.items() if name not in ("optimiser", "beta2", "epsilon")}
    assert RunRequest.from_dict(old) == replace(REQUEST, optimiser=Optimiser.SGD)
    asked = replace(REQUEST, beta2=0.99, epsilon=1e-6)
    assert RunRequest.from_dict(asked.to_dict()) == asked


def test_constants_of_adam_need_adam(tmp_path: Path) -> None:
    request = replace(REQUEST, optimiser=Optimiser.SGD, beta2=0.9)
    with pytest.raises(UsageError, match="the optimiser is sgd: add --optimizer adam"):
        TrainingRun.begin(request, tmp_path / "run")


class Small(nn.Module):
    """Batch normalisation, a shortcut, and a bias of ten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.norm2 = nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.last = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return self.last(F.relu(self.norm2(self.conv2(x)) + x).mean((2, 3)))


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.from_numpy(data.images[:, None].astype(np.float32)) / 8 - 1, torch.from_numpy(data.target)


def plain(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small()


def prepared(images: Tensor, recipe: Recipe | None = None, seed: int = 0) -> PreparedModel:
    return fixgrad.prepare(plain(seed), images[:64], recipe)


def loop(net, optimiser, images: Tensor, labels: Tensor, steps: int, first: int = 0) -> list[float]:
    losses = []
    for step in range(first, first + steps):
        chosen = torch.arange(step * 64, step * 64 + 64) % len(images)
        loss = net.loss(images[chosen], labels[chosen])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def assert_equal(one, other) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name], name


def test_an_ordinary_loop_trains_as_the_adam_of_torch_does(digits: tuple[Tensor, Tensor]) -> None:
    net, module = prepared(digits[0]), plain()
    optimiser = fixgrad.optim.Adam(net, lr=0.01)
    losses = loop(net, optimiser, *digits, 40)
    assert (net.recipe.optimiser, net.recipe.beta2, net.recipe.epsilon) == (Optimiser.ADAM, 0.999, 1e-8)
    floats, theirs = [], torch.optim.Adam(module.parameters(), lr=0.01)
    for step in range(40):
        chosen = torch.arange(step * 64, step * 64 + 64) % len(digits[0])
        theirs.zero_grad()
        loss = F.cross_entropy(module(digits[0][chosen]), digits[1][chosen])
        loss.backward()
        theirs.step()
        floats.append(loss.item())
    for ten in range(0, 40, 10):
        assert np.mean(losses[ten : ten + 10]) == pytest.approx(np.mean(floats[ten : ten + 10]), abs=0.03)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_a_step_in_one_is_the_same(digits: tuple[Tensor, Tensor], kind: str) -> None:
    images, labels = digits
    recipe = Recipe(optimiser=kind.lower(), learning_rate=0.01, weight_decay=0.1, momentum=0.8, beta2=0.99, schedule="constant")
    nets = [prepared(images, recipe) for _ in range(2)]
    optimiser = getattr(fixgrad.optim, kind)(nets[0], lr=0.01, betas=(0.8, 0.99), weight_decay=0.1)
    for _ in range(3):
        loop(nets[0], optimiser, images, labels, 1)
        nets[1].step(images[:64], labels[:64])
    assert_equal(nets[0].state_dict(), nets[1].state_dict())


def test_a_state_round_trips_into_a_model_that_knew_sgd_alone(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    net = prepared(digits[0])
    optimiser = fixgrad.optim.AdamW(net, lr=0.01)
    loop(net, optimiser, *digits, 2)
    net.prune(0.5)
    loop(net, optimiser, *digits, 2)
    torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    other = prepared(digits[0], seed=5)
    others = fixgrad.optim.AdamW(other, lr=0.9)
    other.load_state_dict(saved["net"])
    others.load_state_dict(saved["optimiser"])
    assert_equal(net.state_dict(), other.state_dict())
    assert loop(net, optimiser, *digits, 3, 9) == loop(other, others, *digits, 3, 9)
    assert_equal(net.state_dict(), other.state_dict())


def test_another_optimiser_begins_with_moments_of_zero(digits: tuple[Tensor, Tensor]) -> None:
    net = prepared(digits[0])
    loop(net, fixgrad.optim.SGD(net, lr=0.01), *digits, 3)
    weight = net.executor._by_name["conv2.weight"]
    assert weight.second_moment is None
    fresh = prepared(digits[0], Recipe(optimiser="adam"))
    fresh.executor.use_recipe(Recipe())
    fresh.load_state_dict(net.state_dict())
    loop(net, fixgrad.optim.Adam(net, lr=0.01), *digits, 1, 3)
    assert weight.second_moment is not None
    assert net.executor.to_state().moment_steps == 1
    loop(fresh, fixgrad.optim.Adam(fresh, lr=0.01), *digits, 1, 3)
    assert_equal(net.state_dict(), fresh.state_dict())
    loop(net, fixgrad.optim.SGD(net, lr=0.01), *digits, 1, 4)
    assert weight.second_moment is None
    assert net.executor.to_state().moment_steps == 1


def test_what_no_optimiser_can_be_is_refused(digits: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UsageError, match="takes the model that prepare"):
        fixgrad.optim.Adam(nn.Linear(2, 2))
    net = prepared(digits[0])
    optimiser = fixgrad.optim.Adam(net, betas=(0.9, 1.0))
    net.loss(digits[0][:64], digits[1][:64]).backward()
    with pytest.raises(UsageError, match=r"beta2 is 1\.0"):
        optimiser.step()
