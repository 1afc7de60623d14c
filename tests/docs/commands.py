"""The command lines of the documentation, and whether the real command line would take them."""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click

from sidecar.cli.main import cli
from sidecar.settings.fields import Settings
from sidecar.settings.load import load
from tests.docs.markdown import Fence, Page

SHELL = {"sh", "bash", "shell", "console", ""}
PROGRAMS = {"sidecar", "/opt/sidecar/sidecar"}


class CommandLine(NamedTuple):
    """The words of a simple command, and where it stands (`restore.md:12`)."""

    words: Sequence[str]
    where: str


def command_lines(page: Page) -> Iterator[CommandLine]:
    """Every command of a page's shell fences, without its assignments; pipelines and lists are taken apart."""
    for fence in page.fences:
        if fence.language in SHELL:
            yield from _simple_commands(fence)


def sidecar_arguments(page: Page) -> Iterator[CommandLine]:
    """What a page gives to sidecar: in the shell, in other commands' arguments, in a Dockerfile, in the examples of a help."""
    for line in command_lines(page):
        yield from (CommandLine(words, line.where) for words in _arguments(line.words))
    for fence in page.fences:
        if fence.language == "dockerfile":
            yield from _entrypoints(fence)
        if fence.text.startswith("Usage: "):
            _, _, examples = fence.text.partition("\nExamples:\n")
            yield from (CommandLine(shlex.split(line)[1:], fence.where) for line in examples.splitlines())


def mentioned_commands(page: Page) -> Iterator[CommandLine]:
    """The code spans of a page that begin with `sidecar`; they need not be complete."""
    for span in page.spans:
        if span.text.startswith("sidecar "):
            yield CommandLine(shlex.split(span.text)[1:], span.where)


def parse(arguments: Sequence[str]) -> click.Context:
    """What the command line understands, without running it. Raises `click.UsageError`, or `SidecarError` for a setting."""
    name, command, rest = cli.resolve_command(
        click.Context(cli, info_name="sidecar", **cli.context_settings), list(arguments)
    )
    assert command is not None
    context = command.make_context(name, rest)
    given = {each: context.params[each] for each in Settings.model_fields if context.params.get(each)}
    load({"databases": ("app.db",), **given}, {})
    return context


def unknown_options(arguments: Sequence[str]) -> set[str]:
    """The options of an incomplete command line that its command does not have. Raises `click.UsageError`."""
    if arguments[0].startswith("-"):  # of the program itself
        return {arguments[0]} - {option for each in cli.params for option in each.opts} - {"--help"}
    _, command, rest = cli.resolve_command(
        click.Context(cli, info_name="sidecar", **cli.context_settings), list(arguments)
    )
    assert command is not None
    known = {option for each in command.params for option in each.opts} | {"--help"}
    own = rest[: rest.index("--")] if "--" in rest else rest
    return {word.partition("=")[0] for word in own if word.startswith("--")} - known


def _simple_commands(fence: Fence) -> Iterator[CommandLine]:
    text = fence.text.replace("\\\n", " ")
    for line in text.splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("();|&"):
                words.append(word)
            elif words:
                yield CommandLine(_without_assignments(words), fence.where)
                words = []


def _without_assignments(words: Sequence[str]) -> list[str]:
    first = next((index for index, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), len(words))
    return list(words[first:])


def _arguments(words: Sequence[str]) -> Iterator[Sequence[str]]:
    if words and words[0] in PROGRAMS:
        yield words[1:]
    elif words[:2] == ["docker", "run"] and "--entrypoint" in words:
        assert words[words.index("--entrypoint") + 1] in PROGRAMS
        yield words[words.index("IMAGE") + 1 :]
    else:  # `fly ssh console -C "sidecar check"`
        yield from (shlex.split(word)[1:] for word in words if word.startswith("sidecar "))


def _entrypoints(fence: Fence) -> Iterator[CommandLine]:
    parts = {
        name: json.loads(words) for name, words in re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", fence.text, re.MULTILINE)
    }
    if "ENTRYPOINT" in parts:
        program, *arguments = parts["ENTRYPOINT"]
        assert program in PROGRAMS, fence.where
        yield CommandLine([*arguments, *parts.get("CMD", [])], fence.where)
