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


# Flags exist on the command line alone. These files are part of it, or write whole commands.
_COMMAND_LINE = ("cli/", "demo/", "settings/load.py", "bootstrap.py", "monitoring/listing.py")
_COMMAND = re.compile(r"sidecar [a-z]+(?: [^\s`;,)]+)*|`[a-z]+ [^`]*`")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def bare_flags(source: str) -> list[str]:
    """Strings that name a flag outside a whole command such as `sidecar verify --all`; an f-string is one string."""
    nodes = list(ast.walk(ast.parse(source)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    pieces = {id(each) for node in nodes if isinstance(node, ast.JoinedStr) for each in node.values}
    texts = [ast.unparse(node) for node in nodes if isinstance(node, ast.JoinedStr)]
    texts += [str(node.value) for node in nodes if _is_text(node) and id(node) not in docstrings | pieces]
    return [text for text in texts if " " in text and _FLAG.search(_COMMAND.sub("", text))]


def test_errors_of_the_library_name_no_flags() -> None:
    """A program that embeds sidecar sees the same messages: they name settings and arguments, or whole commands."""
    package = ROOT / "sidecar"
    files = [each for each in package.rglob("*.py") if not str(each.relative_to(package)).startswith(_COMMAND_LINE)]
    assert {str(each): flags for each in files if (flags := bare_flags(each.read_text()))} == {}
    assert bare_flags('hint = f"{path} exists: --force replaces it"')
    assert not bare_flags('hint = f"run `sidecar restore --key {key}` first"')
