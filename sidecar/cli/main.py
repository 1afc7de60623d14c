"""The command line, and the only place that maps errors to exit codes.

One file, so that all commands and their help can be read in one place.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar import __version__
from sidecar.cli.options import HELP_OPTIONS, Command, Group, SettingsCommand
from sidecar.errors import ExitCode, SidecarError, UsageError

if TYPE_CHECKING:
    from sidecar.settings.configuration import Configuration

# Hints for errors that bring none, because they come from code that does not know which command runs.
_HINT = "`sidecar check` shows every setting and tries the store"
_HINTS = {
    ExitCode.DAMAGED: "`sidecar verify --all` shows which restore points are good",
    ExitCode.TRY_AGAIN: "try again; if the error persists, `sidecar check` helps to find the cause",
}


def run_command_line(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. An expected failure is one line on stderr, without a traceback."""
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


@click.group(
    cls=Group,
    context_settings=HELP_OPTIONS,
    options_metavar="[--version] [-h | --help]",
    examples=[
        "sidecar run --database app.db --store s3://my-bucket/app -- python -m myapp",
    ],
)
@click.version_option(__version__, prog_name="sidecar")
def cli() -> None:
    """Restore SQLite databases, back them up while the app runs and at its end."""


@cli.command(
    cls=SettingsCommand,
    context_settings={"allow_interspersed_args": False},
    examples=[
        "sidecar run --database app.db --store s3://my-bucket/app -- python -m myapp",
        "sidecar run --interval 1m -- sh -c 'migrate && exec server'",
        "sidecar run",
    ],
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG]...]")
def run(flags: Mapping[str, object], command: tuple[str, ...]) -> int:
    """Restore databases, start COMMAND, and back up while it runs.

    A final restore point is published when COMMAND has exited, or has been stopped after SIGTERM. The exit status is
    that of COMMAND.

    `--` ends the options of sidecar: everything after it belongs to COMMAND, which is started without a shell. Without
    COMMAND, sidecar protects databases that other containers write to.
    """
    from sidecar.settings.environment import is_passthrough

    if is_passthrough():
        return _become(command)
    from sidecar.host.stderr import queue_stderr

    queue_stderr()
    configuration = _configured(flags)
    if not command:
        from sidecar.cli.run import ends_with_separator, log_no_command

        log_no_command(announced=ends_with_separator(click.get_current_context().meta["arguments"]))
    import anyio

    from sidecar.daemon import run as daemon

    return anyio.run(daemon.run, configuration, command)


@cli.command(
    cls=SettingsCommand,
    examples=["sidecar backup", "sidecar backup --database app.db --store s3://my-bucket/app"],
)
def backup(flags: Mapping[str, object]) -> int:
    """Publish a restore point now.

    The daemon makes the backup if one runs on this machine. Otherwise this command does, and holds the lease meanwhile.
    """
    from sidecar.cli.backup import backup

    return _command(flags, backup)


@cli.command(
    cls=SettingsCommand,
    examples=[
        "sidecar restore --at 2026-11-29T12:00:00Z --table orders --into live",
    ],
)
@click.option("--at", metavar="TIME", help="Restore the state at TIME (ISO 8601, UTC).")
@click.option("--key", metavar="KEY", help="Restore the point with this key, from `sidecar list`.")
@click.option("--stream", metavar="NAME", help="Restore the end of a stream from `sidecar list --streams`.")
@click.option("--output", metavar="PATH", help="Write the database to PATH instead of its own path.")
@click.option("--force", is_flag=True, help="Replace an existing database; it is kept.")
@click.option("--table", "tables", multiple=True, metavar="NAME", help="Restore only this table; repeatable.")
@click.option("--into", metavar="live", help="Bring the tables back into the live database.")
@click.option("--rows", metavar="WHICH", help="missing (default: overwrite nothing), changed or exact.")
@click.option("--as", "name", metavar="NAME", help="Into a new table of this name.")
@click.option("--triggers", is_flag=True, help="Let the triggers of the tables fire.")
@click.option("--orphans", is_flag=True, help="Allow rows whose parents are missing.")
@click.option("--long", is_flag=True, help="Let programs wait for more than 2 seconds.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--undo", is_flag=True, help="Undo the last --into live, within the hour.")
def restore(
    flags: Mapping[str, object],
    at: str | None,
    key: str | None,
    stream: str | None,
    output: str | None,
    force: bool,
    **asked: Any,
) -> int:
    """Restore the newest state, or an older one; or some tables of it."""
    if any(asked.values()):
        from sidecar.cli.restore_tables import Wanted, restore_tables

        wanted = Wanted(at=at, key=key, **asked)
        wanted.require_sound(stream=stream, output=output, force=force)
        return _command(flags, restore_tables, wanted=wanted, output=output, force=force)
    from sidecar.cli.restore import restore

    return _command(flags, restore, at=at, key=key, stream=stream, output=output, force=force)


