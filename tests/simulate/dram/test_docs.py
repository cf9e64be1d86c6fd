"""The example of the page prints what the page shows."""

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "dram.md"


def test_the_example_runs() -> None:
    found = re.search(r"```python\n(.*?)```\n```\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(found[1], {})
    assert printed.getvalue() == found[2]
