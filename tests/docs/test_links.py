"""Links between pages lead somewhere, and every page can be found. `make docs` holds the site to the same."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs import DOCS, EVERY_PAGE, PAGES
from tests.docs.markdown import Page
from tests.harness.environment import ROOT


@pytest.mark.parametrize("path", EVERY_PAGE, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    """To a file of the repository, and where it has an anchor, to a heading."""
    assert [link for link in Page(path).links if not _leads_somewhere(path, link.text)] == []


def test_every_page_is_in_the_index() -> None:
    """Below one of its headings: the site's navigation is made of them."""
    _, _, below = (DOCS / "index.md").read_text().partition("\n## ")
    listed = {DOCS / target for target in re.findall(r"\]\(([\w/-]+\.md)\)", below)}
    assert set(PAGES) - listed == {DOCS / "index.md"}


def _leads_somewhere(path: Path, target: str) -> bool:
    parts = urlsplit(target)
    if parts.scheme:
        return parts.scheme in {"http", "https", "mailto"}
    if workflow := re.fullmatch(
        r"\.\./\.\./actions/workflows/([\w.]+)(/badge\.svg)?", target
    ):  # beside GitHub's /blob/main
        return (ROOT / ".github" / "workflows" / workflow[1]).is_file()
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if parts.fragment:
        return file.suffix == ".md" and file.is_file() and parts.fragment in Page(file).anchors
    return file.exists()