@cli.command("list", cls=SettingsCommand, examples=["sidecar list", "sidecar list --diverged", "sidecar list --json"])
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--diverged", is_flag=True, help="List the states that lost a conflict instead.")
@click.option("--streams", is_flag=True, help="List the streams instead.")
def list_points(flags: Mapping[str, object], as_json: bool, diverged: bool, streams: bool) -> int:
    """List restore points, oldest first.

    The exit code is 66 if the store has no restore point of a database that is named with --database.
    """
    from sidecar.cli.list import list_points, list_streams

    if streams and diverged:
        raise UsageError("--streams and --diverged exclude each other", "give one of them")
    return _command(flags, list_streams if streams else partial(list_points, diverged=diverged), as_json=as_json)


@cli.command(cls=SettingsCommand, examples=["sidecar verify", "sidecar verify --all"])
@click.option("--all", "every", is_flag=True, help="Verify every restore point, not only the newest.")
def verify(flags: Mapping[str, object], every: bool) -> int:
    """Prove that restore points can be restored.

    Each one is restored to a scratch directory, every digest is compared, and SQLite checks the database. The exit code
    is 65 if one is damaged, 78 if one has a newer format.
    """
    from sidecar.cli.verify import verify

    return _command(flags, verify, every=every)


@cli.command(cls=SettingsCommand, examples=["sidecar status", "sidecar status --json"])
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(flags: Mapping[str, object], as_json: bool) -> int:
    """Show what is protected, and how well.

    The answer is the daemon's if one runs on this machine, otherwise what the store shows. The exit code is 0 whenever
    there is an answer, even a bad one. If the store does not answer within seconds, it is 75, after what this machine
    knows.
    """
    from sidecar.cli.status import status

    return _command(flags, status, as_json=as_json)


@cli.command(
    cls=SettingsCommand,
    examples=["sidecar ack", "sidecar ack first_start", "sidecar ack --all --note 'moved to the new bucket'"],
)
@click.argument("kind", required=False, metavar="[KIND]")
@click.option("--all", "every", is_flag=True, help="Acknowledge all open incidents.")
@click.option("--note", default="", metavar="TEXT", help="A note, which is kept in the store.")
def ack(flags: Mapping[str, object], kind: str | None, every: bool, note: str) -> int:
    """List what needs a decision, or acknowledge it.

    Without KIND and --all, the open incidents are listed, with the command that acknowledges each. An acknowledged
    incident is taken off the status page within a minute, on every machine. The command writes to the store and needs
    no lease.
    """
    from sidecar.cli.ack import ack

    return _command(flags, ack, kind=kind, every=every, note=note)


@cli.command(cls=SettingsCommand, examples=["sidecar wait", "sidecar wait --timeout 30s"])
@click.option(
    "--timeout",
    default="5s",
    show_default=True,
    metavar="DURATION",
    help="How long to wait, from 10ms to 10m.",
)
def wait(flags: Mapping[str, object], timeout: str) -> int:
    """Return once everything that was committed before is in the store.

    The daemon on this machine streams the commits, and says when a segment has them; it answers at most about one
    `stream_interval` later. Exit code 75 says that this is not known: nothing is streamed now, the store does not answer, or
    the timeout is over. What was committed stays in the database all the same.
    """
    from sidecar.cli.wait import wait

    return _command(flags, wait, timeout=timeout)


