"""``FILE.py:FUNCTION``: found, run once, and told where it fails."""

import re
import sys
from pathlib import Path

import pytest

from fixgrad.errors import DataError, FixgradError, UsageError
from fixgrad.train.user_code import is_user_spec, load_callable


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", ["a.py:f", "dir/a.py:f", "C:\\x\\a.py:f", "./a.b.py:f"])
def test_specs(text: str) -> None:
    assert is_user_spec(text)


@pytest.mark.parametrize("text", ["", "vgg11", "a.py", "a.txt:f", "a:f", ":f"])
def test_what_is_no_spec(text: str) -> None:
    assert not is_user_spec(text)
    with pytest.raises(UsageError, match=re.escape(f"{text!r} names no function: write FILE.py:FUNCTION")):
        load_callable(text)


def test_the_function_is_called_with_the_arguments(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "def add(a, b=1): return a + b")
    assert load_callable(f"{path}:add")(2) == 3
    assert load_callable(f"{path}:add")(2, b=5) == 7


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine.py", "def one(): return 1")
    monkeypatch.chdir(tmp_path)
    assert load_callable("mine.py:one")() == 1


def test_the_file_runs_once_and_not_as_main(tmp_path: Path) -> None:
    path = write(
        tmp_path / "once.py",
        "runs = []\nruns.append(1)\ndef f(): return runs\ndef g(): return runs\nassert __name__ != '__main__'\n",
    )
    assert load_callable(f"{path}:f")() is load_callable(f"{path}:g")() == [1]


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number) / "same.py", f"def f(): return {number}")
    assert [load_callable(f"{tmp_path / str(number) / 'same.py'}:f")() for number in (1, 2)] == [1, 2]


def test_files_of_the_same_folder_can_be_imported_at_once_and_later(tmp_path: Path) -> None:
    write(tmp_path / "sibling_of_user.py", "value = 5")
    write(tmp_path / "later_sibling_of_user.py", "value = 6")
    path = write(
        tmp_path / "mine.py",
        "import sibling_of_user\n"
        "def f():\n    import later_sibling_of_user\n"
        "    return sibling_of_user.value, later_sibling_of_user.value\n",
    )
    assert load_callable(f"{path}:f")() == (5, 6)
    assert sys.path[0] != str(tmp_path)


def test_dataclasses_find_their_module(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.py",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    x: int = 3\ndef f(): return A().x\n",
    )
    assert load_callable(f"{path}:f")() == 3


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*gone\.py in .*: check the path"):
        load_callable(f"{tmp_path / 'gone.py'}:f")


def test_a_missing_function(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "value = 3")
    with pytest.raises(UsageError, match=r"mine\.py has no function 'f': write FILE\.py:FUNCTION"):
        load_callable(f"{path}:f")
    with pytest.raises(UsageError, match=r"mine\.py has a int, not a function, called 'value'"):
        load_callable(f"{path}:value")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "x = 1\nundefined_name\n",
            "line 2: the file does not run: NameError: name 'undefined_name' is not defined",
        ),
        (
            "x = 1\n\nimport no_such_module_anywhere\n",
            "line 3: the file does not run: ModuleNotFoundError: No module",
        ),
        ("def f(:\n", "line 1: the file does not run: SyntaxError"),
        ("def f():\n\treturn 1\n        return 2\n", "line 3: the file does not run: TabError"),
        ("import sys\nsys.exit(3)\n", "line 2: the file does not run: SystemExit: 3"),
        ("raise ValueError('two\\nlines')\n", "line 1: the file does not run: ValueError: two lines"),
        ("x = 'a' + \\\n  1\n", "the file does not run: TypeError"),
        ("raise KeyboardInterrupt", None),
    ],
)
def test_a_file_that_does_not_run_names_the_line(tmp_path: Path, text: str, message: str | None) -> None:
    path = write(tmp_path / "mine.py", text)
    if message is None:  # the user's Ctrl-C is not an error of the file
        with pytest.raises(KeyboardInterrupt):
            load_callable(f"{path}:f")
        return
    with pytest.raises(FixgradError, match=re.escape(message)) as caught:
        load_callable(f"{path}:f")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_after_a_failure_the_file_can_be_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "oops")
    with pytest.raises(FixgradError):
        load_callable(f"{path}:f")
    write(path, "def f(): return 'mended'  # longer, so that no stale byte code is taken for it")
    assert load_callable(f"{path}:f")() == "mended"


def test_a_function_that_fails_names_the_deepest_line_of_the_users_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.py",
        "import json\ndef inner(x):\n    return json.loads(x)\ndef f(): return inner('{')\n",
    )
    with pytest.raises(FixgradError, match=r"mine\.py, line 3: f\(\) failed: JSONDecodeError: Expecting"):
        load_callable(f"{path}:f")()


def test_errors_of_fixgrad_pass_unchanged(tmp_path: Path) -> None:
    text = "from fixgrad.errors import DataError\ndef f(): raise DataError('as it is')\n"
    path = write(tmp_path / "mine.py", text)
    with pytest.raises(DataError, match=r"^as it is$"):
        load_callable(f"{path}:f")()
