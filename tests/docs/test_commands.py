"""Every command line of the documentation is one that the program takes; tests/e2e/test_documented_commands.py runs them."""

from pathlib import Path

import click
import pytest

from sidecar.cli.main import cli
from sidecar.errors import ExitCode, SidecarError
from tests.docs import DOCS, EVERY_PAGE
from tests.docs.commands import mentioned_commands, parse, sidecar_arguments, unknown_options
from tests.docs.markdown import Page


@pytest.mark.parametrize("path", EVERY_PAGE, ids=lambda path: path.name)
def test_every_sidecar_command_line_is_understood(path: Path) -> None:
    """Commands, options, and values of settings; nothing is run."""
    wrong = {}
    for line in sidecar_arguments(Page(path)):
        try:
            parse(line.words)
        except (click.UsageError, SidecarError) as error:
            wrong[line.where] = str(error)
    assert wrong == {}


@pytest.mark.parametrize("path", EVERY_PAGE, ids=lambda path: path.name)
def test_every_command_in_the_text_exists_with_its_options(path: Path) -> None:
    wrong = {}
    for line in mentioned_commands(Page(path)):
        try:
            unknown = unknown_options(line.words)
        except click.UsageError as error:
            unknown = {str(error)}
        if unknown:
            wrong[line.where] = unknown
    assert wrong == {}


def test_the_commands_and_exit_codes_of_the_reference_are_those_of_the_program() -> None:
    page = Page(DOCS / "commands.md")
    commands = {line.words[0] for line in mentioned_commands(page)}
    assert commands == set(cli.commands)
    codes = [row.split("|")[1].strip() for row in page.section("Exit codes").splitlines() if row.startswith("| ")]
    assert codes[0] == "code"
    assert [int(code) for code in codes[1:]] == sorted(ExitCode)
