"""The reader of docs/streaming.md, executed as it stands."""

from functools import cache
from typing import Any

from tests.docs import DOCS
from tests.docs.markdown import Page


@cache
def documented_reader() -> dict[str, Any]:
    """The names that it defines: `segment`, `whole` and `apply`."""
    (fence,) = [each for each in Page(DOCS / "streaming.md").fences if each.language == "python"]
    reader: dict[str, Any] = {}
    exec(fence.text, reader)  # noqa: S102 - our own documentation
    return reader
