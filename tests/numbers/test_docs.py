"""The examples of docs/numbers.md give what the page says they give."""

import doctest
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "numbers.md"


def test_the_examples_of_the_page() -> None:
    sessions = re.findall(r"```pycon\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("\n".join(sessions), {}, PAGE.name, str(PAGE), 0)
    found: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples, out=found.append)
    assert len(examples.examples) > 20
    assert not found, "".join(found)
