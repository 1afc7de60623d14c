"""Settings as options of commands, and help that fits on a screen: a command's own options first, settings apart."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sidecar.settings import Settings, format_value, kind_of

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
_INTRODUCTION = """\
Every setting is an option of each command, a variable (SIDECAR_INTERVAL for --interval), or a line in sidecar.toml
(interval = "5m"). An option overrides the variable, and the variable overrides the file."""


class Group(click.Group):
    """Commands in the order in which they were declared, then examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, the most important first."""
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands alone: the usage names both options, so that all commands fit on the screen."""
        self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        _write_examples(self.examples, formatter)


class Command(click.Command):
    """A command whose help ends with examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        # As the group has them. click keeps the help option that it makes first, whoever asks for it.
        attributes["context_settings"] = HELP_OPTIONS | (attributes.get("context_settings") or {})
        super().__init__(*args, **attributes)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. An option without its argument has no context in click, so its error gets ours."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        _write_examples(self.examples, formatter)


class SettingsCommand(Command):
    """A command that takes every setting as an option. Its function gets those that were given as `flags`.

    An option of its own takes precedence over the setting of that name: `restore --stream` names one.
    """

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        own = {each.name for each in self.params}
        settings = [each for each in _setting_options() if each.name not in own]
        self._settings = [each.name for each in settings if each.name]
        self.params += settings
        self.params.append(
            click.Option(
                ["--help-settings"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_print_settings,
                help="Show every setting as an option, and exit.",
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as they were given, in the context's `meta`: click drops the separator `--`."""
        ctx.meta["arguments"] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the function of the command."""
        given = {name: ctx.params.pop(name) for name in self._settings}
        ctx.params["flags"] = {name: value for name, value in given.items() if value not in {None, ()}}
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of this command alone."""
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        own = [each for each in options if not isinstance(each, SettingOption)]
        with formatter.section("Options"):
            formatter.write_dl([record for each in own if (record := each.get_help_record(ctx))])


class SettingOption(click.Option):
    """An option for one setting, named after it."""

    def __init__(self, name: str, field: FieldInfo) -> None:
        kind = kind_of(field)
        flag = "--database" if name == "databases" else f"--{name.replace('_', '-')}"
        repeatable = "; repeatable" if kind.repeatable else ""
        super().__init__(
            [flag, name],
            multiple=kind.repeatable,
            metavar=kind.metavar,
            help=f"{field.description}{repeatable}{_default(field)}",
        )


@cache
def _setting_options() -> Sequence[SettingOption]:
    """The same for every command: together they would take half a megabyte, for as long as a daemon runs."""
    return [SettingOption(name, field) for name, field in Settings.model_fields.items()]


def _default(field: FieldInfo) -> str:
    unset = field.default in {None, (), PydanticUndefined}
    return "" if unset else f"  [default: {format_value(field, field.default)}]"


def _print_settings(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        formatter = ctx.make_formatter()
        formatter.write_text(_INTRODUCTION)
        options = [each for each in ctx.command.get_params(ctx) if isinstance(each, SettingOption)]
        with formatter.section("Settings"):
            formatter.write_dl([record for each in options if (record := each.get_help_record(ctx))])
        click.echo(formatter.getvalue(), nl=False)
        ctx.exit()


def _write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
