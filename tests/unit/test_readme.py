"""README's tables are those of the code."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.domain import Database
from sidecar.status import Kind, Status
from sidecar.status_json import as_json
from tests.readme import README, generated


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
    section = README.read_text().partition("### JSON of")[2].partition("\n### ")[0]
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", section))))
    assert set(_fields(as_json(status))) - named == set()


def _fields(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _fields(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            if name not in {
                "backups",
                "drills",
                "renewals",
                "seconds",
                "stored_bytes",
                "notifications",
            }:  # by outcome or name
                yield from _fields(each)


def test_links_within_readme_lead_somewhere() -> None:
    """As GitHub makes anchors of headings."""
    text = README.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) - anchors == set()