@cli.command(
    cls=SettingsCommand,
    examples=["sidecar prune --dry-run", "sidecar prune --database app.db --store s3://my-bucket/app"],
)
@click.option("--dry-run", is_flag=True, help="Show what would be deleted, and delete nothing.")
def prune(flags: Mapping[str, object], dry_run: bool) -> int:
    """Delete restore points and segments that have expired.

    For a store whose lifecycle rules do not do it, with a key of its own that may list, read and delete. The newest restore
    point, held ones and what the newest one's history needs always stay. Safe beside a running daemon. The database need not
    exist on this machine: its name is enough.
    """
    from sidecar.cli.prune import prune

    return _command(flags, prune, dry_run=dry_run)


@cli.command(cls=SettingsCommand, examples=["sidecar diff newest~1 --table orders"])
@click.argument("states", nargs=-1, metavar="[A [B]]")
@click.option("--table", "tables", multiple=True, metavar="NAME", help="Compare only this table; repeatable.")
@click.option("--only", multiple=True, metavar="KINDS", help="Only added, removed or changed rows.")
@click.option("--ignore", "ignored", multiple=True, metavar="COLUMNS", help="Leave out these columns.")
@click.option("--key", "keys", multiple=True, metavar="TABLE=COLUMNS", help="Match rows by these columns.")
@click.option("--skip-damaged", is_flag=True, help="Compare the tables that can be read.")
@click.option("--summary", is_flag=True, help="Show no rows.")
@click.option("--limit", type=int, metavar="N", help="At most N rows a table, 0 for all kept.")
@click.option("--all", "everything", is_flag=True, help="Keep and show all rows, with long values whole.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL that makes B of A.")
@click.option("--html", "page", metavar="FILE", help="Write an HTML page without scripts.")
@click.option("--color", "colour", default="auto", metavar="WHEN", help="auto, always or never.")
def diff(
    flags: Mapping[str, object], states: tuple[str, ...], page: str | None, as_json: bool, as_sql: bool, **asked: Any
) -> int:
    """Show what differs between two states of a database.
    A, B: key, time, age, newest, newest~3, live, path. Exit code 1: different.
    """
    from sidecar.cli.diff.command import Asked, are_files, diff, diff_files

    if len(states) > 2:
        raise UsageError("at most two states are compared", "see `sidecar diff --help`")
    if as_json and as_sql:
        raise UsageError("--json and --sql exclude each other", "give one of them")
    form = "json" if as_json else "sql" if as_sql else "text"
    options = Asked(form=form, page=Path(page) if page else None, **asked)
    if not are_files(states):
        return _command(flags, diff, states=states, asked=options)
    from sidecar.monitoring.logs import configure

    configure("auto", "info")
    return _run(partial(diff_files, states=states, asked=options))


