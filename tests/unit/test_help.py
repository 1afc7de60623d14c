"""The help of the commands: it fits on a screen of 80 x 24, settings apart, and its examples are command lines that work."""

import shlex
from collections.abc import Sequence

import click
import pytest

from sidecar.cli.main import cli, run_command_line
from sidecar.cli.options import Command, SettingOption
from sidecar.settings.fields import Settings

COMMANDS = list(cli.commands)
WITH_SETTINGS = [name for name in COMMANDS if name != "demo"]
COLUMNS, LINES = 80, 24
ALL = set(Settings.model_fields)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Shown":
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("LINES", str(LINES))
    return Shown(capsys)


class Shown:
    """What a command line prints, in lines."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> list[str]:
        assert run_command_line(arguments) == 0
        printed = self._capsys.readouterr()
        assert not printed.err
        return printed.out.splitlines()


def examples_in(lines: Sequence[str]) -> list[str]:
    return [line.strip() for line in lines[lines.index("Examples:") + 1 :]]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_fits_on_a_screen_with_the_prompt_below_it(command: list[str], option: str, shown: Shown) -> None:
    lines = shown(*command, option)
    full = command == [
        "restore"
    ]  # one line for each of its options, and none to spare: the prompt moves the usage line out
    assert len(lines) < LINES + full
    assert max(len(line) for line in lines) <= COLUMNS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_the_commands_own_options_and_leaves_settings_apart(name: str, shown: Shown) -> None:
    lines = shown(name, "--help")
    options = [line.split()[0].rstrip(",") for line in lines if line.startswith("  -")]
    command = cli.commands[name]
    own = [
        each.opts[-1]
        for each in command.params
        if isinstance(each, click.Option) and not isinstance(each, SettingOption)
    ]
    assert options == [*own, "-h"]
    assert ("--help-settings" in own) is (name in WITH_SETTINGS)


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_ends_with_examples_that_the_command_line_takes(name: str | None, shown: Shown) -> None:
    """A line below "Examples" is the command with its words; none is run here."""
    found = examples_in(shown(*([name] if name else []), "--help"))
    assert found
    for example in found:
        program, command, *rest = shlex.split(example)
        assert program == "sidecar"
        assert name in {None, command}
        if command in cli.commands:
            cli.commands[command].make_context(command, rest)
        else:
            assert (command, rest) == ("COMMAND", ["--help"])


def test_help_of_run_explains_the_two_dashes(shown: Shown) -> None:
    lines = shown("run", "--help")
    assert lines[0] == "Usage: sidecar run [OPTIONS] [-- COMMAND [ARG]...]"
    text = " ".join(" ".join(lines).split())
    assert "`--` ends the options of sidecar: everything after it belongs to COMMAND" in text
    assert "Without COMMAND, sidecar protects databases that other containers write to" in text


def test_help_after_the_two_dashes_is_the_commands_own(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(cli.commands["run"], "callback", lambda **given: seen.append(given))
    assert shown("run", "--drain", "1s", "--", "server", "--help", "--help-settings") == []
    assert seen == [{"flags": {"drain": "1s"}, "command": ("server", "--help", "--help-settings")}]


def test_commands_are_listed_with_the_most_important_first(shown: Shown) -> None:
    lines = shown("--help")
    listed = lines[lines.index("Commands:") + 1 : lines.index("Examples:") - 1]
    assert [line.split()[0] for line in listed] == COMMANDS
    assert COMMANDS[0] == "run"
    assert not [line for line in listed if line.endswith("...")], "a summary is cut off"


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_every_setting_is_an_option_shown_by_help_settings(name: str, shown: Shown) -> None:
    lines = shown(name, "--help-settings")
    options = [line.split()[0] for line in lines if line.startswith("  --")]
    own = {each.name for each in cli.commands[name].params if not isinstance(each, SettingOption)}
    fields = {setting: field for setting, field in Settings.model_fields.items() if setting not in own}
    assert set(Settings.model_fields) - set(fields) <= {"stream"}, "`restore --stream` names a stream"
    expected = [f"--{setting.replace('_', '-')}" for setting in fields]
    assert options == [option.replace("--databases", "--database") for option in expected]
    assert max(len(line) for line in lines) <= COLUMNS
    text = " ".join(" ".join(lines).split())
    for field in fields.values():
        assert (field.description or "?") in text
    assert "[default: 5m]" in text


def test_every_command_has_examples() -> None:
    assert all(isinstance(each, Command) and each.examples for each in cli.commands.values())
