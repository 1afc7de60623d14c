"""README convinces and gets one started: what is looked up is in docs/."""

import re

from tests.docs import README

LINES = 180
CELL = 90


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= LINES


def test_the_readme_has_no_table_to_look_things_up_in() -> None:
    """None that is generated, and no cell that wraps more than once; a link counts as its text."""
    text = README.read_text()
    assert "<!-- generated:" not in text
    rows = [line for line in re.sub(r"\]\([^)]*\)", "]", text).splitlines() if line.startswith("|")]
    assert [cell.strip() for row in rows for cell in row.strip("|").split("|") if len(cell.strip()) > CELL] == []
