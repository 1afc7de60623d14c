"""A tour in six steps with the real command line: write rows, lose the machine, boot again, and find every row."""

import contextlib
import http.client
import json
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import zstandard

from sidecar.demo.machine import DATABASE, Machine, TourFailed, Workshop, ask, boot, end_strays, format_command

_ROWS = 200
_LATE_ROWS = 50
_PAGE = 1000
_LINES_OF_LOG = 20
_COUNT = "SELECT count(*) FROM entries"
_TIMESTAMP = re.compile(r"\d{8}T\d{6}\.\d{3}Z")
_USAGE_STATUS = 64
_INTERRUPTIONS = (signal.SIGTERM, signal.SIGHUP)

Row = dict[str, Any]  # an entry as the API returns it: id, name, message, written_at


class _Story:
    """The tour's output: numbered steps with lines below them. Plain lines in a log, colours on a terminal."""

    def __init__(self) -> None:
        self._steps = 0

    def step(self, text: str) -> None:
        self._steps += 1
        click.secho(f"\n{self._steps}. {text}", bold=True)

    def line(self, text: str) -> None:
        click.echo(f"   {text}")

    def command(self, text: str) -> None:
        click.secho(f"   $ {text}", fg="cyan")

    def success(self, text: str) -> None:
        click.secho(f"\n{text}", fg="green", bold=True)

    def failure(self, text: str) -> None:
        click.secho(f"\nFAILED: {text}", fg="red", bold=True)

    def tail(self, log: Path) -> None:
        click.secho(f"\nLast lines of {log.name}:", bold=True)
        for line in log.read_text(errors="replace").splitlines()[-_LINES_OF_LOG:]:
            click.secho(f"   {line}", dim=True)


def tour(arguments: Sequence[str] = ()) -> int:
    """Run the tour and print it to stdout. It takes no arguments.

    Returns 0 when no acknowledged row was lost, 1 when one was or a step failed, and 64 for wrong usage. Leaves neither
    files nor processes behind, whatever happens; Ctrl-C raises KeyboardInterrupt and SIGTERM raises SystemExit.
    """
    if arguments:
        print(f"sidecar demo takes no arguments, not {arguments[0]!r}", file=sys.stderr)
        return _USAGE_STATUS
    story = _Story()
    with (
        _termination_as_exit(),
        # A machine that failed may still be writing while it is killed: leftovers are not worth a traceback.
        tempfile.TemporaryDirectory(prefix="sidecar-demo-", ignore_cleanup_errors=True) as directory,
    ):
        # SQLite and sidecar resolve links, and macOS has its temporary directory behind one.
        workshop = Workshop(Path(directory).resolve())
        try:
            _walk(story, workshop)
        except (TourFailed, OSError) as error:
            story.failure(str(error))
            for log in workshop.logs:
                story.tail(log)
            return 1
        finally:
            end_strays(workshop)
        return 0


def _walk(story: _Story, workshop: Workshop) -> None:
    acknowledged = _first_life(story, workshop)
    _second_life(story, workshop, acknowledged)
    _restore_without_us(story, workshop, acknowledged)
    story.success(f"Nothing was lost: all {len(acknowledged)} acknowledged rows survived the loss of the machine.")


def _first_life(story: _Story, workshop: Workshop) -> dict[int, Row]:
    """Steps 1 to 4. Returns every acknowledged row by its id."""
    story.step("Start the guestbook under sidecar, on an empty store")
    with boot(workshop, "machine-1", story.command) as machine:
        story.line(f"ready after {machine.boot_seconds:.2f} s")
        acknowledged = _write_around_a_restore_point(story, machine)
        _stop(story, workshop, machine)
    story.step("Lose the machine and its disk")
    machine.destroy()
    story.line(f"deleted {machine.directory}")
    return acknowledged


def _write_around_a_restore_point(story: _Story, machine: Machine) -> dict[int, Row]:
    story.step("Write rows over HTTP, some of them after the last restore point")
    earlier = machine.published()
    rows = _sign(machine, range(1, _ROWS + 1))
    story.line(f"{len(rows)} of {_ROWS} rows acknowledged (201 Created)")
    published = machine.wait_for_publish_after(earlier)
    story.line(f"restore points published so far: {published}")
    late = _sign(machine, range(_ROWS + 1, _ROWS + _LATE_ROWS + 1))
    story.line(f"{len(late)} of {_LATE_ROWS} more rows acknowledged, newer than that restore point")
    if len(rows) + len(late) < _ROWS + _LATE_ROWS:
        raise TourFailed("the guestbook did not accept every row")
    return rows | late


def _sign(machine: Machine, numbers: range) -> dict[int, Row]:
    """Post entries. Returns the acknowledged ones as they were sent, by id."""
    acknowledged = {}
    for number in numbers:
        draft = {
            "name": f"Guest {number}",
            "message": f"Row {number}: “quotes”, it's <b>markup</b>, çafé 日本語 🪿\n\tand a second line ",
        }
        reply = ask(machine.port, "POST", "/api/entries", draft)
        if reply.status == http.client.CREATED:
            answer = json.loads(reply.body)
            row = {"id": answer["id"], **draft, "written_at": answer["written_at"]}
            acknowledged[row["id"]] = row
    return acknowledged


