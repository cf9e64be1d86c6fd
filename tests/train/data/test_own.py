"""Datasets of the user's own: read once, checked item by item, and errors that name the item and the line."""

from pathlib import Path

import numpy as np
import pytest

from fixgrad.errors import DataError, FixgradError, UsageError
from fixgrad.train.data import open_data

PREAMBLE = """
import numpy as np

class Squares:
    classes = ["dark", "light"]

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return np.full((6, 5), 10 * i, np.uint8), i % 2
"""


def write(folder: Path, body: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(PREAMBLE + body)
    return path


def open_body(folder: Path, body: str, **options: object):
    return open_data(f"{write(folder, body)}:data", **options)


def refusal(folder: Path, body: str, kind: type[FixgradError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        open_body(folder, body)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_pair_of_datasets(tmp_path: Path) -> None:
    source = open_body(tmp_path, "def data(): return Squares(8), Squares(3)")
    assert source.name == "mine:data"
    assert source.shape == (1, 6, 5)
    assert source.train.images[:, 0, 2, 2].tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert source.test.labels.tolist() == [0, 1, 0]
    assert source.train.class_names == ("dark", "light")
    assert source.augment is None
    assert source.normalise.mean == (35,)


def test_torch_datasets(tmp_path: Path) -> None:
    body = """
import torch
def data():
    images = torch.arange(4 * 3 * 2 * 2).reshape(4, 3, 2, 2).to(torch.uint8)
    whole = torch.utils.data.TensorDataset(images, torch.tensor([0, 1, 2, 1]))
    return torch.utils.data.Subset(whole, [3, 0]), whole
"""
    source = open_body(tmp_path, body)
    assert source.train.images.ravel().tolist() == [*range(36, 48), *range(12)]
    assert source.train.labels.tolist() == [1, 0]
    assert source.train.class_names == ("0", "1", "2")


def test_lists_of_pairs_are_datasets_too(tmp_path: Path) -> None:
    source = open_body(tmp_path, "def data(): return [([[0, 1]], 0)], [([[2, 3]], 1)]")
    assert source.test.images.tolist() == [[[[2, 3]]]]


def test_the_function_is_given_the_data_folder_if_there_is_one(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((2, 2), 9, np.uint8))
    body = "def data(folder): return [(np.load(folder / 'x.npy'), 0)], Squares(1)"
    with pytest.raises(
        DataError, match=r"test item 0 has shape \[1, 6, 5\], the images before it \[1, 2, 2\]"
    ):
        open_body(tmp_path, body, data_dir=tmp_path)
    with pytest.raises(FixgradError, match=r"data\(\) failed: TypeError"):
        open_body(tmp_path, body)


def test_a_data_source_is_taken_as_it_is(tmp_path: Path) -> None:
    body = """
from fixgrad.train.data import Augment, DataSource, ImageSet, Normalise
def data():
    images = ImageSet("own", "train", np.zeros((2, 1, 4, 4), np.uint8), np.zeros(2, np.int64), ("a",))
    return DataSource(images, images, Normalise((7,), 2, 0, 6), Augment(1, True))
"""
    source = open_body(tmp_path, body)
    assert source.normalise.mean == (7,)
    assert source.name == "own"


def test_options_apply_to_it(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    source = open_body(
        tmp_path,
        "def data(): return Squares(10), Squares(3)",
        augment="crop+flip",
        validation=20,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert source.augment is not None
    assert source.augment.flip
    assert source.validation is not None
    assert len(source.validation) == 2
    assert seen == [(done, 13) for done in range(1, 14)]
    with pytest.raises(UsageError, match="has no use for --image-size"):
        open_body(tmp_path, "def data(): return Squares(10), Squares(3)", image_size=8)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def data(): return None", "returned a NoneType, expected a pair"),
        ("def data(): return Squares(1)", "returned a Squares, expected a pair"),
        ("def data(): return Squares(1), Squares(1), 3", "returned a tuple of 3, expected a pair"),
        ("def data(): return Squares(1), 3", "returned a int in the pair: a dataset needs __len__"),
        ("def data(): return Squares(1), iter([])", "returned a list_iterator in the pair"),
        ("def data(): return Squares(0), Squares(1)", "a dataset without images"),
        ("def data(): return Squares(1), []", "a dataset without images"),
        (
            "def data(): return [([[1]], 0), 5], Squares(1)",
            "train item 1 is a int, expected a pair (image, label)",
        ),
        ("def data(): return [([[1]], 0, 0)], Squares(1)", "train item 0 is a tuple of 3, expected a pair"),
        ("def data(): return [([[1]], 0), ([[1, 2]], 0)], Squares(1)", "train item 1 has shape [1, 1, 2]"),
        (
            "def data(): return Squares(2), [(np.zeros((6, 5, 2)), 0)]",
            "test item 0 has an image of shape [6, 5, 2]",
        ),
        (
            "def data(): return [([[1]], 0), ([[300]], 0)], Squares(1)",
            "train item 1 has int64 pixels from 300",
        ),
        ("def data(): return [([[1]], 'cat')], Squares(1)", "train item 0 has the label 'cat'"),
    ],
)
def test_what_a_function_must_not_return(tmp_path: Path, body: str, message: str) -> None:
    assert message in refusal(tmp_path, body)


def test_an_item_that_fails_names_its_index_and_the_line(tmp_path: Path) -> None:
    body = """
class Broken(Squares):
    def __getitem__(self, i):
        return 1 / (2 - i)
def data():
    return Squares(1), [] or Broken(5)
"""
    body = body.replace(
        "return 1 / (2 - i)", "assert i < 2, 'too far'\n        return super().__getitem__(i)"
    )
    message = refusal(tmp_path, body, FixgradError)
    line = (PREAMBLE + body).splitlines().index("        assert i < 2, 'too far'") + 1
    assert f"mine.py, line {line}: " in message
    assert "test item 2 failed: AssertionError: too far" in message


def test_class_names_that_do_not_reach_are_not_used(tmp_path: Path) -> None:
    source = open_body(tmp_path, "class S(Squares): classes = ['one']\ndef data(): return S(4), S(4)")
    assert source.train.class_names == ("0", "1")
