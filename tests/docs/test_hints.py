"""The pages that the program names in its hints, and those that the alerts name."""

import re
import tomllib
from pathlib import Path

import pytest

import sidecar
from sidecar.status import documentation
from tests.docs import DOCS
from tests.docs.blocks import ALERTS
from tests.docs.markdown import Page
from tests.harness.environment import ROOT

URLS = {name: url for name, url in vars(documentation).items() if name.isupper() and name != "BASE"}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_the_page_and_its_heading_exist(url: str) -> None:
    page, separator, heading = url.removeprefix(f"{documentation.BASE}/").partition("/#")
    assert separator
    assert heading in Page(DOCS / f"{page}.md").anchors


def test_the_program_names_no_page_in_another_way() -> None:
    """Neither by file, which a user does not have, nor by an address of its own."""
    package = Path(sidecar.__file__).parent
    sources = {path: path.read_text() for path in package.rglob("*.py") if path.name != "documentation.py"}
    strings = {
        path: re.sub(r'^ *(""".*?"""|#.*)$', "", text, flags=re.MULTILINE | re.DOTALL) for path, text in sources.items()
    }
    assert [path.name for path, text in strings.items() if re.search(r"\bREADME\b|docs/\w+\.md", text)] == []
    assert [path.name for path, text in sources.items() if documentation.BASE in text] == []


def test_the_package_names_the_same_site() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Documentation"] == f"{documentation.BASE}/"


def test_the_pages_in_the_alerts_exist() -> None:
    named = re.findall(r"docs/([\w/-]+\.md)", ALERTS.read_text())
    assert named
    assert [page for page in named if not (DOCS / page).is_file()] == []