def _stop(story: _Story, workshop: Workshop, machine: Machine) -> None:
    story.step("Send SIGTERM: sidecar stops the guestbook and publishes a final restore point")
    story.line(f"exit status {_expect_clean_stop(machine)}")
    command = ("list", "--database", str(machine.directory / DATABASE), "--store", workshop.store.as_uri())
    story.command(format_command([sys.executable, "-m", "sidecar", *command]))
    listed = set(_TIMESTAMP.findall(workshop.run(sys.executable, "-m", "sidecar", *command)))
    stored = {path.name.removesuffix(".sqlite3.zst") for path in _restore_points(workshop)}
    if listed != stored:
        raise TourFailed(f"`sidecar list` shows {sorted(listed)}, but the store has {sorted(stored)}")
    story.line(f"restore points in the store: {len(listed)}, the newest {max(listed)}")


def _expect_clean_stop(machine: Machine) -> int:
    status = machine.stop()
    if status != 0:
        raise TourFailed(f"after SIGTERM sidecar exited with status {status} instead of the guestbook's 0")
    return status


def _second_life(story: _Story, workshop: Workshop, acknowledged: dict[int, Row]) -> None:
    story.step("Boot in an empty directory and compare")
    with boot(workshop, "machine-2", story.command) as machine:
        story.line(f"restored and ready after {machine.boot_seconds:.2f} s")
        _compare(acknowledged, _read_all(machine))
        story.line(f"{len(acknowledged)} of {len(acknowledged)} acknowledged rows are back, byte for byte")
        _expect_clean_stop(machine)


def _read_all(machine: Machine) -> dict[int, Row]:
    rows: dict[int, Row] = {}
    while True:
        reply = ask(machine.port, "GET", f"/api/entries?limit={_PAGE}&after={max(rows, default=0)}")
        if reply.status != http.client.OK:
            raise TourFailed(
                f"the guestbook answered with status {reply.status}: {reply.body.decode(errors='replace')}"
            )
        page = json.loads(reply.body)["entries"]
        if not page:
            return rows
        rows |= {row["id"]: row for row in page}


def _compare(acknowledged: dict[int, Row], found: dict[int, Row]) -> None:
    missing = sorted(acknowledged.keys() - found.keys())
    changed = sorted(key for key in acknowledged.keys() & found.keys() if acknowledged[key] != found[key])
    if missing or changed:
        raise TourFailed(
            f"of {len(acknowledged)} acknowledged rows {len(missing)} are missing (ids {_few(missing)}) "
            f"and {len(changed)} differ (ids {_few(changed)})"
        )


def _few(numbers: list[int]) -> str:
    """The first ten numbers.

    >>> _few([])
    'none'
    """
    return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "") or "none"


def _restore_points(workshop: Workshop) -> list[Path]:
    """The restore points in the store, oldest first: their names sort by time."""
    return sorted((workshop.store / DATABASE).glob("*.sqlite3.zst"))


def _restore_without_us(story: _Story, workshop: Workshop, acknowledged: dict[int, Row]) -> None:
    story.step("Restore without sidecar: a restore point is an ordinary zstd file of an ordinary database")
    points = _restore_points(workshop)
    if not points:
        raise TourFailed(f"there is no restore point in {workshop.store / DATABASE}")
    target = workshop.root / "by-hand.db"
    by_hand = f"zstd -d < {workshop.store.name}/{DATABASE}/{points[-1].name} > {target.name}"
    story.command(by_hand)
    if shutil.which("zstd"):
        workshop.run("sh", "-c", by_hand)
    else:
        story.line("(zstd is not installed here; Python's zstandard does the same)")
        _decompress(points[-1], target)
    story.command(f"sqlite3 {target.name} '{_COUNT}'")
    _compare(acknowledged, _read_file(target))
    story.line(f"{len(acknowledged)} of {len(acknowledged)} acknowledged rows are there, byte for byte")
    story.line(f"from S3: aws s3 cp s3://BUCKET/{DATABASE}/{points[-1].name} - | zstd -d > app.db")


def _decompress(source: Path, target: Path) -> None:
    with source.open("rb") as compressed, target.open("wb") as plain:
        reader = zstandard.ZstdDecompressor().stream_reader(compressed, read_across_frames=True)
        shutil.copyfileobj(reader, plain)


def _read_file(path: Path) -> dict[int, Row]:
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
            rows = {row["id"]: dict(row) for row in connection.execute("SELECT * FROM entries")}
    except sqlite3.Error as error:
        raise TourFailed(f"{path.name} cannot be read as a database: {error}") from error
    if verdict != "ok":
        raise TourFailed(f"{path.name} is damaged: {verdict}")
    return rows


@contextlib.contextmanager
def _termination_as_exit() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that everything that was started is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    earlier = {number: signal.signal(number, _exit) for number in _INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
