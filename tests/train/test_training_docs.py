"""What docs/training.md shows is what the program does."""

import doctest
import re
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fixgrad.train.defaults import BY_MODEL, GENERAL

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_examples_of_the_page() -> None:
    sessions = re.findall(r"```pycon\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(sessions) == 3
    examples = doctest.DocTestParser().get_doctest("\n".join(sessions), {}, PAGE.name, str(PAGE), 0)
    found: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples, out=found.append)
    assert not found, "".join(found)


def test_the_table_of_defaults() -> None:
    for name, defaults in [*((f"`{name}`", found) for name, found in BY_MODEL.items()), ("others", GENERAL)]:
        row = (
            f"| {name} | {defaults.epochs} | {defaults.batch} | {defaults.learning_rate} | {defaults.warmup_steps} steps "
            f"| {defaults.momentum} | {defaults.weight_decay} | linear to 0 | {defaults.adam_rate} |"
        )
        assert row in TEXT


class Residual(nn.Module):
    """A module of a reader's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.norm2 = nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.last = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)) + x)
        return self.last(x.mean((2, 3)))


def test_the_ten_lines_of_a_loop_of_ones_own() -> None:
    (example,) = re.findall(r"```python\n(import fixgrad\n.*?)```", TEXT, flags=re.DOTALL)
    assert example in (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    assert len([line for line in example.splitlines() if line and not line.startswith("import")]) == 10
    data = load_digits()
    images = torch.from_numpy(data.images[:1024, None].astype(np.float32)) / 8 - 1
    torch.manual_seed(0)
    dataset = torch.utils.data.TensorDataset(images, torch.from_numpy(data.target[:1024]))
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True)
    names = {"torch": torch, "model": Residual(), "loader": loader, "epochs": 4}
    exec(compile(example, str(PAGE), "exec"), names)
    assert float(names["loss"]) < 1.8
    logits = names["net"](images)
    assert (logits.argmax(dim=1) == torch.from_numpy(data.target[:1024])).float().mean() > 0.5
