"""Opening a data set by name: names, options and what is imported for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from fixgrad.errors import UsageError
from fixgrad.train.data import DATA_SETS, Augment, open_data


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "digit",
            r"no data set is called 'digit' \(did you mean digits\?\): choose digits, cifar10, folders or FILE",
        ),
        ("cifar-10", r"\(did you mean cifar10\?\)"),
        ("imagenet", "no data set is called 'imagenet': choose digits, cifar10, folders"),
        ("", "no data set is called '': choose"),
    ],
)
def test_unknown_names_list_the_known_ones(name: str, message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        open_data(name)
    assert caught.value.exit_code == 2


def test_a_folder_in_place_of_a_name_is_understood(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"for a folder of images: --data folders --data-dir {tmp_path}"):
        open_data(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"data_dir": Path(".")}, "data set digits has no use for --data-dir: leave it out"),
        ("digits", {"image_size": 8}, "data set digits has no use for --image-size"),
        ("cifar10", {"image_size": 8}, "data set cifar10 has no use for --image-size"),
        ("digits", {"augment": "blur"}, "augmentation 'blur' is unknown"),
        ("digits", {"validation": 95}, "validation share is 95 %"),
    ],
)
def test_options_that_do_not_fit(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_data(name, **options)


def test_augmentation_can_be_set_and_taken_away() -> None:
    assert open_data("digits").augment is None
    assert open_data("digits", augment="crop").augment == Augment(pad=1)
    assert open_data("digits", augment="none").augment is None


def test_validation_leaves_the_test_set_alone() -> None:
    source = open_data("digits", validation=10)
    assert source.validation is not None
    assert (len(source.train), len(source.validation)) == (1437 - 143, 143)
    assert source.test.fingerprint() == open_data("digits").test.fingerprint()


def test_every_entry_has_a_summary_of_one_line() -> None:
    assert all(entry.summary and "\n" not in entry.summary for entry in DATA_SETS.values())


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    heavy = "{'torch', 'sklearn', 'PIL', 'scipy', 'tensorboard'}"
    script = f"import sys, fixgrad.train.data; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
