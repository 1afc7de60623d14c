"""README's tables are those of the code."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.model import Database
from sidecar.status.model import Status
from sidecar.status.problems import Kind
from sidecar.status.serialize import as_json
from tests.readme import README, generated, undocumented


def test_the_generated_parts_of_readme_are_up_to_date() -> None:
    """`make docs` writes them."""
    text = README.read_text()
    assert generated(text) == text


@pytest.mark.parametrize("store", ["s3://bucket", "file:///store"])
def test_every_field_of_the_status_is_documented(store: str) -> None:
    """In the tables of the JSON's section, by its name in backquotes."""
    status = Status((Database("app.db", Path("/data/app.db")),), store, "1", lambda: datetime.now(UTC))
    status.enter("running", ready=True)
    status.published("app.db", "key", 1, 1, 0, 1, {"upload": 1.0})
    status.report("app.db", "message", "hint", Kind.NOTICE)
    assert undocumented("status", as_json(status)) == set()


def test_links_within_readme_lead_somewhere() -> None:
    """As GitHub makes anchors of headings."""
    text = README.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) - anchors == set()
