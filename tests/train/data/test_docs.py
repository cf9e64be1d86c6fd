"""What docs/data.md shows is what the program prints."""

import doctest
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixgrad.errors import DataError
from fixgrad.train.data import DATA_SETS, cifar10, open_data
from fixgrad.train.data.cifar10 import FOLDER, TEST_FILE, TRAIN_FILES

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_examples_of_the_page() -> None:
    sessions = re.findall(r"```pycon\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(sessions) == 2
    examples = doctest.DocTestParser().get_doctest("\n".join(sessions), {}, PAGE.name, str(PAGE), 0)
    found: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples, out=found.append)
    assert not found, "".join(found)


def test_every_data_set_is_in_the_table() -> None:
    assert all(f"| `{name}` |" in TEXT for name in DATA_SETS)


class RunsACommand:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def relabel(path: Path) -> None:
    content = pickle.loads(path.read_bytes())
    content[b"labels"][7] = 10
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("data_batch_3", Path.unlink),
        ("data_batch_2", truncate),
        (TEST_FILE, relabel),
        ("data_batch_1", lambda path: path.write_bytes(pickle.dumps(RunsACommand()))),
    ],
    ids=["missing", "truncated", "label", "malicious"],
)
def test_the_messages_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Path], object]
) -> None:
    monkeypatch.setattr(cifar10, "IMAGES_PER_FILE", 20)
    (tmp_path / FOLDER).mkdir()
    content = {b"data": np.zeros((20, 3072), np.uint8), b"labels": [0] * 20}
    for file in (*TRAIN_FILES, TEST_FILE):
        (tmp_path / FOLDER / file).write_bytes(pickle.dumps(content))
    damage(tmp_path / FOLDER / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        open_data("cifar10", Path(FOLDER))
    assert f"\n{caught.value}\n" in TEXT
