"""What pyproject.toml and constraints.txt promise to whoever installs fixgrad."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import Specifier
from packaging.utils import canonicalize_name
from packaging.version import Version

import fixgrad

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUNTIME: list[str] = PROJECT["project"]["dependencies"]
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
#: Of all extras; an extra may pull another one of this package's own.
TEST_TOOLS = [requirement for extra in EXTRAS.values() for requirement in extra if Requirement(requirement).name != "fixgrad"]
DEPENDENCIES = RUNTIME + TEST_TOOLS
BUILD: list[str] = PROJECT["build-system"]["requires"]


def bounds(requirement: str) -> dict[str, Specifier]:
    return {specifier.operator: specifier for specifier in Requirement(requirement).specifier}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("requirement", DEPENDENCIES + BUILD)
def test_every_dependency_has_a_lower_and_an_upper_bound(requirement: str) -> None:
    found = bounds(requirement)
    assert set(found) == {">=", "<"}
    assert Version(found[">="].version) < Version(found["<"].version)


@pytest.mark.parametrize("requirement", DEPENDENCIES + BUILD)
def test_every_dependency_has_its_reason_beside_it(requirement: str) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(rf'"{re.escape(requirement)}"[],]+ +# \w', text), f"no reason beside {requirement}"


@pytest.mark.parametrize("requirement", DEPENDENCIES + BUILD)
def test_the_pinned_version_is_within_the_bounds(requirement: str) -> None:
    wanted = Requirement(requirement)
    versions = {canonicalize_name(name): version for name, version in pins().items()}
    assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)])


def test_pins_name_public_versions() -> None:
    """A local part such as `+cpu` exists on one index only."""
    assert {name for name, version in pins().items() if Version(version).local} == set()


def test_no_dependency_is_listed_twice() -> None:
    names = [canonicalize_name(Requirement(requirement).name) for requirement in DEPENDENCIES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.slow
def test_the_wheel_carries_every_module_and_data_file(tmp_path: Path) -> None:
    """Built from a copy, so that nothing is left in the checkout."""
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip_wheel, "-w", tmp_path, copy(tmp_path)], check=True, capture_output=True)
    with zipfile.ZipFile(tmp_path / f"fixgrad-{fixgrad.__version__}-py3-none-any.whl") as wheel:
        packed = {name for name in wheel.namelist() if name.startswith("fixgrad/")}
    expected = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "fixgrad").rglob("*")
        if path.suffix in {".py", ".json", ".toml", ".csv", ".h", ".cpp"} or path.name == "py.typed"
    }
    assert packed == expected


def copy(folder: Path) -> Path:
    """What the package is built from, in `folder`/checkout."""
    target = folder / "checkout"
    shutil.copytree(ROOT / "src", target / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target)
    return target
