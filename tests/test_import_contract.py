"""The import contract of pyproject.toml, shown to fail where it must.

It runs on a house that has every room of the plan, empty but for the imports of the test.
"""

import os
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = [layer.strip("()") for layer in PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]][:-1]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A package `fixgrad` with every room of the plan, each with an empty module `inside`."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    package = tmp_path / "src" / "fixgrad"
    for room in ROOMS:
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").touch()
        (package / room / "inside.py").touch()
    (package / "__init__.py").touch()
    (package / "errors.py").touch()
    return tmp_path


def lint(house: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts")) / "lint-imports"
    return subprocess.run(
        [program, "--no-cache", "--config", house / "pyproject.toml"],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def write(house: Path, room: str, *lines: str, module: str = "inside") -> None:
    (house / "src" / "fixgrad" / room / f"{module}.py").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_allowed_imports_pass(house: Path) -> None:
    for room in ROOMS:
        write(house, room, "import fixgrad.errors", module="__init__")
    write(house, "sparse", "import fixgrad.numbers.inside")
    write(house, "train", "import torch", "import fixgrad.network.inside")
    write(house, "machine", "import fixgrad.network.inside")
    write(house, "gateware", "import fixgrad.numbers.inside", "import fixgrad.machine.inside")
    write(house, "explore", "import fixgrad.train.inside", "import fixgrad.simulate.inside")
    write(house, "cli", "def command():", "    import fixgrad.train.inside")
    result = lint(house)
    assert result.returncode == 0, result.stdout
    assert "4 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("room", "imported"),
    [
        ("numbers", "fixgrad.sparse.inside"),
        ("network", "fixgrad.train.inside"),
        ("train", "fixgrad.machine.inside"),
        ("machine", "fixgrad.train.inside"),
        ("compiler", "fixgrad.train.inside"),
        ("simulate", "fixgrad.train.inside"),
        ("gateware", "fixgrad.train.inside"),
        ("gateware", "fixgrad.compiler.inside"),
        ("gateware", "fixgrad.network.inside"),
        ("gateware", "fixgrad.sparse.inside"),
        ("report", "fixgrad.cli.inside"),
    ],
)
def test_a_forbidden_room_is_named(house: Path, room: str, imported: str) -> None:
    write(house, room, f"import {imported}")
    result = lint(house)
    assert result.returncode == 1
    assert f"fixgrad.{room}.inside -> {imported} (l.1)" in result.stdout


def test_an_import_inside_a_function_counts(house: Path) -> None:
    write(house, "machine", "def later():", "    from fixgrad.train import inside")
    assert "fixgrad.machine.inside -> fixgrad.train.inside (l.2)" in lint(house).stdout


@pytest.mark.parametrize("room", ["numbers", "network", "machine", "report", "cli"])
def test_pytorch_outside_of_training_is_refused(house: Path, room: str) -> None:
    write(house, room, "def later():", "    import torch.nn")
    result = lint(house)
    assert result.returncode == 1
    assert f"fixgrad.{room}.inside -> torch (l.2)" in result.stdout


def test_a_room_that_is_not_in_the_plan_is_refused(house: Path) -> None:
    (house / "src" / "fixgrad" / "attic").mkdir()
    (house / "src" / "fixgrad" / "attic" / "__init__.py").touch()
    result = lint(house)
    assert result.returncode == 1
    assert "fixgrad.attic" in result.stdout
