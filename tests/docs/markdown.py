"""What a page of the documentation consists of: headings, links, fences and code spans."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.harness.environment import ROOT


class Piece(NamedTuple):
    """A link's target, a code span or a fence's content, and where it stands (`restore.md:12`)."""

    text: str
    where: str


class Fence(NamedTuple):
    """A block of code, with its language; an indented block has none."""

    language: str
    text: str
    where: str


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    def __str__(self) -> str:
        """Its path in the repository."""
        return str(self.path.relative_to(ROOT))

    @cached_property
    def _tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.path.read_text())

    @cached_property
    def anchors(self) -> set[str]:
        """The anchors of the headings, as GitHub and the site make them."""
        found: set[str] = set()
        for token, inline in zip(self._tokens, self._tokens[1:], strict=False):
            if token.type == "heading_open":
                slug = _slug("".join(child.content for child in inline.children or ()))
                found.add(next(each for each in _numbered(slug) if each not in found))
        return found

    @cached_property
    def links(self) -> list[Piece]:
        """The targets of links and images."""
        return [
            Piece(str(child.attrs.get("href") or child.attrs.get("src")), where)
            for child, where in self._inline()
            if child.type in {"link_open", "image"}
        ]

    @cached_property
    def spans(self) -> list[Piece]:
        """The code spans of the text."""
        return [Piece(child.content, where) for child, where in self._inline() if child.type == "code_inline"]

    @cached_property
    def fences(self) -> list[Fence]:
        """The blocks of code."""
        return [
            Fence(token.info.partition(" ")[0], token.content, self._where(token))
            for token in self._tokens
            if token.type in {"fence", "code_block"}
        ]

    def section(self, heading: str) -> str:
        """The Markdown below a heading, down to the next one of its level. Raises `ValueError` if there is none."""
        text = self.path.read_text()
        found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
        if not found:
            raise ValueError(f"{self}: no heading {heading!r}")
        return re.split(rf"^#{{1,{len(found[1])}}} ", text[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]

    def _inline(self) -> Iterator[tuple[Token, str]]:
        for token in self._tokens:
            yield from ((child, self._where(token)) for child in token.children or ())

    def _where(self, token: Token) -> str:
        return f"{self}:{token.map[0] + 1}" if token.map else str(self)


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _numbered(slug: str) -> Iterator[str]:
    yield slug
    number = 1
    while True:
        yield f"{slug}-{number}"
        number += 1
