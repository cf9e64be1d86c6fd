"""docs/cost_model.md prints what the code prints."""

import doctest
import re
from pathlib import Path

import pytest

from fixgrad.cli.app import main

PAGE = Path(__file__).parents[2] / "docs" / "cost_model.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_example() -> None:
    sessions = re.findall(r"```pycon\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(sessions) == 1
    examples = doctest.DocTestParser().get_doctest("\n".join(sessions), {}, PAGE.name, str(PAGE), 0)
    found: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples, out=found.append)
    assert not found, "".join(found)


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (["cost", "--model", "vgg11", "--density", "talk", "--count-padding"], 39),
        (["machine", "resources", "kcu1500"], 19),
    ],
)
def test_the_tables(
    command: list[str], lines: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(command) == 0
    shown = "\n".join(line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines())
    assert shown.count("\n") >= lines
    assert f"```\n{shown}\n```" in TEXT


def test_the_totals_without_padding(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--model", "vgg11", "--density", "talk"]) == 0
    totals = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.startswith(("total", "step"))]
    assert len(totals) == 4
    assert "\n".join(totals) in TEXT
