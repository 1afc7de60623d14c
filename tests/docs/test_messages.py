"""docs/troubleshooting.md is found by the words of a message: each of them must be one that the program says."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import TypeGuard

import pytest

from tests.docs import DOCS
from tests.harness.environment import ROOT

# Names and numbers are the example's. What stands between them, and between punctuation, is the program's.
_WORDS = re.compile(r"(?<![\w./-])[a-zA-Z][a-z']*(?: (?!UTC\b|[KMG]iB\b)[a-zA-Z][a-z']*(?![\w./-]))+")
_VALUES = re.compile(r"\b(?:UTC|[KMG]iB)\b")


@cache
def strings_of_the_program() -> str:
    """Every string of the package that is no docstring, the pieces of f-strings too, a line each."""
    found: list[str] = []
    for path in (ROOT / "sidecar").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        found += [" ".join(str(node.value).split()) for node in nodes if _is_text(node) and id(node) not in docstrings]
    return "\n".join(found)


def _is_text(node: ast.AST) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def messages() -> Iterator[tuple[str, str]]:
    """Each heading, with each message that its section quotes."""
    for section in (DOCS / "troubleshooting.md").read_text().split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        quoting = re.search(r"^- \*\*Message:\*\*(.+?)(?=^- \*\*)", body, re.MULTILINE | re.DOTALL)
        assert quoting, heading
        for quoted in re.findall(r"`([^`]+)`", quoting[1]):
            yield heading, " ".join(_VALUES.sub("…", quoted).split())


def phrases(message: str) -> list[str]:
    """The runs of two words or more in a message that are no example's."""
    return _WORDS.findall(message)


@pytest.mark.parametrize(("heading", "message"), list(messages()))
def test_a_message_in_the_docs_is_one_of_the_program(heading: str, message: str) -> None:
    assert [phrase for phrase in phrases(message) if phrase not in strings_of_the_program()] == [], heading
