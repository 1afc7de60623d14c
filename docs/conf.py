"""How Sphinx builds the site from these pages: `make docs`.

The pages are plain Markdown that GitHub shows as well. The navigation is the list of pages in `index.md`: a page that is
not linked there is a warning, and every warning fails the build, as a broken link or anchor does.
"""

import re

from sphinx.application import Sphinx

project = "sidecar"
extensions = ["myst_parser"]
nitpicky = True

myst_heading_anchors = 4  # links like `restore.md#restore-without-sidecar`, as on GitHub

html_theme = "furo"
html_title = "sidecar"
html_use_index = False
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}


def navigation(index: str) -> str:
    """The table of contents that `index.md` describes: a group for each of its headings, a page for each link below it."""
    groups = []
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        caption, _, body = section.partition("\n")
        pages = re.findall(r"\]\(([\w/-]+)\.md\)", body)
        groups.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]))
    return "\n\n".join(groups)


def _add_navigation(_: Sphinx, page: str, source: list[str]) -> None:
    if page == "index":
        source[0] += "\n" + navigation(source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_navigation)
