"""`fixgrad.prepare`: a user's module, optimiser, scheduler and loop, in fixed point."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fixgrad
from fixgrad.errors import DataError, UsageError
from fixgrad.network import Schedule


class Small(nn.Module):
    """A small ResNet for digits, with everything that a prepared model remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.norm2 = nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv3, self.norm3 = nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24)
        self.drop, self.last = nn.Dropout(0.1), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)) + x)
        x = F.relu(self.norm3(self.conv3(x)))
        return self.last(self.drop(x.mean((2, 3))))


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """Float images and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.from_numpy(data.images[:, None].astype(np.float32)) / 8 - 1, torch.from_numpy(data.target)


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small()


def loop(net, optimiser, images, labels, steps: int, first: int = 0) -> list[float]:
    """An ordinary training loop."""
    losses = []
    for step in range(first, first + steps):
        batch = torch.arange(step * 64, step * 64 + 64) % len(images)
        optimiser.zero_grad()
        loss = net.loss(images[batch], labels[batch])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_an_ordinary_loop_trains(digits):
    images, labels = digits
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    net = fixgrad.prepare(model, images[:256])
    optimiser = fixgrad.optim.SGD(net, lr=0.05, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=2)
    losses = []
    for epoch in range(2):
        losses += loop(net, optimiser, images, labels, 24, 24 * epoch)
        scheduler.step()
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    logits = net(images[:500])
    assert logits.shape == (500, 10)
    assert (logits.argmax(dim=1) == labels[:500]).float().mean() > 0.7
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert net.write_back() is model
    model.eval()
    close = model(images[:500])
    assert (close.argmax(dim=1) == logits.argmax(dim=1)).float().mean() > 0.95
    assert not torch.equal(model.norm1.running_mean, before["norm1.running_mean"])


def test_the_rate_is_the_schedulers(digits):
    images, labels = digits
    net = fixgrad.prepare(small(), images[:64])
    optimiser = fixgrad.optim.SGD(net, lr=0.25, momentum=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, 1, gamma=0.5)
    for expected in (0.25, 0.125):
        loop(net, optimiser, images, labels, 1)
        assert net.recipe.learning_rate == expected
        scheduler.step()
    assert (net.recipe.momentum, net.recipe.weight_decay, net.recipe.schedule) == (0.5, 0.0, Schedule.CONSTANT)


def test_a_step_in_one_is_the_same(digits):
    images, labels = digits
    recipe = fixgrad.Recipe(learning_rate=0.05, schedule="constant", weight_decay=0.0)
    nets = [fixgrad.prepare(small(), images[:64], recipe) for _ in range(2)]
    optimiser = fixgrad.optim.SGD(nets[0], lr=0.05)
    for _ in range(3):
        loop(nets[0], optimiser, images, labels, 1)
        nets[1].step(images[:64], labels[:64])
    assert_equal(nets[0].state_dict(), nets[1].state_dict())


def assert_equal(one, other) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name]
        assert same, name


def test_a_state_round_trips_with_masks_and_formats(digits, tmp_path):
    images, labels = digits
    net = fixgrad.prepare(small(), images[:64], fixgrad.Recipe(stored_bits=16))
    optimiser = fixgrad.optim.SGD(net, lr=0.05)
    loop(net, optimiser, images, labels, 2)
    kept = net.prune(0.5)
    assert 0.45 < kept < 0.55
    loop(net, optimiser, images, labels, 2)
    torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    other = fixgrad.prepare(small(seed=5), images[:64])
    others = fixgrad.optim.SGD(other, lr=0.9)
    other.load_state_dict(saved["net"])
    others.load_state_dict(saved["optimiser"])
    assert_equal(net.state_dict(), other.state_dict())
    assert other.masks().keys() == net.masks().keys()
    assert loop(net, optimiser, images, labels, 3, 9) == loop(other, others, images, labels, 3, 9)
    assert_equal(net.state_dict(), other.state_dict())


def test_a_state_without_masks_is_refused_for_a_sparse_model(digits):
    images, _ = digits
    dense, sparse = (fixgrad.prepare(small(), images[:64]) for _ in range(2))
    sparse.prune(0.5)
    with pytest.raises(DataError, match=r"no mask for conv1\.weight, which is pruned here"):
        sparse.load_state_dict(dense.state_dict())
    state = sparse.state_dict()
    del state["executor.layers.0.weight.mask"]
    with pytest.raises(DataError, match=r"no mask for conv1\.weight"):
        sparse.load_state_dict(state)
    dense.load_state_dict(sparse.state_dict())
    assert dense.masks().keys() == sparse.masks().keys()


def test_states_of_something_else_are_refused(digits):
    images, _ = digits
    net = fixgrad.prepare(small(), images[:64])
    with pytest.raises(DataError, match="not one of a prepared model"):
        net.load_state_dict(small().state_dict())
    other = fixgrad.prepare(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), images[:64])
    with pytest.raises(DataError, match="of another network"):
        net.load_state_dict(other.state_dict())


def test_misuse_is_told_in_one_line(digits):
    images, labels = digits
    net = fixgrad.prepare(small(), images[:64])
    optimiser = fixgrad.optim.SGD(net, lr=0.1)
    with pytest.raises(UsageError, match="take a training step, or load a state"):
        net(images)
    with pytest.raises(UsageError, match="there is no gradient"):
        optimiser.step()
    with pytest.raises(UsageError, match="tell prepare"):
        net.step(images[:64], labels[:64])
    with pytest.raises(UsageError, match="change the learning rate instead"):
        (2 * net.loss(images[:8], labels[:8])).backward()
    net.loss(images[:8], labels[:8]).backward()
    with pytest.raises(UsageError, match="cannot be added up"):
        net.loss(images[:8], labels[:8]).backward()
    with pytest.raises(UsageError, match="takes the model that prepare"):
        fixgrad.optim.SGD(small(), lr=0.1)
    with pytest.raises(DataError, match="largest magnitude 0"):
        fixgrad.prepare(small(), images[:4] * 0)
    with pytest.raises(DataError, match="give a batch"):
        fixgrad.prepare(small(), images[0])
    with pytest.raises(UsageError, match=r"^model Softmax|model Sequential cannot be trained"):
        fixgrad.prepare(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1)), images[:4])


def test_the_scale_of_the_input_follows_the_example():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    for largest, frac in ((0.99, 7), (1.0, 6), (1.99, 6), (2.0, 5), (200.0, -1), (0.01, 13)):
        example = torch.full((2, 1, 2, 2), largest)
        net = fixgrad.prepare(model, example)
        assert net.network.input_frac == frac
        assert int(net.codes(example).max()) == min(int(largest * 2.0**frac + 0.5), 127)


def test_importing_fixgrad_imports_no_pytorch():
    code = "import fixgrad, sys; assert 'prepare' in dir(fixgrad); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'prepared'"):
        _ = fixgrad.prepared


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_as_well_as_float(digits, seed):
    """Six epochs of digits, fixed point beside float from the same weights on the same batches: within 4 points."""
    images, labels = digits
    module = small(seed)
    torch.manual_seed(seed)
    module.drop.p = 0.0
    net = fixgrad.prepare(module, images[:256])
    ours = fixgrad.optim.SGD(net, lr=0.05, momentum=0.9, weight_decay=5e-4)
    theirs = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(6):
        for batch in torch.randperm(1280).split(64):
            net.loss(images[batch], labels[batch]).backward()
            ours.step()
            theirs.zero_grad()
            F.cross_entropy(module(images[batch]), labels[batch]).backward()
            theirs.step()
    module.eval()
    rest = slice(1280, None)
    accuracies = [float((each(images[rest]).argmax(dim=1) == labels[rest]).float().mean()) for each in (net, module)]
    assert accuracies[0] > 0.85
    assert accuracies[0] > accuracies[1] - 0.04
