"""The command line, and the only place that maps errors to exit codes."""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import click

from sidecar import __version__
from sidecar.errors import ExitCode, SidecarError, UsageError
from sidecar.settings.configuration import Configuration
from sidecar.settings.environment import is_passthrough
from sidecar.settings.fields import Settings
from sidecar.settings.kinds import kind_of

Command = Callable[..., Any]

# What to do next, for errors from so deep that they do not know who asked.
_HINT = "`sidecar check` shows every setting and tries the store"
_HINTS = {
    ExitCode.DAMAGED: "`sidecar verify --all` shows which restore points are good",
    ExitCode.TRY_AGAIN: "try again; if it stays like this, `sidecar check` helps to find out why",
}


def run_command_line(arguments: Sequence[str] | None = None) -> int:
    """Run it and return the exit code. Every expected failure is one line on stderr, without a traceback."""
    try:
        return int(cli.main(args=arguments, prog_name="sidecar", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        return _fail(
            error.format_message(), f"see `{context.command_path if context else 'sidecar'} --help`", ExitCode.USAGE
        )
    except SidecarError as error:
        return _fail(error.message, error.hint or _HINTS.get(error.exit_code, _HINT), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except Exception as error:  # noqa: BLE001 - the outermost boundary: a bug has an exit code too
        import traceback

        traceback.print_exc()
        return _fail(f"bug: {error!r}", "please report this with the lines above", ExitCode.BUG)


def _fail(message: str, hint: str, code: int) -> int:
    from sidecar.cli.output import complain

    complain(f"{message} ({hint})")
    return code


def _with_settings(command: Command) -> Command:
    """Give a command every setting as an option, collected in its argument `flags`."""

    def wrapper(**given: Any) -> Any:
        flags = {name: given.pop(name) for name in Settings.model_fields}
        return command(flags={name: value for name, value in flags.items() if value not in {None, ()}}, **given)

    wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
    wrapper.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Command = wrapper
    for name, field in reversed(Settings.model_fields.items()):
        option = "--database" if name == "databases" else f"--{name.replace('_', '-')}"
        decorated = click.option(
            option,
            name,
            multiple=kind_of(field).repeatable,
            help=f"{field.description}{'; repeatable' if kind_of(field).repeatable else ''}",
            metavar=kind_of(field).metavar,
        )(decorated)
    return decorated


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=False)
@click.version_option(__version__, prog_name="sidecar")
def cli() -> None:
    """Restore SQLite before the app starts, back it up while it runs, once more when it stops."""


@cli.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@_with_settings
def run(flags: Mapping[str, object], command: tuple[str, ...]) -> int:
    """Restore, start COMMAND, back up while it runs and once more when it has stopped."""
    if is_passthrough():
        return _become(command)
    configuration = _configured(flags)
    from sidecar.daemon import run as daemon

    return anyio.run(daemon.run, configuration, command)


@cli.command()
@_with_settings
def backup(flags: Mapping[str, object]) -> int:
    """Publish a restore point now: through this machine's daemon if one runs, else by itself."""
    from sidecar.cli.backup import backup

    return _command(flags, backup)


@cli.command()
@click.option("--at", metavar="TIME", help="the newest restore point at or before this time (ISO 8601, UTC)")
@click.option("--key", help="this restore point, by its key from `sidecar list`")
@click.option("--output", metavar="PATH", help="write the database there, instead of to its own path")
@click.option("--force", is_flag=True, help="replace an existing database, which is kept beside it")
@_with_settings
def restore(flags: Mapping[str, object], at: str | None, key: str | None, output: str | None, force: bool) -> int:
    """Restore the newest restore point, or the one that is asked for."""
    from sidecar.cli.restore import restore

    return _command(flags, restore, at=at, key=key, output=output, force=force)


@cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="machine-readable")
@click.option("--diverged", is_flag=True, help="states that lost a conflict instead")
@_with_settings
def list_points(flags: Mapping[str, object], as_json: bool, diverged: bool) -> int:
    """List restore points, oldest first."""
    from sidecar.cli.list import list_points

    return _command(flags, list_points, as_json=as_json, diverged=diverged)


@cli.command()
@click.option("--all", "every", is_flag=True, help="every restore point, not only the newest")
@_with_settings
def verify(flags: Mapping[str, object], every: bool) -> int:
    """Prove restore points: restore to a scratch directory, check every digest, run SQLite's integrity check."""
    from sidecar.cli.verify import verify

    return _command(flags, verify, every=every)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="machine-readable")
@_with_settings
def status(flags: Mapping[str, object], as_json: bool) -> int:
    """Show what is protected: as the daemon of this machine says, else as the store does."""
    from sidecar.cli.status import status

    return _command(flags, status, as_json=as_json)


@cli.command()
@click.option(
    "--fly-toml", metavar="PATH", help="compare the shutdown's time with its kill_timeout  [default: ./fly.toml]"
)
@_with_settings
def check(flags: Mapping[str, object], fly_toml: str | None) -> int:
    """Show every effective setting and where it comes from, and try what a daemon would need."""
    from sidecar.cli.check.command import check

    return _command(flags, check, fly_toml=fly_toml)


@cli.command()
def demo() -> int:
    """See the main job done: write, lose the machine, boot again, every row is back."""
    try:
        from sidecar.demo.tour import tour
    except ModuleNotFoundError as error:
        if error.name != "sidecar.demo":
            raise
        raise UsageError("the demo is not in this bundle", "it comes with `pip install sqlite-sidecar`") from error
    return tour()


def _become(command: tuple[str, ...]) -> int:
    """A release command or a test machine: be the command, and touch nothing else."""
    if not command:
        return ExitCode.OK
    from sidecar.host.process import become

    become(command)
    return ExitCode.BUG


def _configured(flags: Mapping[str, object]) -> Configuration:
    from sidecar.settings.load import load

    configuration = load(flags)
    from sidecar.monitoring.logs import configure

    configure(configuration.settings.log_format, configuration.settings.log_level)
    return configuration


def _command(flags: Mapping[str, object], chosen: Callable[..., Awaitable[int]], **options: object) -> int:
    """Run one of the one-shot commands; a signal cancels it cleanly."""
    configuration = _configured(flags)
    from sidecar.cli.session import interruptible

    try:
        return anyio.run(interruptible, lambda: chosen(configuration, **options))
    except BrokenPipeError:  # `sidecar list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
