"""SQLite's backup API, checkpoints and checks: the only module that opens a database.

One SQLite library per process (two would break each other's POSIX locks): pysqlite3's where it is installed, because it
carries a version without the WAL-reset bug (https://sqlite.org/wal.html#walresetbug), else the standard library's.
Every connection lives and dies in one worker thread; the live file is never opened except through SQLite.
"""

import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog
from anyio import from_thread, to_thread

from sidecar.database.base import Staging
from sidecar.database.errors import is_busy, needs_the_app, translate
from sidecar.database.statistics import Contents, contents_of
from sidecar.errors import ConfigurationError, DamagedDatabase, DatabaseBusy, DatabaseMissing
from sidecar.model import FileStamp, Signature, Snapshot

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:
        import sqlite3

log = structlog.get_logger()

STEP_BYTES = 4 << 20
SNAPSHOT_LIMIT = 3600.0
RACY_NS = 1_000_000_000
WAL_ATTEMPTS = 20
LOCK_WAIT = 2.0
DESCRIPTORS = Path("/proc/self/fd")


def is_fixed(version: tuple[int, ...]) -> bool:
    """Whether this SQLite is without the WAL-reset bug, and so may checkpoint while another process does."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


class SqliteSnapshotter:
    """Implements `ports.Snapshotter`."""

    def __init__(self, staging: Staging, *, switch_to_wal: bool = True) -> None:
        self._staging = staging
        self._switch_to_wal = switch_to_wal
        self._said: set[tuple[str, str]] = set()

    def sqlite_version(self) -> str:
        """See `ports.Snapshotter`."""
        return str(sqlite3.sqlite_version)

    def may_checkpoint(self) -> bool:
        """See `ports.Snapshotter`."""
        return is_fixed(sqlite3.sqlite_version_info)

    def signature(self, path: Path) -> Signature | None:
        """See `ports.Snapshotter`."""
        try:
            database = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigurationError(
                f"{path} cannot be read: {error.strerror}", "check the path's permissions"
            ) from error
        if not stat.S_ISREG(database.st_mode):
            kind = "a directory" if stat.S_ISDIR(database.st_mode) else "no regular file"
            raise ConfigurationError(f"{path} is {kind}", "`databases` takes the path of the SQLite file itself")
        if not os.access(path, os.R_OK):
            raise ConfigurationError(f"{path} cannot be read: Permission denied", "check the file's permissions")
        wal = _stat_or_none(f"{path}-wal")
        if not database.st_size:
            return None
        newest = max(database.st_mtime_ns, wal.st_mtime_ns if wal else 0)
        # An empty WAL says nothing: it comes with the first reader, who changes nothing.
        return Signature(
            _stamp(database), _stamp(wal) if wal and wal.st_size else None, time.time_ns() - newest < RACY_NS
        )

    async def prepare(self, path: Path) -> None:
        """See `ports.Snapshotter`."""
        if self.signature(path) is not None:
            await to_thread.run_sync(self._prepare, path)

    async def settle(self, path: Path) -> None:
        """See `ports.Snapshotter`."""
        await to_thread.run_sync(_settle, path)

    @asynccontextmanager
    async def snapshot(self, path: Path) -> AsyncIterator[Snapshot]:
        """See `ports.Snapshotter`."""
        if self.signature(path) is None:
            raise DatabaseMissing(f"there is no database at {path} yet")
        with ExitStack() as reserved:
            yield await to_thread.run_sync(self._snapshot, path, reserved)

    async def integrity(self, path: Path, mode: str, yield_to_app: Callable[[], None] | None = None) -> None:
        """See `ports.Snapshotter`."""
        if mode != "none":
            await to_thread.run_sync(_integrity, path, mode, yield_to_app)

    def _prepare(self, path: Path) -> None:
        with _translated(path), closing(_connect(path, "rw")) as connection:
            self._journal(connection, path)
            _touch(connection)

    def _snapshot(self, path: Path, reserved: ExitStack) -> Snapshot:
        """Checkpoint and copy; `reserved` takes the staged file, which outlives the connections."""
        started = time.monotonic()
        with _translated(path), closing(_connect(path, "ro")) as source:
            with closing(_connect(path, "rw")) as checkpointer:
                self._journal(checkpointer, path)
                self._checkpoint(checkpointer, path)
                signature = self.signature(path)
                checkpointed = time.monotonic()
                source.execute("BEGIN")
                _touch(source)
            # The writing connection is closed while the read-only one still holds its lock. The other way round it
            # could be the last to leave, and would lock everybody out to checkpoint and delete the WAL.
            page_size, pages = _pragma(source, "page_size"), _pragma(source, "page_count")
            if signature is None or not pages:
                raise DatabaseMissing(f"there is no database at {path} yet")
            target, on_tmpfs = reserved.enter_context(self._staging.reserve(path, page_size * pages))
            file = reserved.enter_context(_created(target))
            _copy(source, target, file, page_size)
        with _translated(path):
            contents = _contents(target, file)
        return Snapshot(
            path=target,
            size=page_size * pages,
            live=page_size * max(0, pages - contents.unused),
            page_size=page_size,
            tables=contents.tables,
            bare=page_size * contents.roots,
            rows=contents.rows,
            signature=signature,
            sqlite_version=self.sqlite_version(),
            on_tmpfs=on_tmpfs,
            seconds={"checkpoint": checkpointed - started, "snapshot": time.monotonic() - checkpointed},
            file=file if DESCRIPTORS.is_dir() else None,
        )

    def _journal(self, connection: "sqlite3.Connection", path: Path) -> None:
        """Switch to WAL if asked to and possible; a database in use by others may refuse, then we copy as it is."""
        if not self._switch_to_wal or connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            return
        connection.execute("PRAGMA busy_timeout=50")  # from here on it holds locks itself
        for _ in range(WAL_ATTEMPTS):
            from_thread.check_cancelled()
            try:
                mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                time.sleep(0.05)
                continue
            if mode == "wal":
                log.info("database switched to WAL", path=str(path))
                return
            break
        self._say_once(
            "database is not in WAL mode: its writers wait while it is copied",
            path=str(path),
            hint="run PRAGMA journal_mode=WAL in the app, or set journal_mode=keep to accept this",
        )

    def _checkpoint(self, connection: "sqlite3.Connection", path: Path) -> None:
        """PASSIVE: copies what it can, waits for nobody."""
        if self.may_checkpoint():
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        else:
            self._say_once(
                "this SQLite has the WAL-reset bug: backing up without checkpointing",
                path=str(path),
                sqlite=self.sqlite_version(),
                hint="install pysqlite3, or Python with SQLite 3.51.3 or newer",
            )

    def _say_once(self, event: str, **details: str) -> None:
        if (event, details["path"]) not in self._said:
            self._said.add((event, details["path"]))
            log.warning(event, **details)


@contextmanager
def _created(target: Path) -> Iterator[int]:
    """An empty file of our own under this name, open."""
    target.unlink(missing_ok=True)
    try:
        file = os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise _replaced(target) from error
    try:
        yield file
    finally:
        os.close(file)


def _require_opened(target: Path, file: int) -> None:
    """That the connection just made to `target` has opened this file.

    The directory may be one of the app's user, who could have put a link there meanwhile, and SQLite opens by name.
    """
    if DESCRIPTORS.is_dir() and sum(_is_same(file, name) for name in os.listdir(DESCRIPTORS)) < 2:
        raise _replaced(target)


def _is_same(file: int, descriptor: str) -> bool:
    with suppress(OSError):  # closed meanwhile
        return os.path.samestat(os.fstat(file), os.fstat(int(descriptor)))
    return False


def _replaced(target: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{target} was replaced by somebody else while it was made",
        f"who writes in {target.parent}? Set staging_dir to a directory of sidecar's own",
    )


def _copy(source: "sqlite3.Connection", target: Path, file: int, page_size: int) -> None:
    """Copy inside the read transaction that `source` already has open, so that no write restarts it."""
    limit = time.monotonic() + SNAPSHOT_LIMIT
    with closing(sqlite3.connect(target, isolation_level=None)) as destination:
        _require_opened(target, file)
        destination.execute("PRAGMA journal_mode=OFF")
        destination.execute("PRAGMA synchronous=OFF")
        source.backup(destination, pages=max(1, STEP_BYTES // page_size), progress=partial(_on_progress, limit))


def _on_progress(limit: float, _status: int, _remaining: int, _total: int) -> None:
    from_thread.check_cancelled()
    if time.monotonic() > limit:
        raise DatabaseBusy("the snapshot took more than an hour: given up, so that the WAL can be reset again")


def _contents(path: Path, file: int | None = None) -> Contents:
    """What is in a snapshot; reading the schema also proves that it is a database. `file`: that it is this one."""
    with closing(_connect(path, "ro&immutable=1")) as connection:
        if file is not None:
            _require_opened(path, file)
        return contents_of(connection)


def _settle(path: Path) -> None:
    with _translated(path):
        _contents(path)  # opened for writing, SQLite would delete the WAL of a database that it cannot read
    with _translated(path), closing(_connect(path, "rw")) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise DatabaseBusy(f"{path} is in use by another process", "stop it first")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")


def _integrity(path: Path, mode: str, yield_to_app: Callable[[], None] | None) -> None:
    pragma = "integrity_check(1)" if mode == "full" else "quick_check(1)"
    with _translated(path), closing(_connect(path, "ro&immutable=1")) as connection:
        # Counted in pages of the check, too: 500 of them are a few milliseconds.
        connection.set_progress_handler(partial(_interrupt, yield_to_app), 500 if yield_to_app else 100_000)
        try:
            verdict = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
        except sqlite3.OperationalError as error:
            from_thread.check_cancelled()
            if not needs_the_app(error):
                raise
            log.warning("SQLite's integrity check needs an extension of the app and is left out", error=str(error))
            return
    if verdict != "ok":
        raise DamagedDatabase(f"{path} fails SQLite's {mode} integrity check: {verdict}")


def _interrupt(yield_to_app: Callable[[], None] | None) -> int:
    from_thread.check_cancelled()  # an exception here interrupts the statement
    if yield_to_app:
        yield_to_app()
    return 0


def _connect(path: Path, mode: str) -> "sqlite3.Connection":
    """A connection that never creates a database. It waits for others' locks as long as it holds none itself."""
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}", uri=True, isolation_level=None, timeout=LOCK_WAIT
    )


def _touch(connection: "sqlite3.Connection") -> None:
    """Make the connection really open the file and take its lock."""
    connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()


def _pragma(connection: "sqlite3.Connection", name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _stat_or_none(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _stamp(of: os.stat_result) -> FileStamp:
    return FileStamp(of.st_ino, of.st_size, of.st_mtime_ns)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The one place where SQLite's errors become ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error
