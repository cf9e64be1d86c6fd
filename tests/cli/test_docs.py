"""What docs/cli.md says of the commands is what they say of themselves."""

from pathlib import Path

import pytest

from fixgrad.cli.app import COMMANDS, load_command

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def options_table(name: str) -> str:
    """The options of a command as a Markdown table."""
    rows = ["| option | what it is |", "|---|---|"]
    for parameter in load_command(name).params:
        if parameter.name == "help":
            continue
        shown = ", ".join([*parameter.opts, *parameter.secondary_opts]) if parameter.opts[0].startswith("-") else "RUN"
        default = parameter.default
        told = f" (default: {default})" if isinstance(default, int | str) and not isinstance(default, bool) else ""
        rows.append(f"| `{shown}` | {parameter.help}{told} |")
    return "\n".join(rows)


@pytest.mark.parametrize(
    "name",
    ["demo", "train", "report", "prune-search", "inspect", "cost", "compile", "check", "simulate", "verify", "compare"],
)
def test_the_page_lists_every_option_as_help_does(name: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert options_table(name) in text
    assert COMMANDS[name] in text


def test_the_page_lists_the_commands_about_machines() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert COMMANDS["machine"] in text
    for name, command in load_command("machine").commands.items():
        line = " ".join(command.help.split())
        assert f"`{name}" in text
        assert f"| {line} |" in text, name