@cli.command("log", cls=SettingsCommand, examples=["sidecar log", "sidecar log --table orders --row 18842"])
@click.option("--table", metavar="NAME", help="Only where this table changed.")
@click.option("--row", metavar="KEY", help="The versions of the row with this primary key.")
@click.option(
    "--limit", type=int, metavar="N", help="The newest N restore points, 0 for all.  [default: 20, or all with --row]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def log_changes(flags: Mapping[str, object], **asked: Any) -> int:
    """Show what changed between restore points, and when.

    Newest first. With --table and --row: the versions of one row, and between which states each arose. A key of several columns is
    written 5,abc or as a JSON array.
    """
    from sidecar.cli.log import Asked, log

    return _command(flags, log, asked=Asked(**asked))


@cli.command(cls=SettingsCommand, examples=["sidecar browse", "sidecar browse --port 8000 --idle 4h"])
@click.option("--port", type=int, default=0, metavar="N", help="The port on 127.0.0.1.  [default: a free one]")
@click.option("--idle", default="1h", show_default=True, metavar="DURATION", help="End after this long without use.")
@click.option("--allow-restore", is_flag=True, help="Let the page bring rows back into the live database.")
def browse(flags: Mapping[str, object], port: int, idle: str, allow_restore: bool) -> int:
    """Show in a browser what changed, and when.

    The page has the timeline of restore points, any two states side by side, and the history of a row. It is only for the
    browser on this machine in which the link is opened first, and read-only without --allow-restore.
    """
    from sidecar.cli.browse import browse

    return _command(flags, browse, port=port, idle=idle, allow_restore=allow_restore)


@cli.command(
    cls=SettingsCommand,
    examples=["sidecar export --table orders", "sidecar export 2h --format sql -o old.sql"],
)
@click.argument("state", required=False, metavar="[A]")
@click.option("--table", "tables", multiple=True, metavar="NAME", help="Export only this table; repeatable.")
@click.option("--format", "form", default="ndjson", show_default=True, metavar="NAME", help="ndjson, csv or sql.")
@click.option("--output", "-o", metavar="PATH", help="Write to a file, or to a file for each table in a directory.")
@click.option("--force", is_flag=True, help="Replace existing files.")
def export(
    flags: Mapping[str, object],
    state: str | None,
    tables: tuple[str, ...],
    form: str,
    output: str | None,
    force: bool,
) -> int:
    """Write the rows of a state as NDJSON, CSV or SQL.

    A is a key, a time, 2h, newest, newest~3, live or a path; by default the live database. Of a restore point only what the tables
    need is fetched.
    """
    from sidecar.cli.export import Wanted, export, export_file, is_file

    wanted = Wanted(tables, form, Path(output) if output else None, force)
    if state is None or not is_file(state):
        return _command(flags, export, state=state, wanted=wanted)
    from sidecar.monitoring.logs import configure

    configure("auto", "info")
    return _run(partial(export_file, Path(state), wanted=wanted))


@cli.command(
    cls=SettingsCommand,
    examples=["sidecar check", "sidecar check --fly-toml deploy/fly.toml", "sidecar check --qualify"],
)
@click.option(
    "--fly-toml",
    metavar="PATH",
    help="Compare the time that a shutdown needs with kill_timeout in this file.  [default: ./fly.toml]",
)
@click.option(
    "--qualify",
    is_flag=True,
    help="Try all that differs between stores too, with uploads of 10 MiB, and show the cost.",
)
def check(flags: Mapping[str, object], fly_toml: str | None, qualify: bool) -> int:
    """Show every setting and its source, and try what a daemon needs.

    Tries the credentials, the store, the port and the databases, and says what the next boot would do. The exit code is
    that of the first failure.
    """
    from sidecar.cli.check.command import check

    return _command(flags, check, fly_toml=fly_toml, qualifies=qualify)


@cli.command(cls=Command, examples=["sidecar demo"])
def demo() -> int:
    """Show the main job: write, lose the machine, boot, find every row."""
    try:
        from sidecar.demo.tour import tour
    except ModuleNotFoundError as error:
        if error.name != "sidecar.demo":
            raise
        raise UsageError("the demo is not in this bundle", "it comes with `pip install sqlite-sidecar`") from error
    return tour()


def _become(command: tuple[str, ...]) -> int:
    """Replace this process with the command of a release or a test machine, and touch nothing else."""
    if not command:
        return ExitCode.OK
    from sidecar.host.process import become

    become(command)
    return ExitCode.BUG


def _configured(flags: Mapping[str, object]) -> "Configuration":
    from sidecar.settings.load import load

    configuration = load(flags)
    from sidecar.monitoring.logs import configure

    configure(configuration.settings.log_format, configuration.settings.log_level)
    return configuration


def _command(flags: Mapping[str, object], chosen: Callable[..., Awaitable[int]], **options: object) -> int:
    """Run one of the one-shot commands."""
    configuration = _configured(flags)
    return _run(partial(chosen, configuration, **options))


def _run(command: Callable[[], Awaitable[int]]) -> int:
    """Run a command in an event loop; a signal cancels it cleanly."""
    import anyio

    from sidecar.cli.output import stop_printing
    from sidecar.cli.session import interruptible

    try:
        return anyio.run(interruptible, command)
    except BrokenPipeError:  # `sidecar list | head`
        stop_printing()
        return ExitCode.OK
