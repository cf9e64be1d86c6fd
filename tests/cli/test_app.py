"""The frame of the command line: lazy loading, one-line errors, exit codes."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fixgrad.cli
from fixgrad import __version__
from fixgrad.cli import app
from fixgrad.cli.app import COMMANDS, main

SLOW_TO_IMPORT = {"torch", "numba", "sklearn", "scipy", "tensorboard", "matplotlib"}

Add = Callable[..., None]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Add a command to fixgrad for one test: its name, its source and its line in the table."""
    monkeypatch.setattr(fixgrad.cli, "__path__", [*fixgrad.cli.__path__, str(tmp_path)])
    monkeypatch.setattr(app, "COMMANDS", dict(COMMANDS))

    def added(name: str, source: str, line: str = "A command of a test.") -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        monkeypatch.delitem(sys.modules, f"fixgrad.cli.{module}", raising=False)
        app.COMMANDS[name] = line

    return added


def body(statement: str) -> str:
    return f"from fixgrad.errors import *\ndef command() -> None:\n    {statement}\n"


def imported_by(*arguments: str) -> set[str]:
    """Top-level modules that a process has imported after `fixgrad ARGUMENTS`."""
    code = (
        "import json, sys; from fixgrad.cli.app import main; code = main(sys.argv[1:]);"
        "names = sorted({name.partition('.')[0] for name in sys.modules});"
        "print(json.dumps(names), file=sys.stderr); sys.exit(code)"
    )
    process = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(process, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_imports_nothing_slow() -> None:
    modules = imported_by("--help")
    assert "typer" in modules
    assert modules & SLOW_TO_IMPORT == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_imports_nothing_slow(name: str) -> None:
    modules = imported_by(name, "--help")
    assert "typer" in modules
    assert modules & SLOW_TO_IMPORT == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_docstring_says(name: str) -> None:
    command = app.load_command(name)
    assert command.help.splitlines()[0] == COMMANDS[name]


def test_every_command_file_is_in_the_table() -> None:
    defined = set()
    for path in Path(app.__file__).parent.glob("*.py"):
        names = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        if "command" in names:
            defined.add(path.stem.replace("_", "-"))
    assert defined <= set(COMMANDS)


def test_help_lists_commands_without_importing_them(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add("never-imported", "raise AssertionError('imported')", line="What the table says.")
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "never-imported" in shown
    assert "What the table says." in shown
    assert "fixgrad.cli.never_imported" not in sys.modules


def test_only_the_command_that_runs_is_imported(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add("never-imported", "raise AssertionError('imported')")
    add("hello", "def command(name: str, times: int = 1) -> None:\n    print('hello', name, times)")
    assert main(["hello", "you", "--times", "3"]) == 0
    assert capsys.readouterr().out == "hello you 3\n"


def test_help_of_a_command_shows_its_own_options(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add("hello", 'def command(times: int = 1) -> None:\n    """Say hello.\n\n    Politely."""')
    assert main(["hello", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: fixgrad hello" in shown
    assert "--times" in shown
    assert "Politely." in shown


def test_a_command_can_have_commands_of_its_own(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add(
        "board",
        "import typer\n"
        "app = typer.Typer()\n"
        "@app.command('list')\n"
        "def list_() -> None:\n    print('both')\n"
        "@app.command()\n"
        "def show(name: str) -> None:\n    print('one', name)\n",
    )
    assert main(["board", "list"]) == 0
    assert main(["board", "show", "kcu1500"]) == 0
    assert main(["board", "nothing"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "both\none kcu1500\n"
    assert shown.err == "error: No such command 'nothing'; see `fixgrad board --help`\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fixgrad {__version__}\n"


@pytest.mark.parametrize(
    ("statement", "exit_code", "line"),
    [
        ("pass", 0, ""),
        ("raise FixgradError('the work failed')", 1, "error: the work failed\n"),
        ("raise DataError('a.bin: 3 bytes,\\n  expected 4')", 1, "error: a.bin: 3 bytes, expected 4\n"),
        ("raise UsageError('density 1.5: give at most 1')", 2, "error: density 1.5: give at most 1\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("open('/no/such/file')", 1, "error: /no/such/file: No such file or directory\n"),
        ("import typer; raise typer.Exit(5)", 5, ""),
        ("import typer; raise typer.Abort", 1, "error: aborted\n"),
    ],
)
def test_exit_codes(
    add: Add, capsys: pytest.CaptureFixture[str], statement: str, exit_code: int, line: str
) -> None:
    add("act", body(statement))
    assert main(["act"]) == exit_code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--nonsense"], "error: No such option: --nonsense; see `fixgrad --help`\n"),
        (["nonsense"], "error: No such command 'nonsense'; see `fixgrad --help`\n"),
        (["act", "--nonsense"], "error: No such option: --nonsense; see `fixgrad act --help`\n"),
        (["act", "--times"], "error: Option '--times' requires an argument.\n"),
        (["act", "more"], "error: Got unexpected extra argument(s) (more); see `fixgrad act --help`\n"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    add: Add, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    add("act", "def command(times: int = 1) -> None:\n    pass")
    assert main(arguments) == 2
    assert capsys.readouterr().err == line


def test_a_wrong_value_names_the_option(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add("act", "def command(times: int = 1) -> None:\n    pass")
    assert main(["act", "--times", "often"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: Invalid value for '--times': ")
    assert shown.count("\n") == 1


def test_without_a_command_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert "Usage: fixgrad" in shown.out
    assert shown.err == ""


def test_the_unexpected_is_one_line(
    add: Add, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIXGRAD_TRACEBACK", raising=False)
    add("act", body("raise RuntimeError('first\\nsecond')"))
    assert main(["act"]) == 1
    assert capsys.readouterr().err == (
        "error: unexpected RuntimeError: first second; set FIXGRAD_TRACEBACK=1 to see where it comes from\n"
    )


def test_the_traceback_of_the_unexpected_is_shown_on_request(
    add: Add, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIXGRAD_TRACEBACK", "1")
    add("act", body("raise RuntimeError('first')"))
    assert main(["act"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert shown.endswith("RuntimeError: first\n")


def test_the_exit_code_reaches_the_shell() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fixgrad.cli", "nonsense"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: No such command 'nonsense'; see `fixgrad --help`\n"
