"""The documentation: README.md and docs/. `python -m tests.docs` writes the generated parts, tests hold all of it to the code.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is around it is written by hand.
"""

import re
from collections.abc import Iterator

from tests.docs.blocks import BLOCKS
from tests.harness.environment import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted(DOCS.rglob("*.md"))
EVERY_PAGE = [README, *PAGES]

_BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rewritten(page: str) -> str:
    """A page with its generated parts as they should be. Raises `KeyError` for a part that nothing generates."""
    return _BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", page)


def generated_parts() -> Iterator[str]:
    """The names of the generated parts of all pages."""
    for page in PAGES:
        yield from (name for _, name, _ in _BLOCK.findall(page.read_text()))
