"""What docs/training.md shows is what the program does."""

import doctest
import re
from pathlib import Path

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
            f"| {defaults.momentum} | {defaults.weight_decay} | linear to 0 |"
        )
        assert row in TEXT
